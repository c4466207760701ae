"""The page on using a result keeps its word: its commands and its Python run in order."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.recipes import command
from tests.tiny import tiny_stable_diffusion

PAGE = (Path(__file__).parent.parent / "docs/use-it.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [text for kind, text in fenced if kind == language]


def test_its_commands_and_its_python_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_stable_diffusion(tmp_path / "models/base")
    lines = [line.partition("#")[0].strip() for block in blocks("") for line in block.splitlines()]
    lines = [line for line in lines if line.startswith("erase ")]
    assert len(lines) == PAGE.count("\nerase ") == 11
    for line in lines:
        said = command(capsys, *shlex.split(line)[1:])
        assert said.code == 0, f"{line}: {said.errors}"
    assert command(capsys, "undo", "edited", "-o", "again").code == 0
    programs = blocks("python")
    assert len(programs) == 2
    for program in programs:
        if "lora" not in program or importlib.util.find_spec("peft") is not None:
            names: dict[str, Any] = {}
            exec(program.replace('style")', 'style", num_inference_steps=2)'), names)
            assert names["image"].size == (16, 16)
