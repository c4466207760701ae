"""How a run is judged: its recipe as a protocol, and its images, looked at while they are made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erase import registry
from erase.config.drawing import DrawingForm
from erase.evaluate.attacked import figures_under_attack, read_attacks
from erase.evaluate.detect import Given, Key
from erase.evaluate.gate import Reason
from erase.evaluate.images import SIDES, ScoredImage, Side
from erase.evaluate.judges import TEMPLATES, check_labels, find_clip
from erase.evaluate.metrics.figure import Figure
from erase.evaluate.metrics.figures import accuracies, canvas, clip_scores
from erase.evaluate.metrics.quality import ClipEncoder
from erase.evaluate.neighbours import choices
from erase.evaluate.networks.clip import ClipFolder
from erase.evaluate.protocol import DetectorForm, LimitsForm, PartForm, Protocol, ProtocolForm, load_protocol
from erase.evaluate.questions import CROSS, make_cases
from erase.evaluate.result import check_fixed, fix
from erase.evaluate.score import Scores
from erase.evaluate.verified_facts import with_more_eyes
from erase.evaluate.verify import FIXED_FIRST, Edited, Result, Seen, Subject, conclude, see
from erase.report.verdict import KIN
from erase.run.identity import identities
from erase.task import Task

if TYPE_CHECKING:
    from erase.config.prompts import Row
    from erase.edit import Edit
    from erase.models import Model
    from erase.run.pipeline import Pipeline
    from erase.run.store import Run

LATE = "not fixed beforehand: the images were there when the limits, or who judges, were set"
GONE = "its own prompts"  # what a run's own prompts ask for, beside KIN


@dataclass(frozen=True)
class Judging:
    """Who judges a run's images, by which protocol, and what was seen in them so far, by side."""

    model: Model
    task: Task
    protocol: Protocol
    given: Given
    rows: tuple[Row, ...]
    seen: dict[Side, Seen] = field(default_factory=dict)
    fixed: dict[Path, str] = field(default_factory=dict)

    @cached_property
    def eyes(self) -> ClipEncoder:
        """The CLIP of the CLIP score: the one that was given, else the model's own judge's."""
        own = self.given.judge / "clip" if self.given.judge else None
        folder = self.given.paths.get("clip", own)
        if folder is None or not folder.is_dir():
            return ClipEncoder(None)
        return ClipEncoder(ClipFolder(folder), frozenset(row.key for row in self.rows))

    def check(self) -> None:
        """Raises ScoreFailed, BadProtocol for what it has against the task, before anything is made."""
        from erase.evaluate.detect import runner_of

        if any(form.name == "judge" for form in self.protocol.form.detector) and self.given.judge is not None:
            check_labels(self.given.judge, self.rows)
        runner_of(self.protocol, self.task, make_cases(self.protocol, self.task, self.given.paths), given=self.given)

    def subject(self, edit: Edit, file: Path) -> Subject:
        """What is judged; raises what `Subject.of` raises."""
        edited = Edited(self.model, edit, self.task, edit.info.effect, file)
        return Subject.of(self.model, edited, self.protocol, task=self.task, given=self.given, eyes=self.eyes)

    def look(self, subject: Subject, side: Side, drawn: Iterable[tuple[Key, Path]]) -> Mapping[Key, Path]:
        """A side's images by prompt and seed, each batch looked at while the next is made."""
        self.seen[side] = see(drawn, subject.looker, subject.eyes)
        return self.seen[side].images

    def fix(self, subject: Subject, folder: Path, *, late: bool) -> None:
        """Writes down what is judged and by which limits; `late`: images are there already."""
        self.fixed[folder] = fix(folder, {key: subject.facts[key] for key in FIXED_FIRST}, late=late)

    def conclude(self, subject: Subject, run: Run) -> Result:
        """The verdict on what was seen, written to the run's folder, with the identities of the steps that it rests on.

        Raises ScoreFailed if what was fixed was changed.
        """
        check_fixed(run.folder, self.fixed[run.folder])
        facts = dict(subject.facts)
        if json.loads(self.fixed[run.folder]).get("late"):
            facts["not_shown"] = [*facts["not_shown"], LATE]
        said = identities(run.recipe)
        steps = ("edit", "generate", *(("attack",) if run.recipe.attack else ()), "score")
        facts["hashes"] = {**facts["hashes"], "steps": {name: said[name] for name in steps}}
        lacking = tuple(_unmeasured(run.recipe, subject))
        return conclude(
            replace(subject, facts=facts, unmeasured=lacking), {side: self.seen[side] for side in SIDES}, run.folder
        )

    def scores(self, pairs: Sequence[tuple[ScoredImage, ScoredImage]], folder: Path) -> Scores:
        """The figures of what was seen: UA under attack, UA, IRA, CRA, accuracies and CLIP scores by group."""
        shots = [shot for pair in pairs for shot in pair]
        verdicts = {s.id: seen for s in shots if (seen := self.seen[s.side].labels.get(s.row.key))}
        version = f"canvas/{self.name}"
        measured = [*canvas(self.task, shots, verdicts), *accuracies(self.task, shots, verdicts)] if verdicts else []
        lacking = tuple(shot.id for shot in shots if not self._was_read(shot))
        hashes = {s.id: "" if s.id in lacking else self.seen[s.side].hashes[s.path] for s in shots}
        attacked = figures_under_attack(read_attacks(folder, self.protocol.form.attack))
        figures = [*attacked, *(replace(figure, version=version) for figure in measured), *self._clip(shots)]
        return Scores(tuple(figures), verdicts, lacking, version, hashes)

    @property
    def name(self) -> str:
        """Who judges and in which version, which stands beside the numbers."""
        clip, names = self.given.paths.get("clip"), []
        for form in self.protocol.form.detector:
            by_clip = form.name == "clip_zero_shot" and clip is not None
            names.append(f"clip-zero-shot {clip.name} v1" if by_clip and clip else f"{form.name} {form.version}")
        return " and ".join(names).replace("judge emoji-v1", "emoji-v1")

    def _was_read(self, shot: ScoredImage) -> bool:
        seen, key = self.seen[shot.side], shot.row.key
        return key in seen.vectors if self.eyes.towers else bool(seen.hashes.get(shot.path))

    def _clip(self, shots: Sequence[ScoredImage]) -> list[Figure]:
        if self.eyes.towers is None:
            return []
        vectors = {s.id: found[key] for s in shots if (key := s.row.key) in (found := self.seen[s.side].vectors)}
        own = self.given.judge is not None and "clip" not in self.given.paths
        name = "emoji-judge" if own else self.eyes.towers.folder.name
        return clip_scores(shots, vectors, self.eyes.towers, version=f"clip/{name}-x100-v1")


