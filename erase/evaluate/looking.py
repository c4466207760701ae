"""Detectors by the names of a protocol, and what they see in the images of its questions."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erase import documents, names
from erase.errors import BadProtocol, ScoreFailed
from erase.evaluate.cases import concepts_of
from erase.evaluate.detections import ANYTHING, Detector, Findings, Policy, count, counted, examine
from erase.evaluate.protocol import Case, DetectorForm, Protocol
from erase.task import Task

Key = tuple[str, int]  # prompt and seed


@dataclasses.dataclass(frozen=True)
class Given:
    """What the user gives for names that a protocol leaves open, and the judge that comes with the base model.

    `paths` are files and folders by name; `detectors` callables that stand in for a detector of this name.
    """

    paths: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    judge: Path | None = None
    detectors: Mapping[str, Detector] = dataclasses.field(default_factory=dict)

    def path(self, name: str, *, purpose: str) -> Path:
        """The path that a name stands for; raises ScoreFailed if none was given."""
        embedded = {"judge": "", "clip": "clip", "clip_zero_shot": "clip"}
        if name in self.paths:
            return self.paths[name]
        if self.judge is not None and name in embedded:
            return self.judge / embedded[name]
        raise ScoreFailed(f"{purpose} needs a local path; give it as {name}=PATH.")


def build_detector(form: DetectorForm, labels: Sequence[str], given: Given) -> Detector:
    """The detector of a protocol, with the labels that it may have to tell apart.

    Raises UnknownName, BadProtocol on an option that it does not have or another version, ScoreFailed without weights.
    """
    if form.name in given.detectors:
        return given.detectors[form.name]
    build: Any = names.load("detectors", form.name)
    kinds = typing.get_type_hints(build)
    fields = [field.name for field in dataclasses.fields(build)]
    for key in form.options:
        if key not in fields:
            raise BadProtocol(documents.wrong_key(key, fields, where=f"the options of {form.name}"))
        if kinds[key] is Path:  # a protocol is data: which file is read or run is said by who runs it
            raise BadProtocol(
                f"option {key} of {form.name} is a path, which no protocol gives; use --with {form.name}=PATH."
            )
    options: dict[str, Any] = {
        key: documents.check_value(value, kinds[key], key=f"option {key} of {form.name}", error=BadProtocol)
        for key, value in form.options.items()
    }
    for key in fields:
        if kinds[key] is Path and key not in options:
            name = form.name if key == "weights" else f"{form.name}-{key}"
            options[key] = given.path(name, purpose=f"the detector {form.name}")
    if "labels" in fields:
        options.setdefault("labels", tuple(form.labels or labels))
    detector: Detector = build(**options)
    if build.version != form.version:
        raise BadProtocol(f"the protocol asks for {form.name} {form.version}; this is version {build.version}.")
    return detector


@dataclasses.dataclass(frozen=True)
class Look:
    """Whether a case's concept is seen in an image (None if the image cannot be read), and how many are counted.

    `score` is the highest of what would count at any threshold.
    """

    seen: bool | None
    found: int = 0
    score: float | None = None


def look(
    protocol: Protocol, task: Task, cases: Sequence[Case], *, images: Mapping[Key, Path], given: Given
) -> list[Look]:
    """What is seen for each case in its image.

    Raises ScoreFailed if a detector fails.
    """
    answers: dict[int, Look] = {}
    erased, kept = protocol.detectors("erased"), protocol.detectors("kept")
    for forms in [erased] if erased == kept else [erased, kept]:
        chosen = {number: case for number, case in enumerate(cases) if protocol.detectors(case.role) == forms}
        labels = concepts_of(list(chosen.values()), task)
        wanted = {_key(case): images[_key(case)] for case in chosen.values()}
        found = [_find(form, labels, wanted, given) for form in forms]
        for number, case in chosen.items():
            of_case = [(form.policy, one[_key(case)]) for form, one in zip(forms, found, strict=True)]
            answers[number] = _look_at(case, task, of_case)
    return [answers[number] for number in range(len(cases))]


def _find(
    form: DetectorForm, labels: Sequence[str], images: Mapping[Key, Path], given: Given
) -> dict[Key, Findings | None]:
    named = {f"{prompt}\n{seed}": path for (prompt, seed), path in images.items()}
    found = examine(build_detector(form, labels, given), named, name=form.name)
    return dict(zip(images, found.values(), strict=True))


def _look_at(case: Case, task: Task, found: Sequence[tuple[Policy, Findings | None]]) -> Look:
    """What any of the detectors sees; an erased concept is seen in the place of any target of its task."""
    concepts = task.names if case.role == "erased" and case.concept != ANYTHING else (case.concept,)
    total, best = 0, 0.0
    for policy, findings in found:
        if findings is None:
            return Look(None)
        total += count(counted(findings, policy, concepts=concepts, domain=case.domain), policy)
        anywhere = counted(findings, dataclasses.replace(policy, threshold=0.0), concepts=concepts, domain=case.domain)
        best = max([best, *(one.score for one in anywhere)])
    return Look(total > 0, total, best)


def _key(case: Case) -> Key:
    return case.row.prompt, case.row.seed
