"""Every family ships as what it can: a folder and a LoRA each, a single file those with a UNet."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_sd3_transformer_checkpoint_to_diffusers,
)
from safetensors.torch import load_file, save_file

from erase.edit import Edit, EditInfo, TextMap
from erase.errors import BadEdit, BadModel
from erase.export.checkpoint import checkpoint
from erase.export.folder import folder
from erase.export.lora import lora
from erase.export.parts.difference import compare
from erase.export.parts.inspection import look_at
from erase.export.parts.manifest import verify
from erase.export.parts.undo import undo
from erase.export.patch import patch
from erase.models import Model, open_model
from tests.recipes import contents
from tests.tiny_checkpoints import tiny_checkpoint

pytestmark = pytest.mark.usefixtures("no_network")
WITH_UNET = ("stable-diffusion", "stable-diffusion-2", "stable-diffusion-xl")


@pytest.fixture(params=WITH_UNET)
def opened(request: pytest.FixtureRequest, family_model: Callable[[str], Model]) -> Model:
    return family_model(request.param)


def edit_of(model: Model) -> Edit:
    """A text map on all sites that read tokens, and a dense change in every text encoder."""
    generator = torch.Generator().manual_seed(0)
    sites = [site for site in model.sites() if site.reads == "tokens"]
    width = sites[0].columns
    up, down = (torch.randn(shape, generator=generator) for shape in ((width, 2), (2, width)))
    names = [f"{part}.encoder.layers.0.self_attn.k_proj.weight" for part in model.text_components]
    deltas = {name: 0.05 * torch.randn(model.weight(name).shape, generator=generator) for name in names}
    info = EditInfo("uce", {}, {}, model.family, model.fingerprint)
    return Edit(info, (TextMap(0.1 * up, down, tuple(site.name for site in sites)),), deltas)


def parts(pipe: Any, model: Model) -> dict[str, torch.Tensor]:
    """Every weight of a pipeline by its name."""
    components = (model.backbone, "vae", *model.text_components)
    return {f"{part}.{key}": value for part in components for key, value in getattr(pipe, part).state_dict().items()}


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """The names of the weights that are not the same bit for bit; both must have the same names."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def some_edit(model: Model) -> Edit:
    return edit_of(model) if model.backbone == "unet" else edit_of_transformer(model)


def test_a_patch_applied_is_the_edited_folder_bit_for_bit(each_model: Model, tmp_path: Path) -> None:
    edit = some_edit(each_model)
    whole = parts(open_model(folder(each_model, edit, tmp_path / "folder")).pipeline(), each_model)
    pipe = each_model.pipeline()
    before = {name: value.clone() for name, value in parts(pipe, each_model).items()}
    with Edit.load(patch(each_model, edit, tmp_path / "patch")).apply(pipe):
        assert differing(parts(pipe, each_model), whole) == []
        assert len(differing(before, whole)) == len(edit.touches)
    assert differing(parts(pipe, each_model), before) == []


def test_a_folder_differs_by_the_edit_alone_and_undoes_to_the_sources_bytes(each_model: Model, tmp_path: Path) -> None:
    edit = some_edit(each_model)
    out = folder(each_model, edit, tmp_path / "out", reversal=True)
    found = compare(each_model.path, out, ranks=False)
    assert [one.name for one in found.differences] == list(edit.touches)
    assert contents(undo(out, tmp_path / "from-base", base=each_model.path)) == contents(each_model.path)
    assert contents(undo(out, tmp_path / "reversed")) == contents(each_model.path)


def test_a_single_file_is_the_edited_folder_tensor_for_tensor(opened: Model, tmp_path: Path) -> None:
    edit = edit_of(opened)
    base, whole = opened.pipeline(), open_model(folder(opened, edit, tmp_path / "folder")).pipeline()
    file = checkpoint(opened, edit, tmp_path / "single")
    single = type(whole).from_single_file(str(file), config=str(opened.path), local_files_only=True)
    before, ours, theirs = (parts(pipe, opened) for pipe in (base, single, whole))
    assert differing(ours, theirs) == []
    assert len(differing(before, theirs)) == len(edit.touches)


def test_a_single_file_is_the_same_however_the_folders_text_encoders_are_stored(opened: Model, tmp_path: Path) -> None:
    written = {}
    for spelling in ("text_model.", ""):
        copy = Path(shutil.copytree(opened.path, tmp_path / f"folder{len(spelling)}" / "model"))
        for part in opened.text_components:
            file = copy / part / "model.safetensors"
            flat = {key.removeprefix("text_model."): value for key, value in load_file(file).items()}
            save_file({key if "project" in key else spelling + key: value for key, value in flat.items()}, file)
        model = open_model(copy)
        written[spelling] = checkpoint(model, edit_of(model), copy.parent / "single").read_bytes()
    assert written["text_model."] == written[""]


