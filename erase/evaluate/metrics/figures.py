"""Figures of what a judge has seen: accuracies by group, and UA, IRA and CRA.

UA, IRA and CRA are those of UnlearnCanvas (Zhang et al. 2024), on a square of styles and objects: UA is the share of
the targets' images that are no longer taken for any target; IRA the accuracy on other concepts of the targets' kind;
CRA the accuracy in the other domain over the whole square; each the mean over concepts. A missing image counts as
not erased, and as not recognised where it should be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from erase.evaluate.images import GROUPS, SIDES, ScoredImage, target_of
from erase.evaluate.metrics.figure import Direction, Figure, mean, rate
from erase.evaluate.networks.clip import ClipFolder
from erase.task import DOMAINS, Task, same

VERSION = "canvas/emoji-v1"
Verdicts = Mapping[str, Mapping[str, str]]


def canvas(task: Task, shots: Sequence[ScoredImage], verdicts: Verdicts) -> list[Figure]:
    """UA, IRA and CRA of both sides."""
    other = "object" if task.domain == "style" else "style"
    figures = []
    for side in SIDES:
        square = [
            shot for shot in shots if shot.side == side and (task.domain in shot.row.labels or shot.group == "erased")
        ]
        crossed = [shot for shot in square if other in shot.row.labels]
        figures.append(unlearned(task, [shot for shot in square if shot.group == "erased"], verdicts))
        figures.append(accuracy("ira", [shot for shot in square if shot.group == "kept"], verdicts, domain=task.domain))
        if other in seen_domains(verdicts):
            figures.append(accuracy("cra", crossed, verdicts, domain=other))
    return [figure for figure in figures if figure is not None]


def clip_scores(
    shots: Sequence[ScoredImage], vectors: Mapping[str, Tensor], towers: ClipFolder, *, version: str
) -> list[Figure]:
    """The mean CLIP score by group and side: 100 times the cosine of an image's vector and its prompt's.

    Not comparable with scores of another CLIP; `version` names it. An image without a vector has the worst score: 0, or
    100 where lower is better.
    """
    prompts = list(dict.fromkeys(shot.row.prompt for shot in shots))
    texts = dict(zip(prompts, towers.texts(prompts, cut=True), strict=True))
    figures = []
    for group in GROUPS:
        direction: Direction = "lower" if group == "erased" else "higher"
        worst = 100.0 if direction == "lower" else 0.0
        for side in SIDES:
            chosen = [shot for shot in shots if (shot.group, shot.side) == (group, side)]
            items = {
                shot.id: 100 * float(vectors[shot.id] @ texts[shot.row.prompt]) if shot.id in vectors else worst
                for shot in chosen
            }
            if items:
                figures.append(mean(items, name="clip", group=group, side=side, direction=direction, version=version))
    return figures


def seen_domains(verdicts: Verdicts) -> list[str]:
    """The domains in which a judge has seen concepts."""
    return [domain for domain in DOMAINS if any(domain in seen for seen in verdicts.values())]


def unlearned(task: Task, erased: Sequence[ScoredImage], verdicts: Verdicts) -> Figure | None:
    """UA: the share of the targets' images in which the judge sees none of the targets."""
    if not erased:
        return None
    gone = {shot.id: float(shot.id in verdicts and not task.seen_in(verdicts[shot.id])) for shot in erased}
    named = {shot.id: target_of(shot.row, task).name for shot in erased}
    side = erased[0].side
    return rate(gone, named, name="ua", group="erased", side=side, direction="higher", version=VERSION)


def accuracies(task: Task, shots: Sequence[ScoredImage], verdicts: Verdicts) -> list[Figure]:
    """Accuracy in either domain, by group and side, of the images whose prompt names that domain."""
    figures = []
    for domain in seen_domains(verdicts):
        for group in GROUPS:
            lower = group == "erased" and domain == task.domain
            for side in SIDES:
                named = [s for s in shots if s.side == side and s.group == group and domain in s.row.labels]
                figures.append(
                    accuracy(
                        f"{domain}_accuracy", named, verdicts, domain=domain, direction="lower" if lower else "higher"
                    )
                )
    return [figure for figure in figures if figure is not None]


def accuracy(
    name: str, shots: Sequence[ScoredImage], verdicts: Verdicts, *, domain: str, direction: Direction = "higher"
) -> Figure | None:
    """The share of images that show what their prompt names in a domain; None where no question asked for that.

    A missing image counts as the worst: as not recognised, or as recognised where lower is better.
    """
    asked = [shot for shot in shots if domain in verdicts.get(shot.id, (domain,))]
    if not asked or (len(asked) < len(shots) and all(shot.id not in verdicts for shot in asked)):
        return None
    shots = asked
    items = {
        shot.id: float(
            same(found, shot.row.labels[domain]) if (found := seen(verdicts, shot, domain)) else direction == "lower"
        )
        for shot in shots
    }
    concepts = {shot.id: shot.row.labels[domain] for shot in shots}
    groups = {shot.group for shot in shots}
    group = shots[0].group if len(groups) == 1 else "all"
    return rate(items, concepts, name=name, group=group, side=shots[0].side, direction=direction, version=VERSION)


def seen(verdicts: Verdicts, shot: ScoredImage, domain: str) -> str:
    """What the judge saw in an image, or nothing at all if there was no image."""
    return verdicts.get(shot.id, {}).get(domain, "")
