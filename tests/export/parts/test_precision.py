"""An export in another precision rounds each number once, and says what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from erase.edit import Edit
from erase.errors import BadModel, BadOption, BadWeights
from erase.export.checkpoint import checkpoint
from erase.export.folder import folder
from erase.export.parts.manifest import verify
from erase.export.parts.undo import undo
from erase.models import Model, open_model
from tests.export.test_folder import DELTAS, TEXT, UNET, halved
from tests.tiny_edits import tiny_edit

pytestmark = pytest.mark.usefixtures("no_network")
WIDTHS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def expected(model: Model, edit: Edit, name: str) -> np.ndarray[Any, Any]:
    """The new value in float64, by the edit's own tensors and the products written out in numpy."""
    value = model.weight(name).double().numpy()
    total = value.copy()
    for one in edit.text_maps:
        if name in one.sites:
            up, down = one.up.double().numpy(), one.down.double().numpy()
            total[:, : len(up)] += np.einsum("oi,ir,rj->oj", value[:, : len(up)], up, down)
    return total + (edit.deltas[name].double().numpy() if name in edit.deltas else 0)


@pytest.mark.parametrize("dtype", list(WIDTHS))
@pytest.mark.parametrize("half", [False, True])
def test_a_folder_is_rounded_once_to_what_was_asked(half: bool, dtype: Any, tiny_copy: Path, tmp_path: Path) -> None:
    model = open_model(halved(tiny_copy) if half else tiny_copy)
    edit = tiny_edit(model, size=0.2, deltas=DELTAS)
    out = folder(model, edit, tmp_path / "out", dtype=dtype)
    for part in (UNET, TEXT, "vae/diffusion_pytorch_model.safetensors"):
        tensors = load_file(out / part)
        assert {one.dtype for one in tensors.values() if one.is_floating_point()} == {WIDTHS[dtype]}
        assert load_file(tiny_copy / part).keys() - tensors.keys() == set() or part == TEXT
    unet = load_file(out / UNET)
    for name in (one for one in edit.touches if one.startswith("unet.")):
        rounded = torch.from_numpy(expected(model, edit, name)).to(WIDTHS[dtype])
        assert torch.equal(unet[name.removeprefix("unet.")], rounded)
    verify(out)
    assert json.loads((out / "manifest.json").read_text(encoding="utf-8"))["dtype"] == dtype
    assert StableDiffusionPipeline.from_pretrained(out, safety_checker=None).unet.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_single_file_is_of_one_precision_and_equals_the_folder(dtype: Any, tiny_model: Path, tmp_path: Path) -> None:
    model = open_model(tiny_model)
    edit = tiny_edit(model, size=0.2, deltas=DELTAS)
    tensors = load_file(file := checkpoint(model, edit, tmp_path / "single", dtype=dtype))
    assert {one.dtype for one in tensors.values()} == {WIDTHS[dtype]}
    single, whole = open_model(file, config=tiny_model), open_model(folder(model, edit, tmp_path / "out", dtype=dtype))
    assert all(torch.equal(single.weight(name), whole.weight(name)) for name in edit.touches)
    again = load_file(checkpoint(single, tiny_edit(single, size=0.1), tmp_path / "again", dtype="float32"))
    assert {one.dtype for one in again.values()} == {torch.float32}


def test_what_was_rounded_is_not_undone(model: Model, tmp_path: Path) -> None:
    edit = tiny_edit(model, size=0.2)
    out = folder(model, edit, tmp_path / "out", dtype="float16")
    with pytest.raises(BadModel, match="exported as float16"):
        undo(out, tmp_path / "restored", base=str(model.path))
    with pytest.raises(BadOption, match="cannot be undone"):
        folder(model, edit, tmp_path / "other", dtype="float16", reversal=True)
    assert not (tmp_path / "other").exists()


def test_a_value_that_float16_cannot_hold_is_refused_and_leaves_nothing(tiny_copy: Path, tmp_path: Path) -> None:
    tensors = load_file(tiny_copy / UNET)
    tensors["conv_in.bias"] = torch.full_like(tensors["conv_in.bias"], 1e5)
    save_file(tensors, tiny_copy / UNET, metadata={"format": "pt"})
    model = open_model(tiny_copy)
    with pytest.raises(BadWeights, match="export as bfloat16"):
        folder(model, tiny_edit(model), tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()
