"""`erase list` names everything that a pipeline may name, each with a line on what it is, and every option of it."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Any

import pytest

from erase import registry
from erase.cli._described import options_of
from erase.cli.list import KINDS, describe, known
from tests.recipes import command, refused

OPTIONS = [(kind, name) for kind in ("methods", "exports", "detectors") for name in registry.own(kind)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "models"])
def test_every_name_of_a_kind_stands_on_a_line_with_what_it_is(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    lines = command(capsys, "list", kind).out.splitlines()
    assert [line.split()[0] for line in lines] == known(kind) != []
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)
    assert all(describe(kind, name) for name in known(kind))


def test_all_kinds_stand_in_one_list(capsys: pytest.CaptureFixture[str]) -> None:
    lines = command(capsys, "list").out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == list(KINDS)
    assert all(any(line.strip().startswith(name) for line in lines) for kind in KINDS for name in known(kind))


def test_an_unknown_kind_or_name_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert 'did you mean "methods"?' in refused(capsys, "list", "method")
    assert 'did you mean "uce"?' in refused(capsys, "list", "methods", "ucee")


def test_descriptions_stand_under_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    lines = command(capsys, "list", "prompts").out.splitlines()
    longest = max(map(len, known("prompts")))
    assert longest > 16
    assert all(line[longest : longest + 2] == "  " and line[longest + 2] != " " for line in lines)


def test_prompt_sets_that_are_declared_are_among_the_prompts(capsys: pytest.CaptureFixture[str]) -> None:
    said = command(capsys, "list", "prompts").out
    assert registry.known("declared")
    assert all(f"{name} " in said and f"erase fetch {name}" in said for name in registry.known("declared"))


@pytest.mark.parametrize(("kind", "name"), OPTIONS)
def test_every_option_has_its_type_its_default_and_a_sentence(kind: str, name: str) -> None:
    found: Any = registry.load(kind, name)
    if dataclasses.is_dataclass(found):
        declared = [field.name for field in dataclasses.fields(found)]
    else:
        declared = [one.name for one in inspect.signature(found).parameters.values() if one.kind is one.KEYWORD_ONLY]
    options = options_of(kind, name)
    assert [option.name for option in options] == declared
    assert [option.name for option in options if not option.type or len(option.text) < 8] == []


def test_an_option_is_told_as_its_docstring_and_its_field_say(capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(command(capsys, "list", "methods", "uce", "--json").out)
    options = {one["name"]: one for one in told["options"]}
    assert options["lamb"] == {
        "name": "lamb",
        "type": "number",
        "default": "0.5",
        "text": "more changes less of everything.",
    }
    assert options["protect"]["type"] == "exact | kept | none"
    assert options["ratios"]["text"] == "the share that each is to have; equal ones if left out."


def test_an_option_of_another_method_is_told_in_its_words() -> None:
    theirs = {option.name: option.text for option in options_of("methods", "uce")}
    ours = {option.name: option.text for option in options_of("methods", "rece")}
    assert ours["protect"] == theirs["protect"]


def test_options_that_all_trained_methods_have_are_told_for_each() -> None:
    options = {option.name: option.text for option in options_of("methods", "esd")}
    assert options["batch"] == "tuples in a step."
    assert options["eta"].startswith("the paper's; more steps further")


@pytest.mark.parametrize(("kind", "name"), [*OPTIONS, ("pipelines", "erase-style"), ("protocols", "gate")])
def test_what_is_told_of_a_name_fits_80_columns(capsys: pytest.CaptureFixture[str], kind: str, name: str) -> None:
    said = command(capsys, "list", kind, name)
    assert said.code == 0, said.errors
    assert said.out.splitlines()[0] == name
    assert [line for line in said.out.splitlines() if len(line) > 80 and " " in line.strip()] == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [("prompts", "emoji-square"), ("prompts", "i2p"), ("models", "emoji"), ("pipelines", "erase-style")],
)
def test_what_is_in_a_file_of_data_is_told(capsys: pytest.CaptureFixture[str], kind: str, name: str) -> None:
    told = json.loads(command(capsys, "list", kind, name, "--json").out)
    assert told["name"] == name
    assert told["description"]
    assert len(told) > 4


def test_the_list_is_there_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(command(capsys, "list", "--json").out)
    assert list(told) == list(KINDS)
    assert list(told["methods"]) == registry.known("methods")
