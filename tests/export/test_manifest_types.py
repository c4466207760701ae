"""A manifest's types are checked before anything of it is used, whichever command reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from erase.export.folder import folder
from erase.models import Model
from tests.export.test_lora import made
from tests.recipes import command, refused

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    "change",
    [
        {"rewritten": ["a"]},
        {"rewritten": {"../../x": "a"}},
        {"added": 5},
        {"renamed": []},
        {"files": []},
        {"base": 1},
        {"edit": {"content": "a", "task": [1.0]}},
        {"changed": [{"tensor": "a", "file": "unet/a", "sha256_after": "a"}]},
        {"changed": [5]},
    ],
)
def test_a_manifest_of_other_types_is_one_line(
    capsys: Capture, model: Model, tmp_path: Path, change: dict[str, Any]
) -> None:
    out = folder(model, made(model), tmp_path / "out")
    file = out / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change), encoding="utf-8")
    for arguments in (("undo", out, "--base", model.path), ("verify-manifest", out), ("inspect", out)):
        assert "manifest.json" in refused(capsys, *arguments)
    assert not (tmp_path / "out-restored").exists()


@pytest.mark.parametrize("given", ["", "/", ".", "nothing.safetensors"])
def test_an_undo_of_nothing_says_what_it_expects(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "erase export" in refused(capsys, "undo", given)


def test_a_good_manifest_is_read(capsys: Capture, model: Model, tmp_path: Path) -> None:
    out = folder(model, made(model), tmp_path / "out")
    assert command(capsys, "undo", f"{out}/", "--base", model.path).code == 0
