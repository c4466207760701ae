"""A transformer alone in a file, as people keep those of SD 3.5 and FLUX.1, with a folder of the other parts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from erase.config.prompts import Row
from erase.edit import Edit, EditInfo, TextMap
from erase.errors import BadModel, UnknownName
from erase.evaluate.edited import open_edited
from erase.export.checkpoint import checkpoint
from erase.export.folder import folder
from erase.export.lora import lora
from erase.export.parts.modelspec import architecture
from erase.export.parts.undo import undo
from erase.models import Model, open_model
from erase.run.pipeline import load_pipeline, resolve
from erase.sampling.generate import sample
from erase.sampling.sampler import Sampler
from tests.recipes import command, contents, refused, tiny_recipe, write_recipe

PREFIX = "model.diffusion_model."
JOINT = ("stable-diffusion-3", "flux")
Opener = Callable[[str], Model]
Capture = pytest.CaptureFixture[str]


def none(model: Model) -> Edit:
    """An edit that changes nothing."""
    return Edit(EditInfo("uce", {}, {}, model.family, model.fingerprint))


def edit_of(model: Model) -> Edit:
    generator = torch.Generator().manual_seed(0)
    site = next(site for site in model.sites() if site.reads == "tokens")
    up, down = (torch.randn(shape, generator=generator) for shape in ((site.columns, 2), (2, site.columns)))
    return Edit(none(model).info, (TextMap(0.1 * up, down, (site.name,)),))


def plain(model: Model, place: Path) -> dict[str, Tensor]:
    return load_file(model.path / "transformer" / "diffusion_pytorch_model.safetensors")


def original(model: Model, place: Path) -> dict[str, Tensor]:
    return load_file(checkpoint(model, none(model), place / "published"))


def prefixed(model: Model, place: Path) -> dict[str, Tensor]:
    beside = {"first_stage_model.decoder.conv_in.weight": torch.zeros(1)}
    return {f"{PREFIX}{key}": value for key, value in original(model, place).items()} | beside


LAYOUTS = {"diffusers": plain, "published": original, "checkpoint": prefixed}


@pytest.fixture(params=JOINT)
def whole(request: pytest.FixtureRequest, family_model: Opener) -> Model:
    return family_model(request.param)


@pytest.fixture
def others(whole: Model, tmp_path: Path) -> Path:
    """The folder of the model without its transformer's weights."""
    place = Path(shutil.copytree(whole.path, tmp_path / "base model"))
    (place / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    return place


@pytest.fixture
def file(whole: Model, tmp_path: Path) -> Path:
    save_file(original(whole, tmp_path), tmp_path / "my transformer.safetensors")
    return tmp_path / "my transformer.safetensors"


def images(model: Model) -> list[bytes]:
    rows = [Row("a cat in noto style", 0), Row("Émile Noël", 1)]
    return [image.tobytes() for _, image in sample(model, rows, Sampler(steps=2, batch=2, size=16))]


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_file_with_its_parts_is_the_whole_model_in_every_layout(
    whole: Model, others: Path, layout: str, tmp_path: Path
) -> None:
    made = tmp_path / "my transformer.safetensors"
    save_file(LAYOUTS[layout](whole, tmp_path), made)
    model = open_model(f"{made}@{others}")
    assert (model.family, model.fingerprint) == (whole.family, whole.fingerprint)
    ours, theirs = (dict(one.weights("transformer").tensors()) for one in (model, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert images(model) == images(whole)
    half = model.pipeline(torch.bfloat16).transformer
    assert {value.dtype for value in half.parameters()} == {torch.bfloat16}
    assert open_model(made, config=others).content == model.content


def test_exports_of_it_are_those_of_the_whole_folder(whole: Model, others: Path, file: Path, tmp_path: Path) -> None:
    model, edit = open_model(f"{file}@{others}"), edit_of(whole)
    assert edit_of(model).content == edit.content
    assert architecture(model) == architecture(whole)
    for export in (checkpoint, lora):
        mine, ours = (export(one, edit, tmp_path / name / "out") for one, name in ((model, "mine"), (whole, "ours")))
        ours_held = load_file(ours)
        assert all(torch.equal(ours_held[key], value) for key, value in load_file(mine).items())
    made, base = folder(model, edit, tmp_path / "made"), f"{file}@{others}"
    left, right = (open_model(one) for one in (made, folder(whole, edit, tmp_path / "folder")))
    assert (left.fingerprint, images(left)) == (right.fingerprint, images(right))
    assert left.fingerprint != whole.fingerprint
    restored = open_model(undo(made, tmp_path / "restored", base=base))
    assert (restored.fingerprint, images(restored)) == (whole.fingerprint, images(whole))


def test_what_was_exported_as_a_file_is_verified_against_its_base(whole: Model, tmp_path: Path) -> None:
    edit = edit_of(whole)
    found = open_edited(checkpoint(whole, edit, tmp_path / "edited"), whole)
    assert found.edit is not None
    assert found.edit.touches == edit.touches
    for name in edit.touches:
        own = whole.weight(name)
        ours, theirs = (one.changed_tensor(name, own) for one in (found.edit, edit))
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)  # differences are of float32
    same = open_edited(checkpoint(whole, none(whole), tmp_path / "same"), whole)
    assert same.edit is not None
    assert same.edit.touches == ()


def test_other_parts_are_another_model(whole: Model, others: Path, file: Path) -> None:
    before = open_model(f"{file}@{others}").content
    config = others / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text(encoding="utf-8").replace("3.0", "2.0"), encoding="utf-8")
    assert open_model(f"{file}@{others}").content != before


def test_a_file_without_its_parts_is_one_line_that_says_how_to_give_them(file: Path, capsys: Capture) -> None:
    line = refused(capsys, "generate", "-m", file, "-p", "a cat", "-o", file.parent / "images")
    assert f"{file}@FOLDER" in line
    assert "text encoders" in line
    assert not (file.parent / "images").exists()


def test_parts_that_do_not_go_with_it_are_one_line(
    whole: Model, others: Path, file: Path, family_model: Opener
) -> None:
    another = family_model(next(name for name in JOINT if name != whole.family)).path
    with pytest.raises(BadModel, match="the file has none; give the folder of the"):
        open_model(f"{file}@{another}")
    with pytest.raises(BadModel, match="holds a transformer alone; give the folder of the model that it belongs to"):
        open_model(file, config=family_model("stable-diffusion").path)
    with pytest.raises(UnknownName, match="nowhere"):
        open_model(f"{file}@nowhere")
    with pytest.raises(BadModel, match="names the other parts already"):
        open_model(f"{file}@{others}", config=others)
    shutil.rmtree(others / "vae")
    with pytest.raises(BadModel, match="has no vae folder"):
        open_model(f"{file}@{others}")


def test_eight_bits_with_scales_are_refused(whole: Model, others: Path, file: Path) -> None:
    save_file(load_file(file) | {"double_blocks.0.img_attn.qkv.scale_weight": torch.ones(1)}, file)
    with pytest.raises(BadModel, match="eight bits with scales"):
        open_model(f"{file}@{others}")


def test_the_name_is_taken_by_commands_and_pipelines(
    others: Path, file: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"{file.name}@{others.name}"
    command(capsys, "edit", "-m", name, "-t", "cat", "-a", "dog", "--kind", "object", "-o", "cat.safetensors")
    command(
        capsys,
        "generate",
        "-m",
        name,
        "-e",
        "cat.safetensors",
        "-p",
        "a cat",
        "--steps",
        "1",
        "--size",
        16,
        "-o",
        "images",
    )
    assert len(contents(tmp_path / "images")) == 2
    recipe = write_recipe(tmp_path, tiny_recipe(tmp_path, Path(name)))
    assert resolve(load_pipeline(str(recipe))).model == f"{file}@{others}"