def _unmeasured(recipe: Pipeline, subject: Subject) -> Iterable[Reason]:
    """A reason for each bound that a recipe names and no question measures."""
    own = subject.task.domain
    asked = {"ira" if case.domain == own else "cra" for case in subject.cases if case.role == "kept"} | {"ua"}
    for name, bound in (recipe.gate.bounds if recipe.gate else {}).items():
        if name not in asked:
            yield Reason("too few images to tell", f"{name.upper()} is not measured, at least {bound:.0%} is asked")


def judging_of(run: Run) -> Judging:
    """Who judges a run's images: the model's own judge, else a CLIP that chooses among names of the kind.

    A CLIP that was given takes the place of the model's own judge. Raises ScoreFailed if there is none, BadProtocol.
    """
    model, task, named = run.model, run.task, run.recipe.verify.given
    paths = {name: Path(path) for name, path in named.items() if name != "clip"}
    if run.recipe.generate.prompts:
        by_clip = model.judge_folder is None or "clip" in named
    else:
        by_clip = any(form.name == "clip_zero_shot" for form in load_protocol(run.recipe.protocol).form.detector)
    if "clip" in named or (by_clip and model.judge_folder is None):
        paths["clip"] = find_clip(named.get("clip", ""))
    if "callable" in paths:
        registry.check("detectors", str(paths["callable"]))  # code, which no pipeline runs by itself
    given = Given(paths, model.judge_folder)
    protocol = with_more_eyes(protocol_of(run.recipe, task, by_clip=by_clip), task, given=given)
    return Judging(model, task, protocol, given, run.recipe.make_rows())


def protocol_of(recipe: Pipeline, task: Task, *, by_clip: bool) -> Protocol:
    """What a recipe asks for as a protocol: its own prompts or those of the protocol that it names, and its limits."""
    drawing = recipe.generate.drawing
    if not recipe.generate.prompts:
        protocol = load_protocol(recipe.protocol).drawn(drawing)
        own = {"gate": _limits(recipe, task, protocol.form), "attack": recipe.attack}
        name = protocol.name if recipe.attack == protocol.form.attack else f"{protocol.name} with attacks"
        return replace(protocol, name=name, form=protocol.form.model_copy(update=own))
    form = ProtocolForm(
        version="1",
        description=recipe.description,
        source="the run's own prompts",
        prompts=tuple(_parts(recipe, task, by_clip=by_clip)),
        seeds=recipe.generate.seeds or (0,),
        sampler=DrawingForm(**drawing),
        attack=recipe.attack,
        detector=(
            DetectorForm(
                name="clip_zero_shot",
                version="local",
                options={"template": TEMPLATES[task.targets[0].kind], "others": list(choices(task))},
            )
            if by_clip
            else DetectorForm(name="judge", version="emoji-v1"),
        ),
    )
    return Protocol(f"prompts of {recipe.name}", form.model_copy(update={"gate": _limits(recipe, task, form)}))


def _parts(recipe: Pipeline, task: Task, *, by_clip: bool) -> Iterable[PartForm]:
    """Three questions to each selection of prompts: its targets, others of their kind, and what else they name."""
    other = CROSS[task.domain]
    for one in recipe.generate.prompts:
        own: dict[str, Any] = {
            "set": one.name,
            "where": one.where or recipe.generate.where,
            "seeds": one.seeds or recipe.generate.seeds,
            "columns": one.labels,
            "optional": True,
        }
        yield PartForm(role="erased", aspect=GONE, of="targets", **own)
        yield PartForm(role="kept", aspect=KIN, of="others", **own)
        if not by_clip:  # which is asked to choose among names of one kind
            yield PartForm(role="kept", aspect=f"the {other}s", see="cross", **own)


def _limits(recipe: Pipeline, task: Task, form: ProtocolForm) -> LimitsForm:
    """The protocol's limits, with the recipe's in their place: UA's, IRA's and, of the other domain, CRA's."""
    bounds, found = recipe.gate.bounds if recipe.gate else {}, dict[str, float]()
    for part in form.prompts:
        if part.role == "kept":
            seen = {"task": task.domain, "cross": CROSS[task.domain]}.get(part.see, part.see)
            name = "ira" if seen == task.domain else "cra"
            if name in bounds:
                found[part.aspect] = min(bounds[name], found.get(part.aspect, 1.0))
    gone = {"gone": bounds["ua"]} if "ua" in bounds else {}
    return form.gate.model_copy(update={**gone, "by_aspect": {**form.gate.by_aspect, **found}})
