"""Whatever is in a file or on the command line: exit code 0, 2, 3 or 130, one line, and no traceback."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.kinds import KINDS, Bench, Outcome, case, make_bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(tmp_path_factory.mktemp("bench"))


def check_many(kind: str, bench: Bench, count: int) -> list[Outcome]:
    """The outcomes of so many cases of a kind, the same ones each time; fails at the first that must not be."""
    seen = []

    @settings(
        max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.data())
    def check(data: st.DataObject) -> None:
        result = case(kind, bench, data.draw)
        seen.append(result)
        assert not result.fault, f"{result.fault}: {result.command}\n{result.errors}"

    check()
    return seen


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_fifty_inputs_of_each_kind_end_in_one_line_at_most(kind: str, bench: Bench) -> None:
    seen = check_many(kind, bench, 50)
    assert len(seen) >= 50
    assert {result.code for result in seen} >= {2}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_thousand_inputs_of_each_kind_end_in_one_line_at_most(kind: str, bench: Bench) -> None:
    assert len(check_many(kind, bench, 1000)) >= 1000


@pytest.mark.parametrize(("code", "errors", "fault"), [
    (1, "error: x", "exit code 1"),
    (2, "Traceback (most recent call last):\nerror: x", "traceback"),
    (2, "error: unexpected KeyError: 'a' (ERASE_TRACEBACK=1 shows where", "unforeseen error"),
    (2, "", "not one line"),
    (2, "error: x", ""),
    (3, "error: the gate", ""),
])  # fmt: skip
def test_what_must_not_be_is_told(code: int, errors: str, fault: str) -> None:
    assert Outcome(code, errors, []).fault == fault
