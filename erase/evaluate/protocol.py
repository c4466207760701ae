"""Protocols: named, versioned files that say what a number means: prompts, seeds, sampler, detector policy, limits.

A protocol's name is its file: `canvas/sauron-agg` is `protocols/canvas/sauron-agg.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from erase import registry
from erase.config import documents
from erase.config.documents import Form
from erase.config.drawing import LATER, Attacks, DrawingForm
from erase.config.keeps import several
from erase.config.prompts import Row
from erase.errors import BadProtocol
from erase.evaluate.detections import Policy, Unit
from erase.evaluate.gate import Limits, Role
from erase.files import content_hash
from erase.sampling.sampler import Sampler

Words = tuple[str, ...]
Aggregation = Literal["pooled", "by-concept", "canvas-sauron", "canvas-with-seed", "erasebench", "faces", "counts"]
Scorer = Literal["clip", "cmmd", "kid", "lpips"]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Case:
    """One question to a pair of images: whether the concept that its prompt names is seen.

    `domain` is the kind of concept for detectors that see several; `caption` is what the image is compared with where a
    score reads text, the prompt itself unless the protocol says otherwise; `source` the prompt set that it comes from.
    """

    row: Row
    role: Role
    aspect: str
    concept: str
    domain: str = ""
    caption: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    source: str = ""


class PartForm(Form):
    """Some prompts, and what they are to the task.

    Prompts come from a `set` (of this project, or declared: its file is then given by the user), of whose rows `of`
    keeps those that name a target, or another concept of its kind, or all; or from `templates` whose slot {word} takes
    the words that `fill` names: `neighbours` are the keeps of the targets' kind and, where these are few, names of
    the kind that the package carries; `nothing` are prompts without a word of the task.
    `see` is the domain of the concept that the detector looks for; `columns` the column of each domain's labels in a
    set of columns that calls them otherwise.
    """

    role: Role
    aspect: str
    set: str = ""
    of: Literal["targets", "others", "all"] = "all"
    where: dict[str, Words] = Field(default_factory=dict)
    templates: Words = ()
    captions: Words = ()
    axes: dict[str, Words] = Field(default_factory=dict)
    fill: Literal["names", "synonyms", "anchors", "keeps", "related", "neighbours", "nothing"] = "names"
    related: dict[str, Words] = Field(default_factory=dict)
    see: Literal["task", "cross", "style", "object", "identity", "prompt", "anything"] = "task"
    only: Literal["style", "object", "identity"] | None = None
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = ()
    limit: Annotated[int, Field(ge=1)] | None = None
    optional: bool = False
    columns: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> PartForm:
        if bool(self.set) == bool(self.templates):
            raise ValueError('a part has either "set" or "templates"')
        if self.captions and len(self.captions) != len(self.templates):
            raise ValueError('"captions" stand beside "templates", one for each')
        if bool(self.related) != (self.fill == "related"):
            raise ValueError('"related" and "fill: related" go together')
        return self


class DetectorForm(Form):
    """A detector, its version, and how its findings are counted; `options` go to the detector."""

    name: str
    version: str
    labels: Words = ()
    threshold: Share | None = None
    unit: Unit = "image"
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def policy(self) -> Policy:
        return Policy(self.name, self.version, self.labels, self.threshold, self.unit)


# One detector, or several of which any may fire.
Detectors = Annotated[tuple[DetectorForm, ...], BeforeValidator(several)]


class LimitsForm(Form):
    """What the gate asks for; see `erase.evaluate.gate.Limits`."""

    gone: Share = 0.8
    kept: Share = 0.8
    shown: Share = 0.5
    destroyed: Share = 0.5
    drop: Share = 0.1
    by_aspect: dict[str, Share] = Field(default_factory=dict)
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class ProtocolForm(Form):
    """The keys of a protocol's file."""

    version: str
    description: str
    source: str
    differs: str = ""
    prompts: tuple[PartForm, ...]
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = (0,)
    sampler: DrawingForm = DrawingForm()
    scorers: tuple[Scorer, ...] = ()
    detector: Detectors
    keeper: Detectors = ()
    aggregation: Aggregation = "pooled"
    gate: LimitsForm = LimitsForm()
    attack: Attacks = ()

    @model_validator(mode="after")
    def _fits(self) -> ProtocolForm:
        if not self.detector:
            raise ValueError("a protocol needs a detector")
        return self


