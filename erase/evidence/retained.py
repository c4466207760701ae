"""What else stays in the images: two concepts at once, and what the model draws where nobody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from erase.evaluate.gate import Outcome, by
from erase.evaluate.images import SIDES
from erase.evaluate.statistics.intervals import wilson, wilson_clustered
from erase.evidence.stored import Held, part
from erase.task import names


def bound(outcomes: Sequence[Outcome], confidence: float) -> dict[str, Any] | None:
    """Of images of which two concepts are asked that must stay, and were both right before: how many still have both.

    None where no image is asked for two. A failed answer counts as lost.
    """
    kept = [one for one in outcomes if one.role == "kept"]
    images = [group for _, group in by(kept, lambda one: f"{one.prompt}\n{one.seed}")]
    pairs = [group for group in images if len({one.concept for one in group}) > 1]
    right = [group for group in pairs if all(one.before or not one.is_whole for one in group)]
    held = [all(one.is_whole and one.after for one in group) for group in right]
    if not right:
        return None
    prompts = [group[0].prompt for group in right]
    told = {"images": len(right), "of": len(pairs), "prompts": len(set(prompts)), "held": sum(held)}
    return told | {
        "rate": sum(held) / len(held),
        "interval": list(wilson(sum(held), len(held), confidence)),
        "by_prompt": list(wilson_clustered(held, prompts, confidence)),
    }


def unasked(held: Held) -> Iterator[dict[str, Any]]:
    """By domain: what the model draws of it for prompts that must stay and say nothing of it, before and after.

    `moved` is half the sum of the differences between both distributions (total variation): 0 if nothing shifted, 1 if
    nothing is as it was. `changed` counts the images whose label is another.
    """
    seen: dict[str, dict[str, Any]] = {side: part(held.seen, side) for side in SIDES}
    labels = [one for side in seen.values() for one in side.values()]
    for domain in sorted({domain for one in labels for domain in one}):
        words = {one[domain] for one in labels if domain in one}
        pairs = list(_pairs(held, seen, domain=domain, words=words))
        if pairs:
            counts = [Counter(pair[side] for pair in pairs) for side in (0, 1)]
            moved = sum(abs(counts[0][word] - counts[1][word]) for word in {*counts[0], *counts[1]}) / 2 / len(pairs)
            changed = sum(before != after for before, after in pairs)
            told = {"domain": domain, "images": len(pairs), "moved": moved, "changed": changed}
            yield told | {side: dict(count.most_common()) for side, count in zip(seen, counts, strict=True)}


def _pairs(
    held: Held, seen: Mapping[str, Mapping[str, Any]], *, domain: str, words: set[str]
) -> Iterator[tuple[str, str]]:
    """What both images of each kept prompt show of a domain of which it names no concept, once each."""
    known: dict[tuple[str, int], bool] = {}
    for one, told in zip(held.outcomes, held.result["outcomes"], strict=True):
        key, files = (one.prompt, one.seed), part(told, "images")
        before, after = (part(seen[side], str(files.get(side))).get(domain) for side in SIDES)
        if key in known or one.role != "kept" or before is None or after is None:
            continue
        known[key] = True
        if not any(names(one.prompt, word) for word in words | targets_of(held)):
            yield str(before), str(after)


def targets_of(held: Held) -> set[str]:
    """The words of all targets."""
    return {word for one in held.result["task"]["targets"] for word in (one["name"], *one["synonyms"])}
