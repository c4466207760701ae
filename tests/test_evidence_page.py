"""The page on evidence names commands, options, files and detectors that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer

from erase import registry
from erase.cli._app import app
from erase.evidence import stored
from tests.evidence.test_tampering import FORGERIES

PAGE = (Path(__file__).parent.parent / "docs/evidence.md").read_text(encoding="utf-8")


def test_its_commands_have_the_options_that_it_gives_them() -> None:
    command: Any = typer.main.get_command(app)
    lines = [
        line for block in re.findall(r"^```\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()
    ]
    assert len(lines) == 9
    for line in lines:
        words = shlex.split(line.partition("erase ")[2])
        command.commands[words[0]].make_context(words[0], words[1:])


def test_the_files_that_it_names_are_those_of_a_pack() -> None:
    named = set(re.findall(r"`([a-z]+\.[a-z]+)`", PAGE.partition("## What is in a pack")[2].partition("##")[0]))
    constants = {value for name, value in vars(stored).items() if name.isupper() and isinstance(value, str)}
    assert named == constants


def test_it_tells_how_many_forgeries_are_refused() -> None:
    assert len(FORGERIES) + 1 == 13
    assert "forges it in thirteen ways" in PAGE


def test_what_it_names_exists() -> None:
    assert set(re.findall(r"--protocol ([\w/-]+)", PAGE)) <= set(registry.known("protocols"))
    assert set(re.findall(r"detector: \{name: (\w+)", PAGE)) <= set(registry.known("detectors"))
