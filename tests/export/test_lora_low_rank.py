"""A trained adapter is exported as the LoRA that it is: every change is in the file, whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from erase.edit import Edit
from erase.errors import BadEdit
from erase.export.lora import lora
from erase.models import Model
from tests.test_edit_low_rank import CONVOLUTION, info, some_edit


def test_every_low_rank_change_is_in_the_file_and_whole(model: Model, tmp_path: Path) -> None:
    edit = some_edit(model) + some_edit(model, seed=1)
    tensors = load_file(lora(model, edit, tmp_path / "lora.safetensors", rank=1, dtype="float32"))
    keys = [key.removesuffix(".alpha") for key in tensors if key.endswith(".alpha")]
    assert len(keys) == len(edit.touches) == 2
    for name in edit.touches:
        (key,) = (key for key in keys if key.endswith("conv_in") == (name == CONVOLUTION))
        up, down = (tensors[f"{key}.lora_{part}.weight"].double().flatten(1) for part in ("up", "down"))
        scale = tensors[f"{key}.alpha"].double() / len(down)
        expected = sum(one.delta(model.weight(name)) for one in edit.low_rank if one.site == name)
        assert isinstance(expected, torch.Tensor)
        torch.testing.assert_close(scale * (up @ down), expected.flatten(1), rtol=1e-5, atol=1e-5)
        assert expected.norm() > 1
    assert edit.rank == 4


def test_a_guidance_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(BadEdit, match="acts while sampling"):
        lora(model, Edit(info(model), guidance=True), tmp_path / "lora.safetensors")
    assert not (tmp_path / "lora.safetensors").exists()
