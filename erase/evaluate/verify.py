"""Whether an edited model passes a protocol's gate: images before and after, what detectors see, the verdict.

An image is named by all that it depends on: nothing is made twice, and no other model's image is taken for this one's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from erase.evaluate.aggregate import Total, aggregate
from erase.evaluate.attacked import headline_of, read_attacks, read_not_run
from erase.evaluate.detect import DetectorRunner, Given, Key, Look, runner_of
from erase.evaluate.detections import AT_ONCE, curve
from erase.evaluate.detectors.clip_zero_shot import ClipZeroShot
from erase.evaluate.edited import Edited, open_edited, task_from
from erase.evaluate.gate import Limits, Outcome, Reason, Verdict
from erase.evaluate.metrics.quality import (
    ClipEncoder,
    Vectors,
    clip_encoder_of,
    clip_scores,
    perceptual_distances,
    set_distances,
)
from erase.evaluate.protocol import Case, Protocol
from erase.evaluate.questions import Asked, asked_of, make_cases, rows_of
from erase.evaluate.result import FILE, check_fixed, fix, judged, write_result
from erase.evaluate.verified_facts import facts_of
from erase.files import hash_if_there
from erase.models import Model
from erase.sampling.pictures import read_picture
from erase.sampling.pipelined import follow
from erase.sampling.ranks import Rank, stream_share
from erase.task import Task

__all__ = ["Edited", "open_edited", "task_from"]  # by their older place
THRESHOLDS = tuple(number / 20 for number in range(1, 20))
FLAT = 2.0  # of 255: standard deviation up to which an image is of one colour
LEFT = (
    FILE,
    "report.html",
    "report.json",
    "figures.csv",
    "images.csv",
    "grid.png",
    "verdict.json",
)  # of a verification
FIXED_FIRST = ("base", "edited", "task", "protocol", "form", "sets", "budget", "detectors")
Count = Callable[[str, int, int], None]  # what is counted, done, in all


@dataclass(frozen=True)
class Result:
    """A verdict with all that it rests on: one outcome for each case, and the totals that the protocol asks for.

    `asked` tells of prompts that are cut, empty or left out; `hashes` each image's SHA-256 when it was looked at;
    `images` and `labels` each side's files, and what the detectors saw in them by domain; `facts` what was verified.
    """

    protocol: Protocol
    task: Task
    cases: tuple[Case, ...]
    outcomes: tuple[Outcome, ...]
    totals: tuple[Total, ...]
    verdict: Verdict
    folder: Path
    asked: tuple[Asked, ...] = ()
    hashes: Mapping[Path, str] = field(default_factory=dict)
    images: Mapping[str, Mapping[Key, Path]] = field(default_factory=dict)
    labels: Mapping[str, Mapping[Key, Mapping[str, str]]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """What is verified, by what: the questions to it, who answers them, and the facts that are fixed beforehand."""

    protocol: Protocol
    task: Task
    cases: tuple[Case, ...]
    looker: DetectorRunner
    eyes: ClipEncoder
    given: Given
    edited: Edited
    facts: Mapping[str, Any]
    asked: tuple[Asked, ...]
    unmeasured: tuple[Reason, ...] = ()

    @property
    def beside(self) -> tuple[Reason, ...]:
        """Reasons that do not come from the images: what was seen of the edit, and limits that nothing measures."""
        return (*self.edited.reasons, *self.unmeasured)

    @staticmethod
    def of(
        base: Model, edited: Edited, protocol: Protocol, *, task: Task, given: Given, eyes: ClipEncoder | None = None
    ) -> Subject:
        """Raises BadProtocol, BadPrompts, ScoreFailed.

        `eyes`: the CLIP that looks at more than the protocol asks for.
        """
        cases = make_cases(protocol, task, given.paths)
        looker = runner_of(protocol, task, cases, given=given)
        seeing = eyes or clip_encoder_of(protocol, cases, given)
        for one in (watcher.detector for watcher in looker.watchers):
            if isinstance(one, ClipZeroShot) and seeing.towers and one.weights == seeing.towers.folder:
                seeing = replace(seeing, towers=one.clip)  # one network, which sees each image once
        facts = facts_of(base, edited, protocol, task=task, looker=looker, given=given, eyes=seeing)
        asked = asked_of(cases, task, given.paths, is_cut=base.is_cut)
        return Subject(protocol, task, cases, looker, seeing, given, edited, facts, asked)


def verify(
    base: Model,
    edited: Edited,
    protocol: Protocol,
    *,
    task: Task,
    given: Given,
    folder: Path,
    count: Count | None = None,
    place: Rank | None = None,
    attack: Callable[[], None] | None = None,
) -> Result:
    """The verdict on an edited model; `protocol.json`, the images and `result.json` are left in `folder`.

    `attack` makes the attacks that the protocol names.

    Raises BadProtocol, BadPrompts, ScoreFailed, DiskFull, RunConflict for a folder that holds another model's; what was
    made is kept and not made again.
    """
    subject = Subject.of(base, edited, protocol, task=task, given=given)
    count = count or (lambda text, done, total: None)
    fixed, sides = begin(folder, subject.facts), {}
    for name, side in (("before", Edited(base, None, None)), ("after", edited)):
        drawn = draw(side, protocol, subject.cases, folder=folder / "images", count=partial(count, name), place=place)
        sides[name] = see(drawn, subject.looker, subject.eyes)
    if attack is not None:
        attack()
    check_fixed(folder, fixed)
    return conclude(subject, sides, folder)


def conclude(subject: Subject, sides: Mapping[str, Seen], folder: Path) -> Result:
    """The verdict on what was seen in the images of both sides, written to `result.json` in `folder`."""
    before, after = sides["before"], sides["after"]
    protocol, task, cases = subject.protocol, subject.task, subject.cases
    images = {name: side.images for name, side in sides.items()}
    quality = clip_scores(protocol, cases, subject.eyes, before=before.vectors, after=after.vectors)
    outcomes = [
        outcome(case, (before.looks[number], after.looks[number]), images, quality=quality.get(number))
        for number, case in enumerate(cases)
    ]
    totals = aggregate(protocol.form.aggregation, cases, outcomes, task=task)
    totals += set_distances(protocol, subject.eyes, before=before.vectors, after=after.vectors)
    totals += perceptual_distances(protocol, cases, images, given=subject.given)
    verdict = judged(outcomes, protocol.limits, subject.beside)
    result = Result(
        *(protocol, task, cases, tuple(outcomes), totals, verdict, folder, subject.asked),
        hashes={path: sha for side in sides.values() for path, sha in side.hashes.items()},
        images=images,
        labels={name: side.labels for name, side in sides.items()},
        facts={
            **subject.facts,
            "attacks": read_attacks(folder, protocol.form.attack),
            "not_shown": [*subject.facts["not_shown"], *read_not_run(folder, protocol.form.attack)],
        },
    )
    values = values_of(result, protocol.limits, subject.beside)
    write_result(folder, values, verdict, outcomes=outcomes)
    return result


def begin(folder: Path, facts: Mapping[str, Any]) -> str:
    """What is written down before the first image; what a verification of before left is none of this one's."""
    fixed = fix(folder, {key: facts[key] for key in FIXED_FIRST})
    for name in LEFT:
        (folder / name).unlink(missing_ok=True)
    return fixed


