"""Pipeline files: a whole run in one YAML, every word in it checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from erase import registry
from erase.config import documents
from erase.config.documents import Form
from erase.config.drawing import LATER, Attacks, DrawingForm
from erase.config.keeps import KeepsForm, kept_of_set, named, several
from erase.config.prompts import PromptSet, Row, check_asked, each_once, load_prompts, paired
from erase.errors import BadPipeline, RunConflict
from erase.files import content_hash, sha256_of
from erase.task import KINDS, Kind, Target, Task

if TYPE_CHECKING:
    from erase.sampling.sampler import Sampler

DEFAULT = "erase-style"
Score = Literal["clip", "clip_accuracy", "judge"]  # as older pipelines name what is measured
Share = Annotated[float, Field(ge=0, le=1)]
Words = tuple[str, ...]


def _keeps(value: object) -> object:
    return {"words": value} if isinstance(value, list | tuple) else value


class TargetForm(Form):
    """One concept to erase; a bare word is its name."""

    name: str
    anchor: str = ""
    synonyms: Words = ()
    prompts: Words = ()
    pair: dict[str, str] = Field(default_factory=dict)
    article: str = ""


class TaskForm(Form):
    """What to erase, what it becomes, what must stay; `prompts` serve every target that has none of its own."""

    kind: Kind
    targets: tuple[Annotated[TargetForm, BeforeValidator(named)], ...]
    prompts: Words = ()
    keeps: Annotated[KeepsForm, BeforeValidator(_keeps)] = KeepsForm()


class EditForm(Form):
    """Which method, how strong, with which of its options; our own closed form where none is named.

    `sha256`: of the method's file where that is a path, written by a run and checked where given.
    """

    method: str = registry.DEFAULT_METHOD
    strength: float = 1.0
    options: dict[str, Any] = Field(default_factory=dict)
    sha256: str = ""


class SelectionForm(Form):
    """Some prompts of a set, with some seeds; a bare word is the set's name."""

    name: str
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = ()
    where: dict[str, Words] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    sha256: str = ""


class GenerateForm(DrawingForm):
    """Which images to make; `seeds` and `where` serve every selection that has none of its own.

    Without `prompts`, those that the run's protocol asks for.
    """

    prompts: Annotated[tuple[Annotated[SelectionForm, BeforeValidator(named)], ...], BeforeValidator(several)] = ()
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = ()
    where: dict[str, Words] = Field(default_factory=dict)
    attention: Literal["sdpa", "xformers"] = "sdpa"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"


class VerifyForm(Form):
    """By which protocol and with what a run is judged.

    `protocol`: one of `erase list protocols` or a .yaml, which gives the prompts where `generate` names none; by the
    model and the targets' kind where left out. `with`: what the judge needs, such as `{clip: FOLDER}` for a model that
    comes without one.
    """

    protocol: str = ""
    given: dict[str, str] = Field(default_factory=dict, alias="with")


class GridForm(Form):
    """How the before/after picture is laid out."""

    columns: Annotated[int, Field(ge=1, le=100)] = 8


