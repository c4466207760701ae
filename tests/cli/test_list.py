"""`erase list` names everything that a pipeline may name, each with a line on what it is."""

from __future__ import annotations

import pytest

from erase import names
from erase.cli.list import KINDS, describe
from tests.recipes import command, refused


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "models"])
def test_every_name_of_a_kind_stands_on_a_line_with_what_it_is(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    lines = command(capsys, "list", kind).out.splitlines()
    assert [line.split()[0] for line in lines] == names.known(kind) != []
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)
    assert all(describe(kind, name) for name in names.known(kind))


def test_all_kinds_stand_in_one_list(capsys: pytest.CaptureFixture[str]) -> None:
    lines = command(capsys, "list").out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == list(KINDS)
    assert all(any(line.strip().startswith(name) for line in lines) for kind in KINDS for name in names.known(kind))


def test_an_unknown_kind_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert 'did you mean "methods"?' in refused(capsys, "list", "method")
