"""The single file that `export` wrote, and weights that other erasers write, are verified to a verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from erase.export.checkpoint import checkpoint
from erase.models import Model, open_model
from tests.recipes import command
from tests.tiny_edits import tiny_edit

PROTOCOL = """\
version: '1'
description: one target, one keep
source: a test
detector: {name: judge, version: emoji-v1}
sampler: {steps: 1, batch: 4}
prompts:
  - {role: erased, aspect: name, templates: ["a cat in {word} style"]}
  - {role: kept, aspect: keeps, fill: keeps, templates: ["a cat in {word} style"]}
"""


def own_file(model: Model, folder: Path) -> Path:
    return checkpoint(model, tiny_edit(model), folder / "edited")


def of_esd(model: Model, folder: Path) -> Path:
    tensors = {f"unet.{site.key}": model.weights("unet").tensor(site.key) * 1.5 for site in model.sites()}
    save_file(tensors, folder / "esd.safetensors")
    return folder / "esd.safetensors"


def of_leco(model: Model, folder: Path) -> Path:
    tensors = {}
    for site in model.sites():
        name, (rows, columns) = site.key.removesuffix(".weight").replace(".", "_"), site_shape(model, site.key)
        tensors[f"lora_unet_{name}.lora_up.weight"] = torch.full((rows, 2), 0.1)
        tensors[f"lora_unet_{name}.lora_down.weight"] = torch.full((2, columns), 0.1)
        tensors[f"lora_unet_{name}.alpha"] = torch.tensor(1.0)
    save_file(tensors, folder / "leco.safetensors")
    return folder / "leco.safetensors"


def site_shape(model: Model, key: str) -> tuple[int, int]:
    rows, columns = model.weights("unet").tensor(key).shape
    return rows, columns


@pytest.mark.parametrize("made", [own_file, of_esd, of_leco])
def test_a_file_of_weights_is_verified_to_a_verdict(
    made: object, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = made(open_model(tiny_model), tmp_path)  # type: ignore[operator]
    (tmp_path / "mine.yaml").write_text(PROTOCOL, encoding="utf-8")
    task = ("-t", "noto", "-k", "blob", "--protocol", tmp_path / "mine.yaml", "-o", tmp_path / "out")
    said = command(capsys, "verify", file, "--base", tiny_model, *task)
    assert said.code == 3, said.errors  # an image of each is too few to prove anything
    told = json.loads((tmp_path / "out/result.json").read_text(encoding="utf-8"))
    assert told["exit_code"] == 3
    assert len(told["images"]) == 4