def test_base_and_lora_are_the_edited_folder(opened: Model, tmp_path: Path) -> None:
    edit = edit_of(opened)
    whole = parts(open_model(folder(opened, edit, tmp_path / "folder")).pipeline(), opened)
    pipe = opened.pipeline()
    pipe.load_lora_weights(str(lora(opened, edit, tmp_path / "lora", rank=64)))
    pipe.fuse_lora(components=["unet", *opened.text_components])
    pipe.unload_lora_weights()
    fused = parts(pipe, opened)
    assert max(float((fused[key] - whole[key]).abs().max()) for key in whole) < 2e-6


@pytest.fixture(params=["stable-diffusion-3", "flux"])
def joint(request: pytest.FixtureRequest, family_model: Callable[[str], Model]) -> Model:
    return family_model(request.param)


def edit_of_transformer(model: Model) -> Edit:
    """A text map on what reads tokens, and a dense change of one weight that reads a stream and of the pooled one."""
    generator = torch.Generator().manual_seed(0)
    (embedder,) = (site for site in model.sites() if site.reads == "tokens")
    up, down = (torch.randn(shape, generator=generator) for shape in ((embedder.columns, 2), (2, embedder.columns)))
    names = [next(site.name for site in model.sites() if site.reads == reads) for reads in ("stream", "pooled")]
    deltas = {name: 0.05 * torch.randn(model.weight(name).shape, generator=generator) for name in names}
    info = EditInfo("uce", {}, {}, model.family, model.fingerprint)
    return Edit(info, (TextMap(0.1 * up, down, (embedder.name,)),), deltas)


def test_a_transformers_lora_is_the_edited_folder(joint: Model, tmp_path: Path) -> None:
    edit = edit_of_transformer(joint)
    whole = open_model(folder(joint, edit, tmp_path / "folder")).pipeline().transformer.state_dict()
    pipe = joint.pipeline()
    before = {name: value.clone() for name, value in pipe.transformer.state_dict().items()}
    file = lora(joint, edit, tmp_path / "lora", rank=64)
    assert set(load_file(file)) == {
        f"{name.removesuffix('.weight')}.lora_{side}.weight" for name in edit.touches for side in "AB"
    }
    pipe.load_lora_weights(str(file))
    pipe.fuse_lora(components=["transformer"])
    pipe.unload_lora_weights()
    fused = pipe.transformer.state_dict()
    assert fused.keys() == whole.keys()
    assert max(float((fused[key] - whole[key]).abs().max()) for key in whole) < 2e-6
    assert len(differing(before, whole)) == len(edit.touches) == 3


def test_a_transformers_single_file_is_the_edited_folder_as_diffusers_reads_it(joint: Model, tmp_path: Path) -> None:
    edit = edit_of_transformer(joint)
    whole = open_model(folder(joint, edit, tmp_path / "folder")).pipeline().transformer.state_dict()
    file = checkpoint(joint, edit, tmp_path / "single")
    written = load_file(file)
    joined = [key for key in written if ".linear1." in key]
    for key in joined:  # diffusers cuts these at the width of the published model
        block, kind = key.split(".")[1], key.rpartition(".")[2]
        names = [*(f"attn.to_{one}" for one in "qkv"), "proj_mlp"]
        parts = [whole.pop(f"single_transformer_blocks.{block}.{name}.{kind}") for name in names]
        assert torch.equal(written[key], torch.cat(parts))
        written[key] = torch.zeros(3 * 3072 + 4 * 3072, *written[key].shape[1:])
    assert len(joined) == (4 if joint.family == "flux" else 0)
    convert = {
        "flux": convert_flux_transformer_checkpoint_to_diffusers,
        "stable-diffusion-3": convert_sd3_transformer_checkpoint_to_diffusers,
    }[joint.family]
    read = convert(written)
    assert all(torch.equal(read[key], value) for key, value in whole.items())
    assert {key for key in read if key not in whole} == {
        f"single_transformer_blocks.{block}.{name}.{kind}"
        for block in (0, 1)
        for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
        for kind in ("weight", "bias")
        if joined
    }
    assert look_at(file).what == {"flux": "a FLUX transformer"}.get(joint.family, "a Stable Diffusion 3 transformer")


def test_a_transformers_single_file_is_loaded_by_diffusers(
    family_model: Callable[[str], Model], tmp_path: Path
) -> None:
    model = family_model("stable-diffusion-3")
    file = checkpoint(model, edit := edit_of_transformer(model), tmp_path / "single")
    loaded = SD3Transformer2DModel.from_single_file(str(file), config=str(model.path), subfolder="transformer")
    whole = open_model(folder(model, edit, tmp_path / "folder")).pipeline().transformer.state_dict()
    assert differing(loaded.state_dict(), whole) == []


