"""Edits that others made: the same verdict, and the same pack."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from erase.evaluate.result import FILE
from erase.models import Model
from tests.cli.test_verify import DETECTOR, PROTOCOL
from tests.evidence.packs import noise, values
from tests.recipes import command, refused

WITH = ("--kind", "style", "--target", "noto", "--keep", "blob")


@pytest.mark.parametrize("form", ["unet", "lora", "folder"])
def test_weights_of_others_get_a_verdict_and_a_pack_that_names_their_file(
    capsys: pytest.CaptureFixture[str], model: Model, tiny_model: Path, tmp_path: Path, form: str
) -> None:
    import yaml

    theirs = tmp_path / "esd van Gogh.safetensors"
    sites = {site.name: model.weight(site.name) for site in model.sites()}
    if form == "unet":
        edit = noise(model, 4)
        save_file({name: edit.changed_tensor(name, value) for name, value in sites.items()}, theirs)
    elif form == "folder":
        theirs = Path(shutil.copytree(tiny_model, tmp_path / "an edited model"))
        file = theirs / "unet/diffusion_pytorch_model.safetensors"
        save_file({name: value * 1.1 for name, value in load_file(file).items()}, file)
    else:
        generator = torch.Generator().manual_seed(0)
        parts = {
            f"{name.removesuffix('.weight')}.{side}.weight": torch.randn(*size, generator=generator)
            for name, value in sites.items()
            for side, size in (("lora_A", (2, value.shape[1])), ("lora_B", (value.shape[0], 2)))
        }
        save_file(parts, theirs)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(PROTOCOL), encoding="utf-8")
    (tmp_path / "mine.py").write_text(DETECTOR, encoding="utf-8")
    places = ("--base", tiny_model, "--protocol", tmp_path / "mine.yaml", "--with", f"callable={tmp_path / 'mine.py'}")
    said = command(capsys, "verify", theirs, *places, *WITH, "--out", tmp_path / "proof")
    assert said.code in (0, 3), said.errors
    named = values(tmp_path / "proof", FILE)["hashes"]["files"]
    assert (theirs.name if form != "folder" else "unet/diffusion_pytorch_model.safetensors") in named
    packed = command(capsys, "evidence", tmp_path / "proof", "--edit", theirs, "--out", tmp_path / "pack")
    assert packed.code == 0, packed.errors
    checked = command(capsys, "evidence", "--check", tmp_path / "pack", "--edit", theirs)
    assert checked.code == said.code
    assert "SOUND" in checked.out
    assert "nobody knows which prompts were used to edit" in (tmp_path / "pack/figures.json").read_text(
        encoding="utf-8"
    )
    changed = theirs if form != "folder" else theirs / "unet/config.json"
    changed.write_bytes(changed.read_bytes() + b" ")
    again = ("evidence", tmp_path / "proof", "--edit", theirs, "--out", tmp_path / "other")
    assert "is not the edit that" in refused(capsys, *again)
