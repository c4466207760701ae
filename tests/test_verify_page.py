"""The page on proving an erasure names commands, options, protocols and reasons that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, get_args

import typer

from erase import registry
from erase.cli._app import app
from erase.evaluate.gate import Kind

PAGE = (Path(__file__).parent.parent / "docs/verify.md").read_text(encoding="utf-8")


def test_its_commands_have_the_options_that_it_gives_them() -> None:
    command: Any = typer.main.get_command(app)
    lines = [
        line for block in re.findall(r"^```\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()
    ]
    assert len(lines) == 9
    for line in lines:
        words = shlex.split(line.partition("erase ")[2], comments=True)
        command.commands[words[0]].make_context(words[0], words[1:])


def test_it_tells_every_reason() -> None:
    assert re.findall(r"^\| ([a-z -]+) \|", PAGE, re.MULTILINE)[1:] == [
        "nothing changed", "still there", "over-erased", "model destroyed", "next to nothing", "harmed",
        "too few images to tell",
    ]  # fmt: skip
    assert set(get_args(Kind)) <= set(re.findall(r"^\| ([a-z -]+) \|", PAGE, re.MULTILINE))


def test_what_it_names_exists() -> None:
    assert set(re.findall(r"--protocol (\S+)", PAGE)) <= set(registry.known("protocols"))
    assert set(re.findall(r"erase fetch (\S+)", PAGE)) <= set(registry.known("declared"))
