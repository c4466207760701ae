"""A pack's images looked at anew by its detectors: whether they say the same, and what they see unasked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erase.errors import BadEvidence
from erase.evaluate.detect import Found, Given, Key, Look, runner_of
from erase.evaluate.detections import AT_ONCE
from erase.evaluate.images import SIDES
from erase.evaluate.questions import make_cases
from erase.evaluate.result import hashes_of
from erase.evaluate.verify import task_from
from erase.evidence.stored import Held, inside, part
from erase.models import open_model
from erase.sampling.pipelined import batched

NEAR = 0.01  # of a score: another computer's arithmetic may move it so far


@dataclass(frozen=True)
class Anew:
    """What detectors say of a pack's images now: of each question on both sides, and each image's label by domain."""

    looks: Mapping[str, Sequence[Look]]
    labels: Mapping[str, Mapping[str, Mapping[str, str]]]


def given_for(held: Held, paths: Mapping[str, Path]) -> Given:
    """What the detectors of a result are given here: paths by name, and the embedded judge where it was the judge."""
    embedded = open_model("emoji").judge_folder
    own = part(part(held.result, "hashes"), "detectors").get("judge")
    ours = embedded if embedded is not None and own == _hashes(embedded) else None
    return Given(paths, ours)


def can_look(held: Held, given: Given) -> bool:
    """Whether every detector of a protocol without declared sets can be built here."""
    names = {form.name for form in (*held.protocol.form.detector, *held.protocol.form.keeper)}
    known = {*given.paths, *given.detectors, *(["judge"] if given.judge else []), "nudenet", "open_nsfw"}
    return not held.protocol.needs and names <= known


def look_again(held: Held, given: Given, *, folder: Path, progress: Callable[[int, int], None] | None = None) -> Anew:
    """What the detectors say of the images in `folder`.

    Raises BadEvidence if questions or detectors are others than those of the result, and what `runner_of` raises.
    """
    task, outcomes = task_from(held.result.get("task")), held.outcomes
    cases = make_cases(held.protocol, task, given.paths) if task is not None else ()
    if task is None or [(one.row.prompt, one.row.seed) for one in cases] != [(o.prompt, o.seed) for o in outcomes]:
        raise BadEvidence("the questions of this result are not those that its protocol asks here.")
    runner = runner_of(held.protocol, task, cases, given=given)
    for watcher in runner.watchers:
        if hashes_of(watcher.detector) != part(part(held.result, "hashes"), "detectors").get(watcher.form.name):
            raise BadEvidence(f"the detector {watcher.form.name} that is given is not the one of this result.")
    looks: dict[str, Sequence[Look]] = {}
    labels: dict[str, dict[str, dict[str, str]]] = {}
    paths = [part(one, "images") for one in held.result["outcomes"]]
    total = 2 * len({(one.prompt, one.seed) for one in outcomes})
    done = 0
    for side in SIDES:
        images = {
            (one.prompt, one.seed): inside(folder, str(names[side])) for one, names in zip(outcomes, paths, strict=True)
        }
        parts: list[Sequence[Found]] = []
        for batch in batched(images.items(), AT_ONCE):
            parts.append(runner.examine(batch))
            done += len(batch)
            if progress is not None:
                progress(done, total)
        looks[side] = runner.looks(parts)
        labels[side] = {images[key].relative_to(folder).as_posix(): seen for key, seen in _labels(parts)}
    return Anew(looks, labels)


def _labels(parts: Sequence[Sequence[Found]]) -> Iterator[tuple[Key, dict[str, str]]]:
    """The likeliest label of each image in each domain that a detector tells."""
    for batch in parts:
        for found in batch:
            for key, findings in found.items():
                best: dict[str, Any] = {}
                for one in findings or ():
                    if one.domain and (one.domain not in best or one.score > best[one.domain].score):
                        best[one.domain] = one
                if best:
                    yield key, {domain: one.label for domain, one in best.items()}


def differences(held: Held, anew: Anew) -> Iterator[str]:
    """Each question to which the detectors answer otherwise than the result says."""
    for side in SIDES:
        for number, (one, now) in enumerate(zip(held.outcomes, anew.looks[side], strict=True)):
            seen, score = getattr(one, side), one.scores[SIDES.index(side)]
            near = now.score == score if now.score is None or score is None else abs(now.score - score) <= NEAR
            if now.seen != seen or not near:
                yield f'question {number + 1}, "{one.prompt}", seed {one.seed}, {side}: the detectors now say otherwise'


def _hashes(folder: Path) -> dict[str, str]:
    from erase.evaluate.detectors.judge import Judge

    return hashes_of(Judge(folder))
