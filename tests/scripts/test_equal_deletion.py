"""Comparison at equal deletion: the search for a strength on rates of every shape, and a method's row by it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(SCRIPTS))
    yield {name: import_module(name) for name in ("equal_deletion", "compare_methods")}
    sys.path.remove(str(SCRIPTS))


@pytest.fixture
def equal(scripts: dict[str, ModuleType]) -> ModuleType:
    return scripts["equal_deletion"]


def risen(middle: float, *, slope: float = 8.0) -> Callable[[float], float]:
    return lambda strength: float(1 / (1 + np.exp(-slope * (strength - middle))))


@pytest.mark.parametrize("middle", [0.3, 0.6, 0.9, 1.4, 1.7])
@pytest.mark.parametrize("aim", [0.3, 0.5, 0.8, 0.95])
def test_a_rate_that_rises_is_met_in_a_few_looks(equal: ModuleType, middle: float, aim: float) -> None:
    rate = risen(middle)
    found = equal.search(rate, aim)
    assert found.reached
    assert abs(rate(found.strength) - aim) <= equal.WITHIN + 1e-9
    assert found.rate == rate(found.strength)
    assert len(found.rates) <= 7
    assert not found.said


def test_an_edit_that_is_equal_as_it_is_stays_so_and_is_looked_at_once(equal: ModuleType) -> None:
    found = equal.search(lambda strength: 0.83, 0.8)
    assert (found.strength, dict(found.rates)) == (1.0, {1.0: 0.83})


def test_a_rate_that_falls_again_is_met_on_either_side(equal: ModuleType) -> None:
    """Most is gone at 1.5, and at 1 and at 2 too little: where it was overshot the target comes back."""

    def rate(strength: float) -> float:
        return max(0.0, 0.9 - 2 * abs(strength - 1.5))

    found = equal.search(rate, 0.6)
    assert found.reached
    assert abs(rate(found.strength) - 0.6) <= equal.WITHIN + 1e-9


def test_a_rate_that_wavers_is_met_where_it_was_looked_at(equal: ModuleType) -> None:
    def rate(strength: float) -> float:
        return float(np.clip(0.5 * strength + 0.2 * np.sin(9 * strength), 0, 1))

    for aim in (0.2, 0.4, 0.6, 0.8):
        found = equal.search(rate, aim)
        assert found.reached
        assert found.rates[found.strength] == rate(found.strength)


def test_what_cannot_be_reached_says_how_far_it_gets(equal: ModuleType) -> None:
    found = equal.search(lambda strength: 0.31 * strength, 0.9)
    assert not found.reached
    assert (found.strength, found.rate) == (2.0, 0.62)
    assert found.said == "reaches at most 62"


def test_a_peak_between_two_strengths_is_the_most_that_is_reached(equal: ModuleType) -> None:
    found = equal.search(lambda strength: 0.7 if strength == 1.25 else 0.1, 0.9)
    assert (found.strength, found.said) == (1.25, "reaches at most 70")


def test_a_rate_that_jumps_over_what_is_asked_says_from_where_to_where(equal: ModuleType) -> None:
    found = equal.search(lambda strength: 1.0 if strength > 0.4 else 0.25, 0.6)
    assert not found.reached
    assert found.said == "jumps from 25 to 100"


def test_a_target_that_is_missing_in_the_unedited_model_too_cannot_be_there_more_often(equal: ModuleType) -> None:
    found = equal.search(lambda strength: 0.4 + 0.3 * strength, 0.2)
    assert not found.reached
    assert (found.strength, found.said) == (0.0, "is never below 40")


def test_the_lowest_of_those_that_erase_leaves_out_who_does_not(equal: ModuleType) -> None:
    assert equal.lowest({"uce": 0.9, "esd": 0.7, "i2i": 0.05}, unedited=0.02) == 0.7
    assert equal.lowest({"i2i": 0.05}, unedited=0.02) is None


class Faked:
    """Images of three methods by their strength alone: half of what stays is lost at twice the edit."""

    rates: dict[str, Callable[[float], float]]

    def __init__(self) -> None:
        self.rates = {"uce": risen(0.5, slope=20), "esd": lambda s: 0.35 * s, "sld": lambda s: 0.1 * s}
        self.drawn: list[tuple[str, float, bool]] = []

    def __call__(self, name: str, *given: Any, strength: float = 1.0, keeps: bool = True, **more: Any) -> Any:
        self.drawn.append((name, strength, keeps))
        gone = self.rates[name](strength) if name in self.rates else 0.0

        def hits(share: float) -> Any:
            return (np.arange(100) < round(100 * share)).astype(float)

        kept = {"ira": hits(1 - 0.25 * strength), "cra": hits(1.0)} if keeps else {}
        return {"ua": hits(gone), **kept}, {"seconds": 1.0}


def compared(
    module: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    names: Sequence[str],
    ua: str,
) -> tuple[Any, Faked]:
    faked = Faked()
    monkeypatch.setattr(module, "measure", faked)
    options = argparse.Namespace(methods=list(names), quick=False, groups=["styles-1"], targets=1, equal=ua, told=False)
    module.compare(None, options)
    return json.loads(capsys.readouterr().out.splitlines()[-1]), faked


def test_rows_at_equal_deletion_say_which_strength_it_was_and_who_did_not_get_there(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["ideal", "uce", "esd", "sld"]
    said, _ = compared(scripts["compare_methods"], monkeypatch, capsys, names=names, ua="60")
    rows = {row["method"]: row for row in said["methods"]}
    assert said["equal"] == {"styles-1": 0.6}
    for name in ("uce", "esd"):
        row = rows[name]
        assert abs(row["ua"] - 0.6) <= 0.0501
        assert row["note"] == ""
        assert row["ira"] == pytest.approx(1 - 0.25 * row["strength"], abs=0.006)
        assert row["h"] == pytest.approx(3 / (1 / row["ua"] + 1 / row["ira"] + 1 / row["cra"]), abs=1e-3)
    assert rows["uce"]["strength"] < 1 < rows["esd"]["strength"]
    assert (rows["sld"]["ua"], rows["sld"]["note"]) == (0.2, "reaches at most 20")
    assert rows["sld"]["ira"] is rows["sld"]["cra"] is rows["sld"]["h"] is None
    assert "strength" not in rows["ideal"]
    assert said["groups"]["sld"]["styles-1"]["behind"] is None
    assert said["groups"]["esd"]["styles-1"]["behind"] is not None


def test_what_stays_is_drawn_once_for_each_method_and_not_for_who_did_not_get_there(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, faked = compared(scripts["compare_methods"], monkeypatch, capsys, names=["uce", "esd", "sld"], ua="60")
    assert [name for name, _, keeps in faked.drawn if keeps] == ["uce", "esd"]


def test_the_lowest_is_of_the_methods_named_as_they_are(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said, _ = compared(scripts["compare_methods"], monkeypatch, capsys, names=["uce", "esd", "sld"], ua="lowest")
    assert said["equal"] == {"styles-1": 0.35}
    assert next(row for row in said["methods"] if row["method"] == "esd")["strength"] == 1.0


@pytest.mark.parametrize("given", ["0", "120", "most"])
def test_a_ua_that_is_none_is_refused(scripts: dict[str, ModuleType], given: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a UA in percent"):
        scripts["compare_methods"].percent(given)