def test_what_a_transformer_says_of_itself_and_what_it_cannot_ship_as_is_one_line(joint: Model, tmp_path: Path) -> None:
    edit = edit_of_transformer(joint)
    found = look_at(lora(joint, edit, tmp_path / "lora"))
    assert found.what == "a LoRA with diffusers' keys"
    assert found.facts["modelspec.architecture"] in ("stable-diffusion-3/lora", "flux-1-dev/lora")
    assert not any(name.startswith("ss_") for name in found.facts)
    with pytest.raises(BadModel, match=r"original is for Stable Diffusion 1, 2 and XL"):
        checkpoint(joint, edit, tmp_path / "out", original="flux1-dev.safetensors")
    name = "text_encoder.encoder.layers.0.self_attn.k_proj.weight"
    with pytest.raises(BadEdit, match="holds the transformer alone"):
        checkpoint(joint, replace(edit, deltas={name: torch.ones(joint.weight(name).shape)}), tmp_path / "out")
    with pytest.raises(BadEdit, match="which a LoRA cannot hold"):
        lora(joint, replace(edit, deltas={name: torch.ones(joint.weight(name).shape)}), tmp_path / "out")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.fixture
def from_file(opened: Model, tmp_path: Path) -> Model:
    """The same model as a single file, opened with the folder's settings."""
    file = checkpoint(opened, edit_of(opened).scaled(0.0), tmp_path / "base")
    return open_model(file, config=opened.path)


def test_what_was_written_as_a_single_file_is_opened_as_the_same_model(opened: Model, from_file: Model) -> None:
    assert (from_file.family, from_file.fingerprint) == (opened.family, opened.fingerprint)
    states, theirs = (model.encode(["a cat in noto style", ""]).states for model in (from_file, opened))
    assert torch.equal(states, theirs)
    assert differing(parts(from_file.pipeline(), opened), parts(opened.pipeline(), opened)) == []


def test_a_single_files_folder_is_the_edited_folder_and_undoes_to_the_source(
    opened: Model, from_file: Model, tmp_path: Path
) -> None:
    edit = edit_of(opened)
    assert edit_of(from_file).content == edit.content
    made = folder(from_file, edit, tmp_path / "made", reversal=True)
    ours = open_model(made)
    theirs = open_model(folder(opened, edit, tmp_path / "folder"))
    assert differing(parts(ours.pipeline(), opened), parts(theirs.pipeline(), opened)) == []
    assert len(verify(made).changed) == len(edit.touches)
    plain = open_model(undo(made, tmp_path / "from-file", base=from_file.path))
    assert differing(parts(plain.pipeline(), opened), parts(opened.pipeline(), opened)) == []
    assert contents(undo(made, tmp_path / "reversed")) == contents(plain.path)


def test_a_safety_checker_that_a_single_file_does_not_hold_is_not_promised(
    family_model: Callable[[str], Model], tmp_path: Path
) -> None:
    model = family_model("stable-diffusion")
    settings = Path(shutil.copytree(model.path, tmp_path / "settings"))
    index = (settings / "model_index.json").read_text(encoding="utf-8")
    checker = '"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]'
    kept = "\n".join(line for line in index.splitlines() if "requires_safety" not in line)
    (settings / "model_index.json").write_text(
        kept.replace('"safety_checker": [\n    null,\n    null\n  ]', f'{checker},\n  "requires_safety_checker": true'),
        encoding="utf-8",
    )
    assert checker in (settings / "model_index.json").read_text(encoding="utf-8")
    file = checkpoint(model, edit_of(model).scaled(0.0), tmp_path / "base")
    out = folder(open_model(file, config=settings), edit_of(model), tmp_path / "out")
    assert open_model(out).pipeline().safety_checker is None
    assert type(model.pipeline()).from_pretrained(out, local_files_only=True).safety_checker is None


def test_a_folder_and_a_single_file_are_compared_by_the_folders_names(
    opened: Model, from_file: Model, tmp_path: Path
) -> None:
    edit = edit_of(opened)
    assert compare(opened.path, from_file.path).differences == ()
    found = compare(checkpoint(from_file, edit, tmp_path / "edited"), opened.path, ranks=False)
    assert [difference.name for difference in found.differences] == list(edit.touches)
    tensors = sum(len(opened.weights(part).places) for part in ("unet", "vae", *opened.text_components))
    assert (found.same, found.beside) == (tensors - len(edit.touches), 0)


def test_what_a_single_file_holds_beside_is_told(tmp_path: Path) -> None:
    settings, source = tiny_checkpoint("stable-diffusion-2", tmp_path)
    found = compare(settings, source)
    assert {one.name.partition(".")[0] for one in found.differences} == {"vae"}  # the tests' file has none
    layer = sum(".resblocks.23." in key for key in load_file(source))
    assert found.beside == layer + len(["logit_scale", "text_projection"])


@pytest.mark.parametrize("family", WITH_UNET)
def test_an_opened_single_file_is_patched_and_keeps_all_else(family: str, tmp_path: Path) -> None:
    _, source = tiny_checkpoint(family, tmp_path)
    model = open_model(source)
    edit = edit_of(model)
    old, new = load_file(source), load_file(checkpoint(model, edit, tmp_path / "out"))
    assert len(differing(old, new)) == len(edit.touches)
