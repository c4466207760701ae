"""Detectors by the names of a protocol, and what they see in the images of its questions."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erase import registry
from erase.config import documents
from erase.errors import BadProtocol, ScoreFailed
from erase.evaluate.detections import ANYTHING, AT_ONCE, Detector, Findings, Policy, count, counted, examine
from erase.evaluate.detectors.clip_zero_shot import ClipZeroShot
from erase.evaluate.gate import Role
from erase.evaluate.neighbours import NEIGHBOURS
from erase.evaluate.protocol import Case, DetectorForm, Protocol
from erase.evaluate.questions import concepts_of
from erase.sampling.pipelined import batched
from erase.task import Task, folded

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
        if name == "clip_zero_shot" and "clip" in self.paths:
            return self.paths["clip"]
        if self.judge is not None and name in embedded:
            return self.judge / embedded[name]
        raise ScoreFailed(f"{purpose} needs a local path; give it as {name}=PATH.")


def build_detector(form: DetectorForm, labels: Sequence[str], given: Given) -> Detector:
    """The detector of a protocol, with the labels that it may have to tell apart.

    Raises UnknownName, BadProtocol on an option that it does not have or another version, ScoreFailed without weights.
    """
    if form.name in given.detectors:
        return given.detectors[form.name]
    build: Any = registry.load("detectors", form.name)
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


Found = Mapping[Key, Findings | None]


@dataclasses.dataclass(frozen=True)
class Watcher:
    """One detector of a protocol, the roles whose cases it answers, and the images that it looks at."""

    form: DetectorForm
    detector: Detector
    roles: tuple[Role, ...]
    keys: frozenset[Key]

    def examine(self, images: Sequence[tuple[Key, Path]]) -> Found:
        """What it finds in those of the images that it looks at."""
        named = {f"{key[0]}\n{key[1]}": (key, path) for key, path in images if key in self.keys}
        found = examine(self.detector, {name: path for name, (_, path) in named.items()}, name=self.form.name)
        return {named[name][0]: findings for name, findings in found.items()}


@dataclasses.dataclass(frozen=True)
class DetectorRunner:
    """The detectors of a protocol over the cases of a task."""

    task: Task
    cases: tuple[Case, ...]
    watchers: tuple[Watcher, ...]

    def examine(self, images: Sequence[tuple[Key, Path]]) -> tuple[Found, ...]:
        """What each detector finds in a batch of images; raises ScoreFailed if one fails."""
        return tuple(watcher.examine(images) for watcher in self.watchers)

    def looks(self, parts: Sequence[Sequence[Found]]) -> list[Look]:
        """What is seen for each case in its image, from what was found in all batches."""
        found: list[dict[Key, Findings | None]] = [{} for _ in self.watchers]
        for part in parts:
            for one, more in zip(found, part, strict=True):
                one |= more
        pairs = list(zip(self.watchers, found, strict=True))
        return [
            look_at(case, self.task, [(w.form.policy, one[case.row.key]) for w, one in pairs if case.role in w.roles])
            for case in self.cases
        ]

    def labels(self, parts: Sequence[Sequence[Found]], looks: Sequence[Look]) -> dict[Key, dict[str, str]]:
        """What is seen in each image by domain, where detectors tell concepts apart: never at odds with the looks.

        It is the concept asked for where that is seen, else the highest of the others that counts, "nothing" of none.
        """
        telling = [number for number, one in enumerate(self.watchers) if not one.form.labels]
        labels: dict[Key, dict[str, str]] = {}
        for case, seen in zip(self.cases, looks, strict=True):
            mine = [number for number in telling if case.role in self.watchers[number].roles]
            if not (case.domain and mine and seen.seen is not None):
                continue
            own = labels.setdefault(case.row.key, {})
            if seen.seen:
                own[case.domain] = case.concept
            elif case.domain not in own:
                found = [(self.watchers[n].form.policy, part[n].get(case.row.key)) for part in parts for n in mine]
                own[case.domain] = _other(case, self.task, found)
        return labels


def _other(case: Case, task: Task, found: Sequence[tuple[Policy, Findings | None]]) -> str:
    """The highest label that counts in an image in which what is asked for is not seen."""
    words = [word for target in task.targets for word in target.words] if case.role == "erased" else []
    asked = {folded(word) for word in [case.concept, *words]}
    heard = [
        one
        for policy, findings in found
        for one in findings or ()
        if folded(one.label) not in asked and one.domain in ("", case.domain) and one.score >= (policy.threshold or 0.0)
    ]
    return max(heard, key=lambda one: one.score).label if heard else "nothing"


def runner_of(protocol: Protocol, task: Task, cases: Sequence[Case], *, given: Given) -> DetectorRunner:
    """The looker of a protocol, its detectors built; raises what `build_detector` raises."""
    both: tuple[Role, ...] = ("erased", "kept")
    shared = protocol.detectors("erased") == protocol.detectors("kept")
    watchers = []
    for roles in [both] if shared else [both[:1], both[1:]]:
        chosen = [case for case in cases if case.role in roles]
        named = any(part.fill == "neighbours" for part in protocol.form.prompts)
        labels, keys = concepts_of(chosen, task, beside_names=named), frozenset(case.row.key for case in chosen)
        own = {*task.names, *(target.anchor for target in task.targets), *(keep.name for keep in task.keeps)}
        ours = set(NEIGHBOURS[task.targets[0].kind]) - own  # of which a CLIP may read the beginning alone
        captions = {case.concept for case in chosen if not case.domain}
        for form in protocol.detectors(roles[0]):
            detector = build_detector(form, labels, given)
            if isinstance(detector, ClipZeroShot):
                detector.check([label for label in concepts_of(chosen, task) if label not in captions | ours])
            watchers.append(Watcher(form, detector, roles, keys))
    return DetectorRunner(task, tuple(cases), tuple(watchers))


def look(
    protocol: Protocol, task: Task, cases: Sequence[Case], *, images: Mapping[Key, Path], given: Given
) -> list[Look]:
    """What is seen for each case in its image; raises ScoreFailed if a detector fails."""
    looker = runner_of(protocol, task, cases, given=given)
    return looker.looks([looker.examine(batch) for batch in batched(images.items(), AT_ONCE)])


def look_at(case: Case, task: Task, found: Sequence[tuple[Policy, Findings | None]]) -> Look:
    """What any of the detectors sees; an erased concept is seen in the place of any target of its task.

    A target that is a pair is seen where both of its labels are.
    """
    erased = case.role == "erased" and case.concept != ANYTHING
    words = [word for target in task.targets if not target.pair for word in target.words] if erased else [case.concept]
    asked = [{case.domain: words}] if words else []
    asked += [{kind: [word] for kind, word in target.pair.items()} for target in task.targets if erased and target.pair]
    total, best = 0, 0.0
    for policy, findings in found:
        if findings is None:
            return Look(None)
        anywhere = dataclasses.replace(policy, threshold=0.0)
        for every in asked:
            here = [counted(findings, policy, concepts=of, domain=kind) for kind, of in every.items()]
            total += min(count(one, policy) for one in here)
            scored = [counted(findings, anywhere, concepts=of, domain=kind) for kind, of in every.items()]
            best = max(best, min(max((one.score for one in each), default=0.0) for each in scored))
    return Look(total > 0, total, best)