class GateForm(Form):
    """Lower bounds on figures of the after side: 80 % where left out, and none of a figure that nothing measures.

    A figure whose interval begins below its bound fails the run.
    """

    ua: Share | None = None
    ira: Share | None = None
    cra: Share | None = None

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds that are set."""
        return {key: value for key, value in self.model_dump().items() if value is not None}


class Pipeline(Form):
    """A whole run, from the edit to its export; `hash` is written by a run and checked where given.

    `score` is a key of older pipelines, of which an empty list still says that the images are not judged.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]
    description: str = ""
    model: str
    loras: Words = ()  # below the edit, each FILE or FILE=SCALE
    task: TaskForm
    edit: EditForm = EditForm()
    generate: GenerateForm = GenerateForm()
    verify: VerifyForm = VerifyForm()
    attack: Attacks = ()
    score: tuple[Score, ...] = get_args(Score)
    grid: GridForm | None = GridForm()
    gate: GateForm | None = GateForm()
    export: Words = ("patch", "folder")
    export_options: dict[str, dict[str, Any]] = Field(default_factory=dict)  # by the export's name
    hash: str = ""

    @property
    def identity(self) -> str:
        """Hash of all that the results depend on: no names, no number of images at a time."""
        content = self.model_dump(
            mode="json", exclude={"hash": True, "name": True, "description": True, "generate": {"batch"}}
        )
        later = [("generate", key, default) for key, default in {**LATER, "dtype": "auto"}.items()]
        for part, key, default in (("edit", "sha256", ""), *later):
            if key == "offload" or content[part][key] == default:  # as in recipes of before there was such a key
                del content[part][key]
        for key in ("export_options", "loras", "attack"):
            if not content[key]:
                del content[key]
        return content_hash(content)

    def make_task(self) -> Task:
        """The task; raises BadTask."""
        targets = tuple(_target(target, self.task) for target in self.task.targets)
        if self.generate.prompts and any(" " in target.name and not target.pair for target in targets):
            rows = self.make_rows()
            targets = tuple(paired(target, rows) for target in targets)
        kept = kept_of_set(self.task.keeps, targets)
        keeps, prompts = [*self.task.keeps.concepts, *kept.concepts], kept.prompts
        return Task(targets, keeps, prompts)

    def notes(self) -> tuple[str, ...]:
        """What a reader may not expect of the sets that it names, a line each."""
        sets = [_open_set(selection).notes for selection in self.generate.prompts]
        targets = tuple(_target(target, self.task) for target in self.task.targets)
        notes = [note for notes in (*sets, kept_of_set(self.task.keeps, targets).notes) for note in notes]
        if self.score and "score" in self.model_fields_set and not self.hash:
            notes.append(
                "`score` is no longer needed: a run is judged as `erase verify` judges, and leaves result.json"
            )
        return tuple(dict.fromkeys([*notes, *each_once(self._asked())[1]]))

    def make_rows(self) -> tuple[Row, ...]:
        """Every image to make, once each, in the file's order; with the labels of all that ask for it.

        Raises UnknownName, BadPrompts, RunConflict.
        """
        if not self.generate.prompts:
            from erase.evaluate.protocol import load_protocol
            from erase.evaluate.questions import rows_asked

            return rows_asked(load_protocol(self.protocol), self.make_task())
        return each_once(self._asked())[0]

    def _asked(self) -> list[Row]:
        return [
            row
            for selection in self.generate.prompts
            for row in _open_set(selection).rows(
                seeds=selection.seeds or self.generate.seeds, where=selection.where or self.generate.where
            )
        ]

    def make_sampler(self) -> Sampler:
        """The sampler's settings; raises BadOption."""
        from erase.sampling.sampler import Sampler

        chosen = self.generate
        return Sampler(**chosen.drawing, attention=chosen.attention)

    @property
    def protocol(self) -> str:
        """The protocol that asks, where `generate` names no prompts: the model's own, or that of the targets' kind."""
        if self.verify.protocol:
            return self.verify.protocol
        embedded = self.model in registry.known("models") or (registry.path_of(self.model) / "judge").is_dir()
        return "emoji" if embedded else f"any-{self.task.kind}"


def load_pipeline(name_or_path: str = DEFAULT, changes: Mapping[str, Any] | None = None) -> Pipeline:
    """The pipeline of a name or a .yaml, with other values at dotted keys; raises UnknownName, BadPipeline."""
    path = registry.find("pipelines", name_or_path, what="pipeline")
    return read_pipeline(path, changes)


def changed(pipeline: Pipeline, changes: Mapping[str, Any]) -> Pipeline:
    """The pipeline with other values at dotted keys; raises BadPipeline."""
    if not changes:
        return pipeline
    value = documents.overridden(pipeline.model_dump(mode="json", exclude_unset=True), changes, error=BadPipeline)
    return documents.check(value, Pipeline, source="the options", error=BadPipeline)


def read_pipeline(path: Path, changes: Mapping[str, Any] | None = None) -> Pipeline:
    """The pipeline in a file; raises BadPipeline, also where its own hash does not fit what it says."""
    value = documents.parse_yaml(documents.read_text(path, error=BadPipeline), source=str(path), error=BadPipeline)
    if changes:
        value = documents.overridden({**value, "hash": ""}, changes, error=BadPipeline)
    pipeline = documents.check(value, Pipeline, source=str(path), error=BadPipeline)
    if pipeline.hash and pipeline.hash != pipeline.identity:
        raise BadPipeline(
            f"{path} was changed after its hash was written; remove the line `hash: ...` to run what it says."
        )
    return pipeline


