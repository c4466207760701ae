"""Files of weights as edits: whatever wrote them, the base with the edit has the file's own weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from erase.changes import LowRank
from erase.edit import Edit, EditInfo
from erase.errors import BadEdit
from erase.export.checkpoint import checkpoint
from erase.export.lora import lora
from erase.export.parts.difference import compare
from erase.foreign import edit_in
from erase.models import Model, open_model
from tests.families import Opener
from tests.recipes import command
from tests.tiny_checkpoints import CHECKPOINTS, ldm_unet_tensors, tiny_checkpoint
from tests.tiny_edits import tiny_edit

Capture = pytest.CaptureFixture[str]
QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"


def values(edit: Edit, model: Model) -> dict[str, Tensor]:
    return {name: edit.changed_tensor(name, model.weight(name)) for name in edit.touches}


def assert_same(edit: Edit, other: Edit, model: Model, *, close: float = 0.0) -> None:
    ours, theirs = values(edit, model), values(other, model)
    assert ours
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=close)


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_the_checkpoint_that_was_exported_is_the_edit_that_was_exported(family: str, tmp_path: Path) -> None:
    folder, file = tiny_checkpoint(family, tmp_path)
    model = open_model(folder)
    edit = tiny_edit(model)
    exported = checkpoint(model, edit, tmp_path / "edited")
    assert_same(edit_in(exported, model), edit, model, close=5e-7)  # of float32, whose differences are rounded
    assert edit_in(exported, model).info.task == edit.info.task
    again = open_model(file, config=folder)
    assert edit_in(exported, again).touches == edit.touches


def attn2(model: Model) -> dict[str, Tensor]:
    """Another value of each key and value projection, as other erasers save them."""
    keys = [site.key for site in model.sites()]
    return {key: model.weights("unet").tensor(key) * 1.5 for key in keys}


SPELLED: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "diffusers' names": dict,
    "with unet. in front": lambda tensors: {f"unet.{key}": value for key, value in tensors.items()},
    "the LDM layout": ldm_unet_tensors,
    "the LDM layout, bare": lambda tensors: {
        key.removeprefix("model.diffusion_model."): value for key, value in ldm_unet_tensors(tensors).items()
    },
}


@pytest.mark.parametrize("spelled", SPELLED)
def test_tensors_of_other_erasers_are_the_edits_that_they_make(spelled: str, tmp_path: Path) -> None:
    folder, _ = tiny_checkpoint("stable-diffusion", tmp_path)
    model = open_model(folder)
    tensors = attn2(model)
    save_file(SPELLED[spelled](tensors), tmp_path / "esd.safetensors")
    made = values(edit_in(tmp_path / "esd.safetensors", model), model)
    assert made.keys() == {f"unet.{key}" for key in tensors}
    for key, value in tensors.items():
        assert torch.equal(made[f"unet.{key}"], value)


def test_rounding_to_half_precision_is_no_change(model: Model, tmp_path: Path) -> None:
    changed = attn2(model)
    first, *rest = changed
    own = {key: model.weights("unet").tensor(key) for key in rest}
    save_file({key: value.half() for key, value in ({first: changed[first]} | own).items()}, tmp_path / "a.safetensors")
    assert edit_in(tmp_path / "a.safetensors", model).touches == (f"unet.{first}",)


@pytest.mark.parametrize("family", [*CHECKPOINTS, "stable-diffusion-3", "flux"])
def test_our_own_lora_is_the_edit_that_was_exported(family: str, family_model: Opener, tmp_path: Path) -> None:
    model = family_model(family)
    generator, sites = torch.Generator().manual_seed(5), model.sites()[:3]
    shapes = {site.name: tuple(model.weight(site.name).shape) for site in sites}
    pairs = [
        LowRank(torch.randn(rows, 2, generator=generator), torch.randn(2, columns, generator=generator), name)
        for name, (rows, columns) in shapes.items()
    ]
    edit = Edit(EditInfo("test", {}, {}, family, model.fingerprint), low_rank=tuple(pairs))
    assert_same(edit_in(lora(model, edit, tmp_path / "lora", loss=0), model), edit, model, close=1e-5)


def factors(model: Model, rank: int = 2) -> tuple[Tensor, Tensor]:
    rows, columns = model.weight(f"unet.{QUERY}.weight").shape
    generator = torch.Generator().manual_seed(4)
    return torch.randn(rows, rank, generator=generator), torch.randn(rank, columns, generator=generator)


KEYS = {
    "kohya, LECO, SPM": ("lora_unet_" + QUERY.replace(".", "_"), "lora_up.weight", "lora_down.weight", "alpha"),
    "kohya by LDM's names": (
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_q",
        "lora_up.weight",
        "lora_down.weight",
        "alpha",
    ),
    "diffusers": (f"unet.{QUERY}", "lora_B.weight", "lora_A.weight", ""),
    "peft": (f"base_model.model.{QUERY}", "lora_B.weight", "lora_A.weight", ""),
    "diffusers, older": (f"unet.{QUERY}", "lora.up.weight", "lora.down.weight", ""),
    "diffusers, at first": (
        f"unet.{QUERY.removesuffix('.to_q')}.processor.to_q_lora",
        "up.weight",
        "down.weight",
        "",
    ),
}


@pytest.mark.parametrize("who", KEYS)
def test_a_lora_of_any_spelling_adds_what_its_factors_and_alpha_say(who: str, tmp_path: Path) -> None:
    folder, _ = tiny_checkpoint("stable-diffusion", tmp_path)
    model = open_model(folder)
    (up, down), (module, *ends, alpha) = factors(model), KEYS[who]
    join = "_lora." if module.endswith("_lora") else "."
    stem = module.removesuffix("_lora") + join
    tensors = dict(zip((f"{stem}{end}" for end in ends), (up, down), strict=True))
    if alpha:
        tensors[f"{module}.alpha"] = torch.tensor(1.0)
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "lora.safetensors")
    edit = edit_in(tmp_path / "lora.safetensors", model)
    assert edit.touches == (f"unet.{QUERY}.weight",)
    weight = model.weight(edit.touches[0])
    expected = weight.double() + (0.5 if alpha else 1.0) * up.double() @ down.double()
    torch.testing.assert_close(edit.changed_tensor(edit.touches[0], weight), expected.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"down_blocks.7.attn2.to_k.weight": torch.zeros(4, 4)}, "does not have"),
        ({f"{QUERY}.weight": torch.zeros(3, 3)}, "give the base that it was made from"),
        ({"lora_unet_nowhere.lora_up.weight": torch.zeros(4, 1)}, "no layer of this name"),
        ({f"unet.{QUERY}.lora_A.weight": torch.ones(1, 16)}, "one of its two factors is missing"),
        (
            {f"unet.{QUERY}.lora_A.weight": torch.ones(1, 9), f"unet.{QUERY}.lora_B.weight": torch.ones(9, 1)},
            "give the",
        ),
        ({"lora_unet_x.hada_w1_a": torch.zeros(4, 1)}, "no part of a plain LoRA"),
    ],
)
def test_what_fits_nothing_is_told_and_not_left_out(
    tensors: dict[str, Tensor], said: str, model: Model, tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(BadEdit, match=said):
        edit_in(tmp_path / "a.safetensors", model)


def test_a_folder_and_tensors_of_others_are_compared(model: Model, tmp_path: Path) -> None:
    save_file(attn2(model), tmp_path / "esd.safetensors")
    found = compare(model.path, tmp_path / "esd.safetensors")
    assert [one.name for one in found.differences] == sorted(site.name for site in model.sites())
    assert all(abs(one.relative - 0.5) < 1e-5 for one in found.differences)
    assert found.same > 0


def test_tensors_of_others_are_drawn_exported_and_verified(tiny_model: Path, tmp_path: Path, capsys: Capture) -> None:
    model, file = open_model(tiny_model), tmp_path / "esd.safetensors"
    save_file({f"unet.{key}": value for key, value in attn2(model).items()}, file)
    assert command(capsys, "generate", "-m", tiny_model, "-e", file, "-p", "a cat", "-o", tmp_path / "images").code == 0
    before, after = (next((tmp_path / f"images/{side}").iterdir()).read_bytes() for side in ("before", "after"))
    assert before != after
    for form in ("lora", "folder", "checkpoint"):
        export = ("export", "-m", tiny_model, "-e", file, "--to", form, "-o", tmp_path / form)
        assert command(capsys, *export).code == 0
    stored = load_file(tmp_path / "folder/unet/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(stored[key], value) for key, value in attn2(model).items())
    said = command(capsys, "diff", tiny_model, tmp_path / "checkpoint.safetensors")
    assert said.out.count("relative 0.5") == len(model.sites())