@dataclass(frozen=True)
class Protocol:
    """A protocol and the name under which its numbers are printed."""

    name: str
    form: ProtocolForm

    @property
    def title(self) -> str:
        """Name and version: what stands beside every number."""
        return f"{self.name} v{self.form.version}"

    @property
    def sha256(self) -> str:
        """Hash of what the protocol says."""
        said = self.form.model_dump(mode="json", exclude={"description", "source", "differs"})
        drawn = said["sampler"].items()  # without keys at their defaults that older versions had not
        if said["sampler"]["batch"] == "auto":  # as it was before there was a choice; no number depends on it
            said["sampler"]["batch"] = 32
        said["sampler"] = {key: value for key, value in drawn if key not in LATER or value != LATER[key]}
        for one, key in (
            (said, "attack"),
            (said["gate"], "by_aspect"),
            *((part, "columns") for part in said["prompts"]),
        ):
            if not one[key]:  # as it was before there was such a key
                del one[key]
        return content_hash(said)

    @property
    def limits(self) -> Limits:
        return Limits(**self.form.gate.model_dump())

    @property
    def sampler(self) -> Sampler:
        """Raises BadOption."""
        return Sampler(**self.form.sampler.drawing)

    def drawn(self, settings: Mapping[str, Any]) -> Protocol:
        """The protocol with other settings of the sampler, which its hash then holds; raises BadOption."""
        sampler = self.form.sampler.model_copy(update=dict(settings))
        Sampler(**sampler.drawing)
        return replace(self, form=self.form.model_copy(update={"sampler": sampler}))

    def detectors(self, role: Role) -> tuple[DetectorForm, ...]:
        """Who looks at the images of a role: the keeper at what must stay, if there is one."""
        return self.form.keeper if role == "kept" and self.form.keeper else self.form.detector

    @property
    def sets(self) -> tuple[str, ...]:
        """Prompt sets that it asks from, once each."""
        return tuple(dict.fromkeys(part.set for part in self.form.prompts if part.set))

    @property
    def needs(self) -> tuple[str, ...]:
        """Declared prompt sets whose files the user has to give."""
        return tuple(name for name in self.sets if name in registry.known("declared"))

    def to_json(self) -> dict[str, Any]:
        """What a report says of the protocol."""
        policies = {"detector": self.form.detector, "keeper": self.form.keeper or self.form.detector}
        return {
            "name": self.name,
            "version": self.form.version,
            "sha256": self.sha256,
            "source": self.form.source,
            "policies": {role: [asdict(one.policy) for one in several] for role, several in policies.items()},
            "aggregation": self.form.aggregation,
            "limits": asdict(self.limits),
        }


def load_protocol(name_or_path: str) -> Protocol:
    """The protocol of a name or of a path to a .yaml; raises UnknownName, BadProtocol."""
    path = registry.find("protocols", name_or_path, what="protocol")
    name = name_or_path if name_or_path in registry.known("protocols") else path.stem
    text = documents.read_text(path, error=BadProtocol)
    value = documents.parse_yaml(text, source=str(path), error=BadProtocol)
    form = documents.check(value, ProtocolForm, source=str(path), error=BadProtocol)
    for detector in (*form.detector, *form.keeper):
        registry.check("detectors", detector.name)
    sets = [*registry.known("prompts"), *registry.known("declared")]
    for one in (part.set for part in form.prompts if part.set and part.set not in sets):
        if not registry.path_of(one).is_file():
            raise BadProtocol(f"{path}: {registry.nearest('prompt set', one, sets, path_too=True)}")
    return Protocol(name, form)