@dataclass(frozen=True)
class Seen:
    """One side: its images with their files' hashes, what is seen for each case, and the vectors of what must stay.

    `labels` are what the detectors see in each image by domain.
    """

    images: Mapping[Key, Path]
    looks: Sequence[Look]
    vectors: Vectors
    hashes: Mapping[Path, str]
    labels: Mapping[Key, Mapping[str, str]]


def see(drawn: Iterable[tuple[Key, Path]], looker: DetectorRunner, eyes: ClipEncoder) -> Seen:
    """What is seen in images, each batch looked at while the next is made."""
    images: dict[Key, Path] = {}
    hashes: dict[Path, str] = {}

    def noted() -> Iterator[tuple[Key, Path]]:
        for key, path in drawn:
            images[key], hashes[path] = path, hash_if_there(path)
            yield key, path

    seen = follow(noted(), lambda batch: (looker.examine(batch), eyes.vectors(batch)), size=AT_ONCE)
    vectors = {key: vector for _, part in seen for key, vector in part.items()}
    found = [part for part, _ in seen]
    looks = looker.looks(found)
    return Seen(images, looks, vectors, hashes, looker.labels(found, looks))


def draw(
    side: Edited,
    protocol: Protocol,
    cases: Sequence[Case],
    *,
    folder: Path,
    count: Callable[[int, int], None] | None = None,
    place: Rank | None = None,
) -> Iterator[tuple[Key, Path]]:
    """Each image of one side as soon as it is there; of the rows that are this process's share, if there are others."""
    made = stream_share(
        side.model,
        rows_of(cases),
        folder,
        place=place or Rank(),
        edit=side.edit,
        sampler=protocol.sampler,
        progress=count,
    )
    for row, path in made:
        yield row.key, path


