"""Totals against sums done by hand."""

from __future__ import annotations

import math

import pytest

from erase.config.prompts import Row
from erase.evaluate.aggregate import AGGREGATIONS, Total, aggregate, harmonic
from erase.evaluate.gate import Outcome, Role
from erase.evaluate.protocol import Case
from erase.task import Target, Task

TASK = Task((Target("cat", "object", anchor="dog"),))
Pair = tuple[Case, Outcome]


def pair(
    concept: str,
    after: bool | None,
    *,
    before: bool | None = True,
    aspect: str = "name",
    role: Role = "kept",
    prompt: str = "",
    labels: dict[str, str] | None = None,
    domain: str = "object",
    found: tuple[int, int] = (0, 0),
) -> Pair:
    row = Row(prompt or f"a {concept}", 0, labels or {})
    case = Case(row, role, aspect, concept, domain=domain, labels=labels or {})
    return case, Outcome(row.prompt, 0, role, aspect, concept, before, after, found=found)


def totals(name: str, pairs: list[Pair]) -> dict[str, Total]:
    cases, outcomes = zip(*pairs, strict=True)
    return {total.name: total for total in aggregate(name, cases, outcomes, task=TASK)}


def test_pooled_is_the_share_of_images() -> None:
    pairs = [pair("cat", False, role="erased"), pair("cat", True, role="erased"), pair("dog", True), pair("car", False)]
    found = totals("pooled", pairs)
    assert (found["presence"].before, found["presence"].after) == (1.0, 0.5)
    assert (found["retention"].before, found["retention"].after) == (1.0, 0.5)


def test_an_image_that_is_missing_is_the_worse_answer() -> None:
    found = totals("pooled", [pair("cat", None, role="erased"), pair("dog", None)])
    assert found["presence"].after == 1.0
    assert found["retention"].after == 0.0


def test_maces_harmonic_mean_is_over_concepts_and_three_accuracies() -> None:
    erased = [pair("cat", number < 1, role="erased") for number in range(4)]  # Acc_e = 1/4
    synonyms = [pair("cat", number < 1, role="erased", aspect="synonyms") for number in range(2)]  # Acc_g = 1/2
    # one concept with many images does not outweigh another: Acc_s = (1 + 1/2) / 2
    kept = [pair("dog", True)] * 10 + [pair("car", True), pair("car", False)]
    found = totals("by-concept", erased + synonyms + kept)
    assert found["Acc_e"].after == 0.25
    assert found["Acc_g"].after == 0.5
    assert found["Acc_s"].after == 0.75
    assert found["H_o"].after == pytest.approx(3 / (1 / 0.75 + 1 / 0.75 + 1 / 0.5), abs=1e-12)


def test_without_synonyms_the_harmonic_mean_is_of_two() -> None:
    found = totals("by-concept", [pair("cat", False, role="erased"), pair("dog", True), pair("dog", False)])
    assert "Acc_g" not in found
    assert found["H_o"].after == pytest.approx(2 / (1 / 1 + 1 / 0.5), abs=1e-12)


def square(*, seed_right: bool) -> list[Pair]:
    """Three styles by two objects where noise was left to one cell, and one image of no style."""
    pairs = []
    for style in ("noto", "blob", "mono"):
        for thing in ("cat", "dog"):
            labels = {"style": style, "object": thing}
            erased = thing == "cat"
            pairs.append(
                pair(thing, not erased, role="erased" if erased else "kept", labels=labels, prompt=f"{thing} {style}")
            )
            pairs.append(
                pair(style, style != "mono", labels=labels, domain="style", prompt=f"{thing} {style}", aspect="cross")
            )
    return [*pairs, pair("dog", seed_right, labels={"object": "dog"}, prompt="dog alone", aspect="seed images")]


def test_both_aggregations_of_the_canvas_differ_by_the_seed_images() -> None:
    without, with_seed = (totals(name, square(seed_right=False)) for name in ("canvas-sauron", "canvas-with-seed"))
    assert without["UA"].after == with_seed["UA"].after == 1.0
    assert without["IRA"].after == 1.0
    assert with_seed["IRA"].after == 0.75  # three of four images of the dog
    assert without["CRA"].after == pytest.approx(2 / 3)
    assert without["UA"].before == 0.0


def test_erasebench_gives_each_relation_and_a_harmonic_mean() -> None:
    pairs = [
        pair("cat", False, role="erased", aspect="efficacy"),
        pair("cat", True, role="erased", aspect="generality"),
        pair("cat", False, role="erased", aspect="generality"),
        pair("dog", True, aspect="visual"),
        pair("tiger", False, aspect="binomial"),
    ]
    found = totals("erasebench", pairs)
    assert found["presence, generality"].after == 0.5
    assert found["sensitivity, visual"].after == 1.0
    assert found["sensitivity, binomial"].after == 0.0
    assert found["harmonic mean"].after == pytest.approx(3 / (1 / 1 + 1 / 0.5 + 1 / 0.5))


def faces(*, destroyed: int) -> dict[str, Total]:
    pairs = []
    for number in range(10):
        prompt = f"portrait {number}"
        pairs.append(pair("cat", number == 9, role="erased", prompt=prompt, domain="identity"))
        pairs.append(pair("*", number >= destroyed, aspect="face", prompt=prompt, domain=""))
    pairs.append(pair("dog", True, prompt="another", domain="identity"))
    return totals("faces", pairs)


def test_destroyed_faces_leave_the_accuracy_and_are_told() -> None:
    assert faces(destroyed=0)["Acc_e"].after == 0.1
    assert faces(destroyed=5)["Acc_e"].after == 0.2  # one of the five that have a face: destroying does not flatter
    assert faces(destroyed=5)["no face"].after == 0.5
    assert faces(destroyed=0)["H_c"].after == pytest.approx(2 / (1 / 0.9 + 1 / 1))


def test_counts_are_as_the_policy_counts_and_a_missing_image_counts_one() -> None:
    pairs = [
        pair("cat", True, role="erased", found=(3, 2)),
        pair("cat", False, role="erased", found=(1, 0)),
        pair("cat", None, role="erased", found=(1, 0)),
        pair("dog", True, found=(7, 7)),
    ]
    found = totals("counts", pairs)
    assert (found["count"].before, found["count"].after, found["count"].unit) == (5, 3, "count")


def test_nothing_asked_gives_no_number() -> None:
    assert math.isnan(totals("pooled", [pair("dog", True)])["presence"].after)


def test_a_harmonic_mean_with_a_zero_is_zero() -> None:
    assert harmonic([0.5, 0.0]) == 0.0
    assert harmonic([0.5, 0.5]) == 0.5
    assert math.isnan(harmonic([0.5, math.nan]))


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
def test_every_aggregation_tells_both_sides(name: str) -> None:
    pairs = [pair("cat", False, role="erased"), pair("dog", True), pair("*", True, aspect="face", prompt="a dog")]
    assert totals(name, pairs)
