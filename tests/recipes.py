"""A small pipeline over a tiny model, and what a command says and leaves behind."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from erase.cli import run_command

PROMPTS = """\
version: '1'
licence: CC0-1.0
source: a test
templates: ['a {object} in {style} style', 'a picture of a {object}']
axes: {style: [noto, blob, twemoji], object: [cat, dog]}
"""


def tiny_recipe(folder: Path, model: Path) -> dict[str, Any]:
    """A pipeline over a model, as the mapping that its file holds; its prompt set is written into `folder`."""
    prompts = folder / "square.yaml"
    prompts.write_text(PROMPTS, encoding="utf-8")
    return {
        "name": "mine",
        "model": str(model),
        "task": {"kind": "style", "targets": [{"name": "noto", "anchor": "blob"}], "keeps": ["twemoji"]},
        "edit": {"method": "uce"},
        "gate": None,  # a random model proves nothing
        "generate": {"prompts": str(prompts), "seeds": [0], "steps": 2, "batch": 4},
    }


def write_recipe(folder: Path, recipe: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(recipe if isinstance(recipe, str) else yaml.safe_dump(recipe), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Said:
    """What a command printed and its exit code."""

    code: int
    out: str
    errors: str


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> Said:
    """Runs the real command line in this process."""
    capsys.readouterr()
    code = run_command([str(argument) for argument in arguments])
    out, errors = capsys.readouterr()
    return Said(code, out, errors)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    """The one line with which a command refuses; it must be one, without a traceback, with the exit code."""
    said = command(capsys, *arguments)
    lines = [line for line in said.errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, said.errors
    assert said.errors.splitlines()[-1] == lines[0]
    assert "Traceback" not in said.errors
    assert said.code == code
    return lines[0].removeprefix("error: ")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes; of a result and what was fixed for it, without dates and digests."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): _dateless(path) for path in files}


def _dateless(path: Path) -> bytes:
    data = path.read_bytes()
    if path.name not in ("result.json", "protocol.json", "report.json", "report.html"):
        return data
    data = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", b"DATE", data)
    return re.sub(rb'"(fixed|digest)": "[0-9a-f]{64}"', b"", data)