def draw_share(
    base: Model, edited: Edited, protocol: Protocol, *, task: Task, given: Given, folder: Path, place: Rank
) -> None:
    """Makes another process's share of the images of both sides and scores nothing."""
    cases = make_cases(protocol, task, given.paths)
    with place.present():
        for side in (Edited(base, None, None), edited):
            for _ in draw(side, protocol, cases, folder=folder / "images", place=place):
                pass


def outcome(
    case: Case,
    looks: tuple[Look, Look],
    images: Mapping[str, Mapping[Key, Path]],
    *,
    quality: tuple[float, float] | None,
) -> Outcome:
    """What the gate is told of one case."""
    key = case.row.key
    before, after = (read_picture(images[side][key]) for side in ("before", "after"))
    return Outcome(
        prompt=case.row.prompt,
        seed=case.row.seed,
        role=case.role,
        aspect=case.aspect,
        concept=case.concept,
        before=looks[0].seen,
        after=looks[1].seen,
        distance=distance(before, after) if before and after else None,
        blank=after is not None and is_flat(after),
        quality=quality,
        found=(looks[0].found, looks[1].found),
        scores=(looks[0].score, looks[1].score),
    )


def distance(before: Image.Image, after: Image.Image) -> float | None:
    """The mean absolute difference of two pictures, of 1; None if they are not of one size."""
    if before.size != after.size:
        return None
    moved = np.asarray(before, dtype=np.float64) - np.asarray(after, dtype=np.float64)
    return float(np.abs(moved).mean() / 255)


def is_flat(picture: Image.Image) -> bool:
    """Whether a picture is of one colour."""
    return bool(np.asarray(picture, dtype=np.float64).std(axis=(0, 1)).max() <= FLAT)


def values_of(result: Result, limits: Limits, beside: Sequence[Reason]) -> dict[str, Any]:
    """What a result says beside its verdict; each image by its file's name relative to the folder."""
    keys = [case.row.key for case in result.cases]
    return {
        "model": result.facts["model"],
        "edit": result.facts["edit"],
        "protocol": result.protocol.to_json(),
        "limits": asdict(limits),
        "task": asdict(result.task),
        "hashes": result.facts["hashes"],
        "sampler": asdict(result.protocol.sampler),
        "device": result.facts["device"],
        "dtype": result.facts["dtype"],
        "beside": [asdict(reason) for reason in beside],
        "totals": [asdict(total) for total in result.totals],
        "asked": [asdict(one) for one in result.asked],
        "missing": sorted(_relative(path, result.folder) for path, sha in result.hashes.items() if not sha),
        "not_shown": result.facts["not_shown"],
        "headline": headline_of(result.facts["attacks"], result.outcomes),
        "attacks": result.facts["attacks"],
        "images": {_relative(path, result.folder): sha for path, sha in sorted(result.hashes.items())},
        "curves": {side: threshold_curve(result.outcomes, number) for number, side in enumerate(("before", "after"))},
        "outcomes": [
            asdict(one)
            | {"images": {side: _relative(result.images[side][key], result.folder) for side in result.images}}
            for one, key in zip(result.outcomes, keys, strict=True)
        ],
    }


def threshold_curve(outcomes: Sequence[Outcome], side: int) -> list[tuple[float, float]]:
    """The share of the target's images in which it is seen, by threshold; 1 for an image that was not scored."""
    scores = [one.scores[side] for one in outcomes if one.role == "erased"]
    return curve([1.0 if score is None else score for score in scores], THRESHOLDS)


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
