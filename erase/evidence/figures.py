"""The figures of a pack, computed from its stored values alone: rates, intervals, bounds, corrected rates, limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from erase.evaluate.aggregate import right
from erase.evaluate.attacked import attack_lines, headline_of
from erase.evaluate.gate import Outcome, by
from erase.evaluate.images import SIDES
from erase.evaluate.result import judged, plain, recompute
from erase.evaluate.statistics.corrected import Answers, rogan_gladen, zero_bound
from erase.evaluate.statistics.intervals import wilson, wilson_clustered
from erase.evidence.limits import limits_told, not_attacked
from erase.evidence.retained import bound, unasked
from erase.evidence.stored import Held, attacks_of, part


def figures_of(held: Held) -> dict[str, Any]:
    """All figures of a pack, as JSON holds them; raises ScoreFailed for outcomes that are none."""
    verdict, _ = recompute(held.result)
    confidence = held.limits.confidence
    told = {
        "verdict": "passed" if not verdict.reasons else "failed",
        "reasons": [asdict(reason) for reason in verdict.reasons],
        "rates": [
            rate(role, aspect, group, confidence=confidence)
            for role in ("erased", "kept")
            for aspect, group in by([one for one in held.outcomes if one.role == role], lambda one: one.aspect)
        ],
        "corrected": list(corrected(held)),
        "quality": quality(held.outcomes),
        "bound": bound(held.outcomes, confidence),
        "unasked": list(unasked(held)),
        "apart": apart(held),
        "headline": headline_of(attacks_of(held), held.outcomes),
        "attacked": attack_lines(attacks_of(held)),
        "not_attacked": list(not_attacked(held)),
        "limits": list(limits_told(held)),
    }
    return dict(plain(told))


def rate(role: str, aspect: str, group: Sequence[Outcome], *, confidence: float) -> dict[str, Any]:
    """In how many images of one way of asking the concept is seen before and after, with both intervals.

    An image that is missing or could not be looked at counts as the answer that is worse for the edit. Where nothing is
    seen after, the upper bounds of the rate stand beside it.
    """
    prompts = [one.prompt for one in group]
    told: dict[str, Any] = {"role": role, "aspect": aspect, "images": len(group), "prompts": len(set(prompts))}
    for side in SIDES:
        seen = [right(one, side) for one in group]
        low, high = wilson(sum(seen), len(seen), confidence)
        by_prompt = wilson_clustered(seen, prompts, confidence)
        told[side] = {"seen": sum(seen), "rate": sum(seen) / len(seen), "interval": [low, high]}
        told[side] |= {"by_prompt": list(by_prompt), "failed": sum(getattr(one, side) is None for one in group)}
    if role == "erased" and not told["after"]["seen"]:
        told["zero"] = {
            "images": zero_bound(len(group), confidence),
            "prompts": zero_bound(len(set(prompts)), confidence),
        }
    return told


def corrected(held: Held) -> Iterator[dict[str, Any]]:
    """The rates as they would be without the detectors' mistakes, where a calibration of the detector is there."""
    for role in ("erased", "kept"):
        names = [form.name for form in held.protocol.detectors("erased" if role == "erased" else "kept")]
        known = part(held.calibrations, names[0]) if len(names) == 1 else {}
        if not known:
            continue
        for aspect, group in by([one for one in held.outcomes if one.role == role], lambda one: one.aspect):
            answers = answers_for(known, {one.concept for one in group})
            if answers is None:
                continue
            told: dict[str, Any] = {"role": role, "aspect": aspect, "detector": names[0], **asdict(answers)}
            told |= {"sensitivity": answers.sensitivity, "specificity": answers.specificity}
            for side in SIDES:
                seen = [right(one, side) for one in group]
                found = rogan_gladen(sum(seen), len(seen), answers, confidence=held.limits.confidence)
                told[side] = None if found is None else asdict(found)
            yield told


def answers_for(calibration: Mapping[str, Any], concepts: set[str]) -> Answers | None:
    """The answers on labelled images of all the concepts together; None if one of them was not calibrated."""
    labels = part(calibration, "labels")
    if not concepts or not concepts <= labels.keys():
        return None
    fields = ("positives", "found", "negatives", "false")
    parts = [Answers(**{name: int(labels[concept][name]) for name in fields}) for concept in sorted(concepts)]
    return sum(parts[1:], parts[0])


def quality(outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    """The mean quality of the same images before and after, by role, where the protocol measures it."""
    told: dict[str, Any] = {}
    for role in ("erased", "kept"):
        scored = [one.quality for one in outcomes if one.role == role and one.quality is not None]
        if scored:
            before, after = (sum(pair[side] for pair in scored) / len(scored) for side in (0, 1))
            told[role] = {"images": len(scored), "before": before, "after": after}
    flat = sum(one.blank for one in outcomes)
    return told | {"flat": flat, "images": len(outcomes)}


def apart(held: Held) -> dict[str, Any]:
    """How many prompts were also used to edit, and the checks over those that were not."""
    shared = {*held.apart.get("by_text", ()), *(pair[0] for pair in held.apart.get("by_state", ()))}
    fresh = [one for one in held.outcomes if one.prompt not in shared]
    asked = list(dict.fromkeys(one.prompt for one in held.outcomes))
    told = {"known": bool(held.apart), "prompts": len(asked), "shared": sum(prompt in shared for prompt in asked)}
    found = judged(fresh, held.limits, ())
    checks = [asdict(check) | {"passed": check.passed} for check in found.checks]
    return told | {"by_state": held.apart.get("state", ""), "checks": checks if told["known"] else []}
