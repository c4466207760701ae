"""A detector that ends the process gives no verdict, and never exit code 0."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from erase.cli import _app
from tests.recipes import command, refused
from tests.tiny_edits import tiny_edit

PROTOCOL = """\
version: '1'
description: one target, one keep
source: a test
detector: {name: callable, version: local}
sampler: {steps: 1, batch: 2}
prompts:
  - {role: erased, aspect: name, templates: ["a cat in {word} style"]}
  - {role: kept, aspect: keeps, fill: keeps, templates: ["a cat in {word} style"]}
"""


@pytest.mark.parametrize("when", ["def detect(pictures):\n    ", "if True:\n    "])
@pytest.mark.parametrize("ending", ["sys.exit(0)", "sys.exit()", "os._exit(0)", "exit()"])
def test_a_detector_that_ends_the_process_is_an_error_and_leaves_no_verdict(
    capsys: pytest.CaptureFixture[str], tiny_model: Path, tmp_path: Path, when: str, ending: str
) -> None:
    (tmp_path / "proto.yaml").write_text(PROTOCOL, encoding="utf-8")
    (tmp_path / "ends.py").write_text(f"import os, sys\n{when}{ending}\n", encoding="utf-8")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/result.json").write_text(json.dumps({"exit_code": 0}), encoding="utf-8")  # of an earlier edit
    task = ("--target", "noto", "--keep", "blob")
    places = ("--base", tiny_model, "--protocol", tmp_path / "proto.yaml", "-o", tmp_path / "out")
    line = refused(
        capsys, "verify", edit_file(tiny_model, tmp_path), *places, *task, "-w", f"callable={tmp_path}/ends.py"
    )
    assert "ends.py" in line or "detector callable has failed" in line
    assert not (tmp_path / "out/result.json").exists()


def edit_file(tiny_model: Path, folder: Path) -> Path:
    from erase.models import open_model

    tiny_edit(open_model(tiny_model)).save(folder / "edit.safetensors")
    return folder / "edit.safetensors"


def test_a_command_that_something_ends_has_not_done_its_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = typer.Typer()

    @ending.command()
    def end() -> None:
        raise SystemExit(0)

    monkeypatch.setattr(_app, "app", ending)
    said = command(capsys)
    assert said.code == 2
    assert said.errors == "error: a library or a file of yours ended the command (exit code 0) before it was done.\n"
