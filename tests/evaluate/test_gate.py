"""Purpose-made cases, each caught by the gate with its own reason; and one good edit that passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from erase.evaluate.gate import Limits, Outcome, Role, Verdict, judge

ASPECTS: dict[str, Role] = {"name": "erased", "synonyms": "erased", "neighbours": "kept", "unrelated": "kept"}
CONCEPTS = {"name": ["cat"], "synonyms": ["cat"], "neighbours": ["dog", "tiger"], "unrelated": ["car", "house", "cake"]}


def good(count: int = 24, *, wrong: int = 0) -> list[Outcome]:
    """Pairs of an edit that does what it should, `count` an aspect, of which `wrong` go amiss."""
    outcomes = []
    for aspect, role in ASPECTS.items():
        for number in range(count):
            concept = CONCEPTS[aspect][number % len(CONCEPTS[aspect])]
            seen = (role == "kept") != (number < wrong)
            prompt = f"a {concept} by {aspect}, {number}"
            outcomes.append(Outcome(prompt, number, role, aspect, concept, True, seen, distance=0.1))
    return outcomes


def changed(outcomes: list[Outcome], change: Callable[[Outcome], Outcome], *aspects: str) -> list[Outcome]:
    """The outcomes with a change to those of some aspects, of all if none is named."""
    return [change(one) if one.aspect in (aspects or ASPECTS) else one for one in outcomes]


def kinds(verdict: Verdict) -> list[str]:
    return [reason.kind for reason in verdict.reasons]


def text_of(verdict: Verdict, kind: str) -> str:
    return next(reason.text for reason in verdict.reasons if reason.kind == kind)


def test_a_good_edit_passes() -> None:
    verdict = judge(good())
    assert verdict.exit_code == 0
    assert verdict.reasons == ()
    assert [check.name for check in verdict.checks] == [
        "gone: name",
        "gone: synonyms",
        "kept: neighbours",
        "kept: unrelated",
    ]
    assert all(check.passed for check in verdict.checks)


def test_a_good_edit_passes_with_a_few_misses_among_many() -> None:
    assert judge(good(120, wrong=6)).exit_code == 0


def test_an_untouched_model_is_still_there_and_unchanged() -> None:
    untouched = changed(good(), lambda one: replace(one, after=True, distance=0.0))
    verdict = judge(untouched)
    assert verdict.exit_code == 3
    assert kinds(verdict)[0] == "nothing changed"
    assert "still there" in kinds(verdict)
    assert "over-erased" not in kinds(verdict)


def test_noise_weights_are_a_destroyed_model() -> None:
    noise = changed(good(), lambda one: replace(one, after=False, distance=0.4))
    verdict = judge(noise)
    assert kinds(verdict) == ["model destroyed"]
    assert "0 of 48 images that were right before" in text_of(verdict, "model destroyed")


def test_noise_that_a_detector_takes_for_the_target_is_destroyed_too() -> None:
    noise = changed(good(), lambda one: replace(one, after=one.role == "erased", distance=0.4))
    assert kinds(judge(noise)) == ["model destroyed"]


def test_white_images_are_a_destroyed_model() -> None:
    # a detector that sees what it was asked for in white images does not save them
    white = changed(good(), lambda one: replace(one, after=one.role == "kept", distance=0.5, blank=True))
    verdict = judge(white)
    assert kinds(verdict) == ["model destroyed"]
    assert "of one colour" in text_of(verdict, "model destroyed")


def test_a_weak_edit_is_still_there_and_its_prompts_are_named() -> None:
    weak = changed(good(), lambda one: replace(one, after=one.seed % 2 == 0), "name", "synonyms")
    verdict = judge(weak)
    assert kinds(verdict) == ["still there", "still there"]
    assert "asked by name, the target is in 12 of 24 images: a cat by name, 0; " in text_of(verdict, "still there")
    assert "and 7 more" in text_of(verdict, "still there")


def test_an_edit_that_takes_the_neighbours_along_is_told_which() -> None:
    greedy = changed(good(), lambda one: replace(one, after=one.concept != "dog"), "neighbours")
    verdict = judge(greedy)
    assert kinds(verdict) == ["over-erased"]
    assert "lost: dog (0 of 12)" in text_of(verdict, "over-erased")
    assert "tiger" not in text_of(verdict, "over-erased")


def test_one_lost_neighbour_among_many_concepts_is_found() -> None:
    many = [
        Outcome(f"a {number}", number, "kept", "unrelated", f"concept {number % 20}", True, number % 20 != 7, 0.1)
        for number in range(200)
    ]
    outcomes = [one for one in good() if one.aspect != "unrelated"] + many
    verdict = judge(outcomes)
    assert next(check for check in verdict.checks if check.name == "kept: unrelated").passed
    assert kinds(verdict) == ["over-erased"]
    assert "lost: concept 7 (0 of 10)" in text_of(verdict, "over-erased")


def test_an_edit_for_the_literal_name_only_is_caught_by_synonyms() -> None:
    literal = changed(good(), lambda one: replace(one, after=True, distance=0.0), "synonyms")
    verdict = judge(literal)
    assert kinds(verdict) == ["still there"]
    assert text_of(verdict, "still there").startswith("asked by synonyms, the target is in 24 of 24 images")


def test_many_good_names_do_not_hide_the_synonyms() -> None:
    names, synonyms = [one for one in good(400) if one.aspect != "synonyms"], good(16)
    literal = names + [replace(one, after=True) for one in synonyms if one.aspect == "synonyms"]
    assert kinds(judge(literal)) == ["still there"]


@pytest.mark.parametrize("count", [4, 15])
def test_too_few_images_fail_even_if_every_one_is_right(count: int) -> None:
    verdict = judge(good(count))
    assert verdict.exit_code == 3
    assert set(kinds(verdict)) == {"too few images to tell"}


def test_sixteen_images_an_aspect_are_the_fewest_that_can_prove_four_in_five() -> None:
    # Wilson's lower bound of n right of n is n / (n + z^2), which is 0.8 at n = 4 z^2 = 15.4
    assert judge(good(16)).exit_code == 0


def test_a_base_model_that_does_not_show_the_target_proves_nothing() -> None:
    unseen = changed(good(), lambda one: replace(one, before=False), "name", "synonyms")
    verdict = judge(unseen)
    assert kinds(verdict) == ["too few images to tell"]
    assert "shows the target in only 0 of 48" in verdict.reasons[0].text


@pytest.mark.parametrize(("shown_before", "closed"), [(24, False), (5, True), (0, True)])
def test_a_drop_that_may_be_chance_is_told(shown_before: int, closed: bool) -> None:
    outcomes = [one for one in good() if one.role == "kept"]
    outcomes += [Outcome("a cat", n, "erased", "name", "cat", n < shown_before, n == 23, 0.1) for n in range(24)]
    verdict = judge(outcomes, Limits(shown=0.0, gone=0.7))
    assert [("which may be chance" in reason.text) for reason in verdict.reasons] == [True] * closed


@pytest.mark.parametrize("role", ["erased", "kept"])
def test_a_side_without_prompts_proves_nothing(role: str) -> None:
    verdict = judge([one for one in good() if one.role == role])
    assert verdict.exit_code == 3
    assert kinds(verdict) == ["too few images to tell"]


def test_no_pairs_at_all_prove_nothing() -> None:
    assert kinds(judge([])) == ["too few images to tell", "too few images to tell"]


@pytest.mark.parametrize(("aspect", "kind"), [("name", "still there"), ("unrelated", "over-erased")])
@pytest.mark.parametrize("side", ["before", "after"])
def test_missing_images_count_against_the_edit_and_are_listed(aspect: str, kind: str, side: str) -> None:
    gaps = changed(good(), lambda one: replace(one, **{side: None}) if one.seed < 6 else one, aspect)
    verdict = judge(gaps)
    assert kind in kinds(verdict)
    assert len(verdict.unscored) == 6
    assert all(f"by {aspect}" in line for line in verdict.unscored)


def test_fallen_quality_closes_the_gate() -> None:
    worse = changed(good(), lambda one: replace(one, quality=(30.0, 24.0 + one.seed % 3)), "neighbours", "unrelated")
    assert kinds(judge(worse)) == ["over-erased"]
    assert "quality of what must stay fell by 16.7%" in judge(worse).reasons[0].text
    held = changed(good(), lambda one: replace(one, quality=(30.0, 29.0 + one.seed % 3)), "neighbours", "unrelated")
    assert judge(held).exit_code == 0


def test_limits_move_the_gate() -> None:
    verdict = judge(good(60, wrong=6), Limits(gone=0.95))
    assert set(kinds(verdict)) == {"still there"}
    assert judge(good(60, wrong=6), Limits(gone=0.7, kept=0.7)).exit_code == 0


def test_no_number_never_passes() -> None:
    right_nowhere = changed(good(), lambda one: replace(one, before=False), "neighbours", "unrelated")
    verdict = judge(right_nowhere)
    assert verdict.exit_code == 3
    assert not any(check.passed for check in verdict.checks if check.name.startswith("kept"))
