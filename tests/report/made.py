"""Findings of made-up runs: real images and figures by the real formulas, of verdicts that a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from erase.config.prompts import Row
from erase.evaluate.gate import Limits, Outcome, Role, judge
from erase.evaluate.images import GROUPS, SIDES, ScoredImage, group_of
from erase.evaluate.metrics.figure import mean
from erase.evaluate.metrics.figures import accuracies, canvas
from erase.evaluate.score import Scores
from erase.evaluate.verify import distance, is_flat
from erase.report.findings import Findings
from erase.report.grid import Pair
from erase.report.matrices import NO_IMAGE, saw
from erase.sampling.pictures import read_picture
from erase.task import Kind, Target, Task, same
from tests.evaluate.pictures import noisy

STYLES, OBJECTS = ("noto", "blob", "twemoji"), ("cat", "dog")
ASPECTS = {"erased": "its own prompts", "kept": "the others of its kind"}
BOUNDS = {"ua": 0.8, "ira": 0.8, "cra": 0.8}
See = Callable[[Row], Mapping[str, str]]


def as_asked(row: Row) -> Mapping[str, str]:
    """Sees just what the prompt names."""
    return row.labels


def erased(row: Row) -> Mapping[str, str]:
    """Sees blob wherever noto was asked for, else what the prompt names."""
    return {**row.labels, "style": "blob"} if row.labels.get("style") == "noto" else row.labels


def harsh(row: Row) -> Mapping[str, str]:
    """Sees blob whatever style was asked for."""
    return {**row.labels, "style": "blob"}


def ruined(row: Row) -> Mapping[str, str]:
    """Sees the same wrong thing everywhere."""
    return {"style": "blob", "object": "house"}


def square(words: str = "a {object} in {style} style", *, seeds: int = 2) -> list[Row]:
    rows = [
        Row(words.format(style=style, object=name), seed, {"style": style, "object": name})
        for style in STYLES
        for name in OBJECTS
        for seed in range(seeds)
    ]
    return [*rows, Row("a picture of a rose", 0, {"object": "rose"})]


def made(
    folder: Path,
    after: See = erased,
    *,
    kind: Kind = "style",
    target: str = "noto",
    rows: list[Row] | None = None,
    bounds: Mapping[str, float] | None = None,
    name: str = "made",
) -> Findings:
    """A run's findings in which the judge sees what was asked before the edit, and what `after` says after it."""
    task = Task((Target(target, kind, "blob" if kind == "style" else "dog"),))
    pairs = tuple(pair_of(folder, row, task, number=number) for number, row in enumerate(rows or square()))
    shots = [shot for pair in pairs for shot in (pair.before, pair.after)]
    sees: dict[str, See] = {"before": as_asked, "after": after}
    verdicts = {shot.id: dict(sees[shot.side](shot.row)) for shot in shots}
    figures = [*canvas(task, shots, verdicts), *accuracies(task, shots, verdicts), *graded(shots)]
    return proved(
        Findings(
            name=name,
            task=task,
            pairs=pairs,
            scores=Scores(tuple(figures), verdicts),
            recipe=recipe(),
            edit={"method": "uce", "options": {"lamb": 0.5}, "base": "b" * 64, "content": "c" * 64, "strength": 1.0},
            bounds=BOUNDS if bounds is None else bounds,
        )
    )


def pair_of(folder: Path, row: Row, task: Task, *, number: int) -> Pair:
    shots = [
        ScoredImage(
            f"{side}{number}", row, side, group_of(row, task), noisy(folder / side / f"{side}{number}.png", seed=seed)
        )
        for seed, side in enumerate(SIDES, start=2 * number)
    ]
    return Pair(shots[0], shots[1])


def graded(shots: list[ScoredImage]) -> list[Any]:
    """A CLIP score of every group: 30, 29, ... before and a point less after."""
    figures = []
    for group in GROUPS:
        for side in SIDES:
            names = [shot.id for shot in shots if shot.group == group and shot.side == side]
            items = {name: 30.0 - number - (side == "after") for number, name in enumerate(names)}
            figures.append(mean(items, name="clip", group=group, side=side, direction="higher", version="clip/test"))
    return figures


def recipe() -> dict[str, Any]:
    prompts = [{"name": "square", "seeds": [0, 1], "sha256": "d" * 64}]
    return {
        "name": "made",
        "description": "made up",
        "model": "tiny",
        "generate": {"prompts": prompts, "steps": 2, "guidance": 4.0},
        "hash": "e" * 64,
    }


def proved(findings: Findings) -> Findings:
    """The findings with the gate's verdict on their pairs, by their bounds; without bounds nothing is asked."""
    bounds = findings.bounds
    if not bounds:
        return replace(findings, proved=None)
    by_aspect = {ASPECTS["kept"]: bounds.get("ira", 0.0), f"the {findings.other_domain}s": bounds.get("cra", 0.0)}
    limits = Limits(gone=bounds.get("ua", 0.0), by_aspect=by_aspect)
    return replace(findings, proved=judge(list(outcomes(findings)), limits))


def outcomes(findings: Findings) -> Iterator[Outcome]:
    """Each pair as the gate asks about it: what its prompt names of the task's kind, and what of the other domain."""
    for pair in findings.pairs:
        before, after = (read_picture(shot.path) for shot in (pair.before, pair.after))
        moved = distance(before, after) if before and after else None
        for domain in (findings.task.domain, findings.other_domain):
            concept = pair.after.row.labels.get(domain, "")
            asked = domain == findings.task.domain and pair.after.group == "erased"
            if asked or (concept and domain in findings.judged):
                role, aspect = _asked(findings, pair, domain)
                yield Outcome(
                    prompt=pair.after.row.prompt,
                    seed=pair.after.row.seed,
                    role=role,
                    aspect=aspect,
                    concept=concept or findings.task.names[0],
                    before=_seen(findings, pair.before, role, domain=domain),
                    after=_seen(findings, pair.after, role, domain=domain),
                    distance=moved,
                    blank=after is not None and is_flat(after),
                )


def _asked(findings: Findings, pair: Pair, domain: str) -> tuple[Role, str]:
    if domain != findings.task.domain:
        return "kept", f"the {domain}s"
    return ("erased", ASPECTS["erased"]) if pair.after.group == "erased" else ("kept", ASPECTS["kept"])


def _seen(findings: Findings, shot: ScoredImage, role: Role, *, domain: str) -> bool | None:
    """Whether the judge sees in an image what its prompt names; of an erased one, any target."""
    found = saw(findings, shot, domain)
    if found == NO_IMAGE or findings.is_missing(shot):
        return None
    if role == "erased":
        return findings.task.seen_in(findings.scores.verdicts[shot.id])
    return same(found, shot.row.labels[domain])
