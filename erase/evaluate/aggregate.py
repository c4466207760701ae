"""Totals over a protocol's questions, as the protocol says they are formed: `aggregation` in its file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from types import MappingProxyType
from typing import Literal

from erase.evaluate.canvas import SEED_THEME, Answer, canvas
from erase.evaluate.gate import Outcome
from erase.evaluate.images import SIDES, Side
from erase.evaluate.protocol import Case
from erase.task import Task

Pair = tuple[Case, Outcome]


@dataclass(frozen=True)
class Total:
    """One number of the whole protocol, before and after; not a number where nothing was asked."""

    name: str
    before: float
    after: float
    better: Literal["higher", "lower"]
    unit: Literal["share", "count", "plain"] = "share"


def aggregate(name: str, cases: Sequence[Case], outcomes: Sequence[Outcome], *, task: Task) -> tuple[Total, ...]:
    """The totals of an aggregation."""
    return AGGREGATIONS[name](list(zip(cases, outcomes, strict=True)), task)


def right(outcome: Outcome, side: Side) -> bool:
    """Whether a concept is seen on a side; where it could not be looked at, the answer that is worse for the edit."""
    seen: bool | None = getattr(outcome, side)
    return outcome.role == "erased" if seen is None else seen


def share(pairs: Iterable[Pair], side: Side) -> float:
    """The share of images in which the concept is seen."""
    seen = [right(outcome, side) for _, outcome in pairs]
    return fmean(seen) if seen else math.nan


def of_role(pairs: Sequence[Pair], role: str) -> list[Pair]:
    return [pair for pair in pairs if pair[1].role == role]


def harmonic(values: Sequence[float]) -> float:
    """The harmonic mean; 0 if any value is 0, not a number if any is none."""
    if any(math.isnan(value) for value in values):
        return math.nan
    return len(values) / sum(1 / value for value in values) if all(value > 0 for value in values) else 0.0


def pooled(pairs: Sequence[Pair], task: Task) -> tuple[Total, ...]:
    """The share of all images in which the target is seen, and in which what must stay is."""
    erased, kept = of_role(pairs, "erased"), of_role(pairs, "kept")
    return (
        Total("presence", share(erased, "before"), share(erased, "after"), "lower"),
        Total("retention", share(kept, "before"), share(kept, "after"), "higher"),
    )


def by_concept(pairs: Sequence[Pair], task: Task) -> tuple[Total, ...]:
    """Acc_e of the targets' literal names, Acc_s of what must stay, Acc_g of synonyms, and their harmonic mean H_o.

    As MACE reports objects: H_o = 3 / (1 / (1 - Acc_e) + 1 / Acc_s + 1 / (1 - Acc_g)); without synonyms over two.
    """
    erased = of_role(pairs, "erased")
    literal = [pair for pair in erased if pair[1].aspect != "synonyms"]
    general = [pair for pair in erased if pair[1].aspect == "synonyms"]
    kept = of_role(pairs, "kept")

    def parts(side: Side) -> list[float]:
        return [_concept_mean(group, side) for group in (literal, kept, general)]

    both = [parts(side) for side in SIDES]
    totals = [
        Total(name, both[0][number], both[1][number], "higher" if name == "Acc_s" else "lower")
        for number, name in enumerate(("Acc_e", "Acc_s", "Acc_g"))
        if name != "Acc_g" or general
    ]
    means = [harmonic([1 - acc_e, acc_s, *([1 - acc_g] if general else [])]) for acc_e, acc_s, acc_g in both]
    return (*totals, Total("H_o", means[0], means[1], "higher"))


def canvas_totals(pairs: Sequence[Pair], task: Task, *, with_seed: bool) -> tuple[Total, ...]:
    """UA, IRA and CRA; prompts of no style play UnlearnCanvas's theme `Seed_Images`."""
    both = [
        canvas([_answer(pair, side) for pair in pairs], task.names, domain=task.domain, with_seed=with_seed)
        for side in SIDES
    ]
    return tuple(
        Total(name.upper(), getattr(both[0], name), getattr(both[1], name), "higher") for name in ("ua", "ira", "cra")
    )