def resolve(pipeline: Pipeline) -> Pipeline:
    """The same run with every default, word and file of it spelled out, and its hash.

    Raises UnknownName, BadTask, BadPrompts, BadPipeline; computes nothing and imports no torch.
    """
    _check_names(pipeline)
    task = pipeline.make_task()
    check_asked(task, pipeline.make_rows())
    selections = tuple(_resolve_selection(selection, pipeline.generate) for selection in pipeline.generate.prompts)
    generate = pipeline.generate.model_copy(update={"prompts": selections, "seeds": (), "where": {}})
    targets = tuple(
        TargetForm(**{key: value for key, value in asdict(one).items() if key != "kind"}) for one in task.targets
    )
    named = {kind: tuple(keep.name for keep in task.keeps if keep.kind == kind) for kind in KINDS}
    keeps = KeepsForm(**named, prompts=task.prompts)
    task_form = TaskForm(kind=pipeline.task.kind, targets=targets, keeps=keeps)
    edit, attack = _resolve_method(pipeline.edit), pipeline.attack
    if not pipeline.generate.prompts:  # the protocol's own settings and attacks, where the pipeline names none
        from erase.evaluate.protocol import load_protocol

        chosen = pipeline.generate.model_fields_set
        asked = load_protocol(pipeline.protocol).form
        own = asked.sampler.drawing.items()
        generate = generate.model_copy(update={name: value for name, value in own if name not in chosen})
        attack = attack or asked.attack
    given = {name: _absolute("models", path) for name, path in pipeline.verify.given.items()}
    verify = VerifyForm(protocol="" if pipeline.generate.prompts else pipeline.protocol, **{"with": given})
    changes = {
        "model": _absolute("models", pipeline.model),
        "loras": tuple(str(registry.path_of(one).resolve()) for one in pipeline.loras),
        "task": task_form,
        "edit": edit,
        "generate": generate,
        "verify": verify,
        "attack": attack,
    }
    resolved = pipeline.model_copy(update=changes)
    return resolved.model_copy(update={"hash": resolved.identity})


def _check_names(pipeline: Pipeline) -> None:
    """Raises UnknownName for a word that stands for no file, BadPipeline for a gate that nothing measures."""
    attacks = tuple(one.name for one in pipeline.attack)
    given = {"methods": (pipeline.edit.method,), "exports": pipeline.export, "attacks": attacks}
    for kind, words in given.items():
        for word in words:
            registry.check(kind, word)
    for name in pipeline.export_options:
        if name not in pipeline.export:
            raise BadPipeline(f'export_options names "{name}", which is not exported; add it to the list `export`.')
    for model in filter(None, registry.file_and_parts(pipeline.model)):
        if not (model in registry.known("models") or registry.is_hub_id(model) or registry.path_of(model).exists()):
            raise registry.unknown("models", model, path_too=True)
    if not pipeline.score and (pipeline.attack or (pipeline.gate and pipeline.gate.bounds)):
        raise BadPipeline("a gate needs images that are judged, and so do attacks; drop `score: []`, or these.")


def _target(form: TargetForm, task: TaskForm) -> Target:
    prompts = form.prompts or task.prompts
    return Target(form.name, task.kind, form.anchor, form.synonyms, prompts, form.pair, form.article)


def _open_set(selection: SelectionForm) -> PromptSet:
    """The selection's prompt set; raises RunConflict if it has changed since the recipe was resolved."""
    prompts = load_prompts(selection.name, labels=selection.labels)
    if selection.sha256 and selection.sha256 != prompts.sha256:
        raise RunConflict(
            f"prompt set {selection.name} has changed since this recipe was made "
            f"({selection.sha256[:12]} then, {prompts.sha256[:12]} now); start a run in another folder."
        )
    return prompts


def _resolve_selection(selection: SelectionForm, generate: GenerateForm) -> SelectionForm:
    return SelectionForm(
        name=_absolute("prompts", selection.name),
        seeds=selection.seeds or generate.seeds,
        where=selection.where or generate.where,
        labels=selection.labels,
        sha256=_open_set(selection).sha256,
    )


def _resolve_method(form: EditForm) -> EditForm:
    """The edit with its method's own file spelled out; raises RunConflict if that has changed since."""
    if not registry.is_path(form.method):
        return form
    path = registry.path_of(form.method).resolve()
    found = sha256_of(path)
    if form.sha256 not in ("", found):
        raise RunConflict(f"{path} has changed since this recipe was made; start a run in another folder.")
    return form.model_copy(update={"method": str(path), "sha256": found})


def _absolute(kind: str, given: str) -> str:
    """A name as it is, a path such that it is found from every folder."""
    if (pair := registry.file_and_parts(given))[1]:
        return "@".join(_absolute(kind, one) for one in pair)
    is_name = given in registry.known(kind) or (kind == "models" and registry.is_hub_id(given))
    return given if is_name else str(registry.path_of(given).resolve())
