"""Whatever is shipped says what it is when it is looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from erase.errors import BadModel, BadWeights, PickleRefused
from erase.export.folder import folder
from erase.export.lora import lora
from erase.export.parts.inspection import look_at
from erase.models import Model
from tests.export.test_lora import made
from tests.recipes import command, refused

Capture = pytest.CaptureFixture[str]


def test_an_edit_says_by_what_it_was_made_and_what_it_erases(model: Model, tmp_path: Path) -> None:
    edit = made(model)
    edit.scaled(0.5).save(tmp_path / "edit.safetensors")
    found = look_at(tmp_path / "edit.safetensors")
    assert found.what == "an edit"
    assert found.facts["method"] == "uce (lamb=0.5)"
    assert found.facts["erases"] == "Ann Author → blob"
    assert found.facts["strength"] == 0.5
    assert found.facts["base"] == model.fingerprint
    assert found.facts["rank"] == 3


def test_a_sum_says_it_of_each_part(model: Model, tmp_path: Path) -> None:
    (made(model) + made(model, seed=1).scaled(-1)).save(tmp_path / "sum.safetensors")
    facts = look_at(tmp_path / "sum.safetensors").facts
    assert facts["method 1"] == facts["method 2"] == "uce (lamb=0.5)"
    assert (facts["strength 1"], facts["strength 2"]) == (1.0, -1.0)


def test_a_lora_says_what_was_lost_and_whether_its_hash_holds(model: Model, tmp_path: Path) -> None:
    file = lora(model, made(model), tmp_path / "lora")
    found = look_at(file)
    assert found.what == "a LoRA with kohya's keys"
    assert found.facts["erases"] == "Ann Author → blob"
    assert float(str(found.facts["lost"]).split()[0]) < 1e-6
    assert found.facts["tensors' hash"] == "as the file says"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert look_at(file).facts["tensors' hash"] == "NOT as it says"


def test_folders_edited_or_not_are_told_apart(capsys: Capture, model: Model, tmp_path: Path) -> None:
    assert look_at(model.path).what == "a diffusers folder"
    out = folder(model, made(model), tmp_path / "out")
    said = json.loads(command(capsys, "inspect", out, "--json").out)
    assert said["what"] == "an edited model, as a diffusers folder"
    assert said["erases"] == "Ann Author → blob"
    assert said["changed"].startswith("8 tensors")
    plain = command(capsys, "inspect", out)
    assert "Ann Author → blob" in plain.out


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("conditioner.embedders.1.model.ln_final.weight", "Stable Diffusion XL"),
        ("cond_stage_model.model.ln_final.weight", "Stable Diffusion 2"),
        ("cond_stage_model.transformer.text_model.final_layer_norm.weight", "Stable Diffusion 1"),
        ("unet.mid_block.attentions.0.to_q.lora_A.weight", "LoRA with diffusers' keys"),
        ("something.else", "unknown content"),
    ],
)
def test_files_of_other_programs_are_recognised_by_their_keys(key: str, what: str, tmp_path: Path) -> None:
    save_file({key: torch.zeros(1)}, tmp_path / "a.safetensors")
    assert what in look_at(tmp_path / "a.safetensors").what


def test_what_cannot_be_read_is_one_line(capsys: Capture, model: Model, tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"")
    with pytest.raises(PickleRefused):
        look_at(tmp_path / "a.ckpt")
    made(model).save(tmp_path / "edit.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "edit.safetensors").read_bytes()[:-9])
    with pytest.raises(BadWeights, match="truncated"):
        look_at(tmp_path / "cut.safetensors")
    with pytest.raises(BadModel):
        look_at(tmp_path)
    assert "does not exist" in refused(capsys, "inspect", tmp_path / "nothing")