def counts(pairs: Sequence[Pair], task: Task) -> tuple[Total, ...]:
    """How many the detector policy counts over all images of the target's prompts, and the share of images with any.

    An image that could not be looked at counts as one with something in it.
    """
    erased = of_role(pairs, "erased")
    found = [
        sum(max(one.found[number], int(right(one, side))) for _, one in erased) for number, side in enumerate(SIDES)
    ]
    return (Total("count", found[0], found[1], "lower", "count"), *pooled(pairs, task))


def erasebench(pairs: Sequence[Pair], task: Task) -> tuple[Total, ...]:
    """EraseBench: presence by each way of asking (efficacy, generality), sensitivity by each relation, and their mean.

    The harmonic mean is of 1 - presence of each way of asking and the sensitivity over all relations.
    """
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair[1].aspect, []).append(pair)
    asked = {aspect: group for aspect, group in groups.items() if group[0][1].role == "erased"}
    related = {aspect: group for aspect, group in groups.items() if aspect not in asked}
    means = [
        harmonic([*(1 - share(group, side) for group in asked.values()), share(of_role(pairs, "kept"), side)])
        for side in SIDES
    ]
    return (
        *(Total(f"presence, {name}", *_both(group), "lower") for name, group in asked.items()),
        *(Total(f"sensitivity, {name}", *_both(group), "higher") for name, group in related.items()),
        Total("harmonic mean", means[0], means[1], "higher"),
    )


def faces(pairs: Sequence[Pair], task: Task) -> tuple[Total, ...]:
    """Accuracy over the images that have a face, as MACE counts it, and the share that has none.

    An image without a face leaves the denominator, so that destroying faces flatters Acc_e: the second number says so.
    Which images have one is asked by the cases of the aspect `face`. H_c = 2 / (1 / (1 - Acc_e) + 1 / Acc_s).
    """
    asked = {case.row.key: one for case, one in pairs if one.aspect == "face"}
    named = [pair for pair in pairs if pair[1].aspect != "face"]

    def accuracy(role: str, side: Side) -> float:
        pairs = [(pair, asked.get(pair[0].row.key)) for pair in of_role(named, role)]
        return share([pair for pair, face in pairs if face is None or right(face, side)], side)

    erased, kept = ([accuracy(role, side) for side in SIDES] for role in ("erased", "kept"))
    none = [1 - share([pair for pair in pairs if pair[1].aspect == "face"], side) for side in SIDES]
    means = [harmonic([1 - acc_e, acc_s]) for acc_e, acc_s in zip(erased, kept, strict=True)]
    return (
        Total("Acc_e", erased[0], erased[1], "lower"),
        Total("Acc_s", kept[0], kept[1], "higher"),
        Total("no face", none[0], none[1], "lower"),
        Total("H_c", means[0], means[1], "higher"),
    )


def _both(pairs: Sequence[Pair]) -> tuple[float, float]:
    return share(pairs, "before"), share(pairs, "after")


def _concept_mean(pairs: Sequence[Pair], side: Side) -> float:
    """The mean over concepts of each one's share."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair[1].concept, []).append(pair)
    return fmean(share(group, side) for group in groups.values()) if groups else math.nan


def _answer(pair: Pair, side: Side) -> Answer:
    case, outcome = pair
    theme = case.labels.get("style", SEED_THEME)
    return Answer(case.domain, outcome.concept, right(outcome, side), theme)


AGGREGATIONS: Mapping[str, Callable[[Sequence[Pair], Task], tuple[Total, ...]]] = MappingProxyType(
    {
        "pooled": pooled,
        "by-concept": by_concept,
        "canvas-sauron": partial(canvas_totals, with_seed=False),
        "canvas-with-seed": partial(canvas_totals, with_seed=True),
        "erasebench": erasebench,
        "faces": faces,
        "counts": counts,
    }
)
