"""The gate: whether pairs of images prove that a concept is gone and the rest is not, and in words why not.

A pure function of what was seen. It passes only if every interval lies beyond its limit, so a small sample fails; a
pair that lacks an image or could not be scored counts against the edit wherever it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from erase.evaluate.statistics.intervals import wilson
from erase.evaluate.statistics.paired import mcnemar, mean_change

Role = Literal["erased", "kept"]
Kind = Literal[
    "still there",
    "nothing changed",
    "over-erased",
    "model destroyed",
    "too few images to tell",
    "next to nothing",
    "harmed",
]
MOST = 1_000_000  # images that anybody would make for one figure
SHOWN = 5  # prompts or neighbours that a reason names


@dataclass(frozen=True)
class Outcome:
    """One pair of images: what its prompt is to the task, and whether the detector saw its concept before and after.

    `aspect` says how the prompt asks (name, synonyms, neighbours ...). None is an image that is missing or was not
    scored. `found` counts what was found in either, as the detector policy counts; `scores` are the detector's highest.
    `distance` is the mean absolute difference of the two, of 1; `blank` tells that the edit's image is of one colour;
    `quality` is a score of both images, higher being better.
    """

    prompt: str
    seed: int
    role: Role
    aspect: str
    concept: str
    before: bool | None
    after: bool | None
    distance: float | None = None
    blank: bool = False
    quality: tuple[float, float] | None = None
    found: tuple[int, int] = (0, 0)
    scores: tuple[float | None, float | None] = (None, None)

    @property
    def is_whole(self) -> bool:
        """Whether both images were seen."""
        return self.before is not None and self.after is not None


@dataclass(frozen=True)
class Limits:
    """What the gate asks for.

    `gone`: share of the target's images that must not show it; `kept`: share of images right before that must be right
    after; `shown`: share of the target's images before the edit that must show it, or nothing was measured;
    `destroyed`: kept images fewer than this mean that the model is broken; `drop`: most that quality may fall, of 1;
    `moved`: mean absolute difference up to which an image is the same; `by_aspect`: limits of `kept` for some aspects.
    """

    gone: float = 0.8
    kept: float = 0.8
    shown: float = 0.5
    destroyed: float = 0.5
    drop: float = 0.1
    moved: float = 1 / 255
    confidence: float = 0.95
    by_aspect: Mapping[str, float] = field(default_factory=dict)

    def kept_of(self, aspect: str) -> float:
        """The limit of what must stay in one way of asking."""
        return self.by_aspect.get(aspect, self.kept)


@dataclass(frozen=True)
class Check:
    """One thing that was asked: its value with its interval, and the limit that the interval must be beyond."""

    name: str
    value: float
    low: float
    high: float
    n: int
    limit: float

    @property
    def passed(self) -> bool:
        return self.low >= self.limit  # false for what is not a number


@dataclass(frozen=True)
class Reason:
    """Why the gate is closed: one of a few words, and a sentence."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Verdict:
    """The gate's answer: reasons (none if it is open), checks, and the pairs that failed for lack of an image."""

    reasons: tuple[Reason, ...]
    checks: tuple[Check, ...]
    unscored: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 if the gate is open, else 3."""
        return 3 if self.reasons else 0


def judge(outcomes: Sequence[Outcome], limits: Limits | None = None) -> Verdict:
    """The verdict on the pairs.

    Of a broken model no more is said than that: what a detector sees in noise or in white tells nothing of the target.
    """
    limits = limits or Limits()
    erased, kept = ([one for one in outcomes if one.role == role] for role in ("erased", "kept"))
    checks = [gone_check(aspect, group, limits) for aspect, group in by(erased, lambda one: one.aspect)]
    checks += [kept_check(aspect, group, limits) for aspect, group in by(kept, lambda one: one.aspect)]
    checks += quality_checks(kept, limits)
    broken = destroyed(kept, limits)
    reasons = broken or [*unchanged(erased, limits), *present(erased, limits)]
    reasons += too_few(erased, kept, limits) or ([] if reasons else chance(erased, limits))
    if not broken:
        reasons += [*over_erased(kept, limits), *lower_quality(kept, limits)]
    if all(reason.kind == "too few images to tell" for reason in reasons):
        reasons += [undecided(check, limits) for check in checks if not check.passed and (check.n or not reasons)]
    unscored = tuple(f"{one.prompt} (seed {one.seed})" for one in outcomes if not one.is_whole)
    return Verdict(tuple(reasons), tuple(checks), unscored)


def by(outcomes: Iterable[Outcome], key: Callable[[Outcome], str]) -> list[tuple[str, list[Outcome]]]:
    """The outcomes in groups, in the order in which they first appear."""
    groups: dict[str, list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault(key(one), []).append(one)
    return list(groups.items())


def is_gone(one: Outcome) -> bool:
    return one.is_whole and not one.after


def is_kept(one: Outcome) -> bool:
    return one.is_whole and bool(one.after)


def must_stay(kept: Iterable[Outcome]) -> list[Outcome]:
    """Those that the base model drew right, and those that nobody could look at."""
    return [one for one in kept if one.before or not one.is_whole]


def gone_check(aspect: str, erased: Sequence[Outcome], limits: Limits) -> Check:
    """How much of the target is gone in one way of asking for it."""
    return share(f"gone: {aspect}", [is_gone(one) for one in erased], limit=limits.gone, confidence=limits.confidence)


def kept_check(aspect: str, kept: Sequence[Outcome], limits: Limits) -> Check:
    """How much of what the base model drew right is still right."""
    held = [is_kept(one) for one in must_stay(kept)]
    return share(f"kept: {aspect}", held, limit=limits.kept_of(aspect), confidence=limits.confidence)


def share(name: str, held: Sequence[bool], *, limit: float, confidence: float) -> Check:
    low, high = wilson(sum(held), len(held), confidence)
    return Check(name, sum(held) / len(held) if held else float("nan"), low, high, len(held), limit)


def quality_checks(kept: Sequence[Outcome], limits: Limits) -> list[Check]:
    """The change of quality relative to what it was, if it was measured."""
    scored = [one.quality for one in kept if one.quality is not None]
    if not scored:
        return []
    scale = abs(sum(before for before, _ in scored) / len(scored)) or 1.0
    change = mean_change(
        [before / scale for before, _ in scored], [after / scale for _, after in scored], confidence=limits.confidence
    )
    return [Check("quality", change.value, change.low, change.high, change.n, -limits.drop)]


def too_few(erased: Sequence[Outcome], kept: Sequence[Outcome], limits: Limits) -> list[Reason]:
    """Reasons for which nothing could be proved, however the edit did."""
    found = [
        f"no prompt asks for {what}" for what, group in (("the target", erased), ("what must stay", kept)) if not group
    ]
    shown, n = sum(bool(one.before) for one in erased), len(erased)
    if n and shown < limits.shown * n:
        found.append(
            f"the base model itself shows the target in only {shown} of {n} images, {limits.shown:.0%} are needed"
        )
    if kept and not must_stay(kept):
        found.append(f"the base model itself draws none of the {len(kept)} images right that must stay")
    return [Reason("too few images to tell", text) for text in found]


def chance(erased: Sequence[Outcome], limits: Limits) -> list[Reason]:
    """A reason if the target may have gone by chance (McNemar)."""
    whole = [one for one in erased if one.is_whole]
    test = mcnemar([bool(one.before) for one in whole], [bool(one.after) for one in whole])
    if not erased or (test.lost > test.gained and test.p <= 1 - limits.confidence):
        return []
    text = f"the target went in {test.lost} images and came in {test.gained}, which may be chance (p = {test.p:.2f})"
    return [Reason("too few images to tell", text)]


def unchanged(erased: Sequence[Outcome], limits: Limits) -> list[Reason]:
    """A reason if the target's images are the base model's own."""
    measured = [one for one in erased if one.distance is not None]
    same = sum(one.distance <= limits.moved for one in measured if one.distance is not None)
    if not measured or same < 0.95 * len(measured):
        return []
    return [Reason("nothing changed", f"{same} of {len(measured)} images of the target are as before the edit")]


def present(erased: Sequence[Outcome], limits: Limits) -> list[Reason]:
    """A reason for each way of asking by which the target still comes, with the prompts."""
    reasons = []
    for aspect, group in by(erased, lambda one: one.aspect):
        check, left = gone_check(aspect, group, limits), [one for one in group if not is_gone(one)]
        if check.value < limits.gone:
            prompts = named(one.prompt for one in left)
            text = f"asked by {aspect}, the target is in {len(left)} of {len(group)} images: {prompts}"
            reasons.append(Reason("still there", text))
    return reasons


def destroyed(kept: Sequence[Outcome], limits: Limits) -> list[Reason]:
    """A reason if the model draws no longer: flat images, or hardly anything right that was right before."""
    blank = sum(one.blank for one in kept)
    if blank and blank >= limits.destroyed * len(kept):
        return [Reason("model destroyed", f"{blank} of {len(kept)} images that must stay are of one colour")]
    held = [is_kept(one) for one in must_stay(kept)]
    check = share("kept", held, limit=limits.destroyed, confidence=limits.confidence)
    if held and check.high < limits.destroyed:
        return [
            Reason("model destroyed", f"only {sum(held)} of {len(held)} images that were right before are right now")
        ]
    return []


def over_erased(kept: Sequence[Outcome], limits: Limits) -> list[Reason]:
    """A reason for each kind of what must stay that went with the target, and for single concepts that did."""
    reasons = []
    for aspect, group in by(kept, lambda one: one.aspect):
        check = kept_check(aspect, group, limits)
        lost = lost_concepts(group, limits, aspect=aspect, certain=not check.value < check.limit)
        if check.value < check.limit or lost:
            held = sum(is_kept(one) for one in must_stay(group))
            text = f"of {aspect}, {held} of {check.n} images that were right are right now; lost: {named(lost)}"
            reasons.append(Reason("over-erased", text))
    return reasons


def lost_concepts(kept: Sequence[Outcome], limits: Limits, *, aspect: str, certain: bool) -> list[str]:
    """Concepts kept less often than they should be, worst first.

    `certain` names only those whose interval lies below the limit, at a confidence that allows for looking at so many
    (Bonferroni).
    """
    groups = by(must_stay(kept), lambda one: one.concept)
    confidence, limit = 1 - (1 - limits.confidence) / max(1, len(groups)), limits.kept_of(aspect)
    checks = [
        share(name, [is_kept(one) for one in group], limit=limit, confidence=confidence) for name, group in groups
    ]
    lost = [check for check in checks if (check.high if certain else check.value) < limit]
    return [f"{one.name} ({round(one.value * one.n)} of {one.n})" for one in sorted(lost, key=lambda one: one.value)]


def lower_quality(kept: Sequence[Outcome], limits: Limits) -> list[Reason]:
    """A reason if the quality of what must stay fell too far."""
    fallen = [check for check in quality_checks(kept, limits) if check.value < check.limit]
    return [
        Reason(
            "over-erased", f"quality of what must stay fell by {-check.value:.1%}, at most {limits.drop:.0%} is allowed"
        )
        for check in fallen
    ]


def undecided(check: Check, limits: Limits) -> Reason:
    """The reason of a check whose value is good enough and whose interval is not."""
    if not check.n:
        return Reason("too few images to tell", f"{check.name}: the base model itself draws none of these right")
    needed = images_needed(check.value, check.limit, at_least=check.n, confidence=limits.confidence)
    text = (
        f"{check.name} is {check.value:.1%} of {check.n} images, with {limits.confidence:.0%} confidence "
        f"{check.low:.1%} or more; {check.limit:.0%} is asked: use more prompts or seeds"
    )
    return Reason("too few images to tell", text + (f", {needed} images at this rate" if needed else ""))


def images_needed(rate: float, limit: float, *, at_least: int = 1, confidence: float = 0.95) -> int:
    """The fewest images that would prove a limit at a rate of success; 0 if none would."""
    if rate <= limit:
        return 1 if rate == limit == 0 else 0
    count = at_least
    while wilson(int(rate * count + 1e-9), count, confidence)[0] < limit:
        if count > MOST:
            return 0
        count += max(1, count // 100)
    return count


def named(texts: Iterable[str]) -> str:
    """The first few different texts, and how many more there are."""
    distinct = list(dict.fromkeys(texts))
    more = f" and {len(distinct) - SHOWN} more" if len(distinct) > SHOWN else ""
    return "; ".join(distinct[:SHOWN]) + more
