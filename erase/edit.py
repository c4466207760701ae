"""The result of every method: a small value that is applied, undone, scaled, added, saved and loaded."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from erase.changes import Applied, Gate, LowRank, TextMap
from erase.edit_file import METADATA_KEY, apart, read_contents
from erase.effect import Effect
from erase.errors import BadEdit, BadOption, ModelMismatch
from erase.files import content_hash, write_atomically
from erase.models import Model, fingerprint_of, identity_of, parameters_of
from erase.models.precision import HALVES, Rounding, find_rounding, rounded_fingerprints
from erase.models.state import check_plain, check_unquantised
from erase.models.storage.weights import content_digest, is_finite
from erase.registry import name_of
from erase.task import Task

_log = logging.getLogger(__name__)
__all__ = ["Applied", "Edit", "EditInfo", "Gate", "LowRank", "TextMap", "check_strength", "describe", "fingerprint_of"]


@dataclass(frozen=True)
class EditInfo:
    """Where an edit comes from: enough to make it again, and to refuse it on another model.

    `record`: what the method saw while it made the edit, by its own words; no names of targets.
    `effect`: how far it moves its targets and what must stay, where that was looked at.
    `beyond`: hashes of the base's own values of what is changed beyond the weights that its fingerprint holds, by name.
    `loras`: what was fused into the base's weights below it: file, sha256, scale.
    `rounded`: the base's fingerprints in float16 and bfloat16, by which its rounded copies are recognised.
    """

    method: str
    options: Mapping[str, Any]
    task: Mapping[str, Any]
    family: str
    base: str
    strength: float = 1.0
    versions: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Mapping[str, Any], ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    beyond: Mapping[str, str] = field(default_factory=dict)
    effect: Effect | None = None
    rounded: Mapping[str, str] = field(default_factory=dict)
    loras: tuple[Mapping[str, Any], ...] = ()


def describe(method: Any, model: Model, task: Task) -> EditInfo:
    """What an edit says of itself: method and options, task, base model, the libraries' versions."""
    plain = json.loads(json.dumps({"options": asdict(method), "task": asdict(task)}))
    versions = {name: version(name) for name in ("erase", "torch", "transformers", "diffusers")}
    return EditInfo(
        method=name_of(method),
        options=plain["options"],
        task=plain["task"],
        family=model.family,
        base=model.fingerprint,
        versions=versions,
        rounded=rounded_fingerprints(model),
        loras=model.loras,
    )


@dataclass(frozen=True, repr=False)
class Edit:
    """Changes to a model's weights: text maps for what is one matrix, `deltas` and `low_rank` for what is not.

    `guidance`: no weight is changed; the method acts while sampling, as `info` says, and no export can hold it.
    `modules`: what such a method puts between the layers then, by name.
    `deltas` maps a tensor's name, component in front, to what is added to it. All tensors are float32; sums are
    formed in float64 and cast to the weight's own dtype.
    """

    info: EditInfo
    text_maps: tuple[TextMap, ...] = ()
    deltas: Mapping[str, Tensor] = field(default_factory=dict)
    low_rank: tuple[LowRank, ...] = ()
    guidance: bool = False
    modules: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        targets = ", ".join(str(one.get("name")) for one in self.info.task.get("targets", ()))
        what = "acts while sampling" if self.guidance else f"{len(self.touches)} weights by rank {self.rank}"
        return f"Edit({targets or 'of no named target'}; {self.info.method}, {what}, base {self.info.base[:12]})"

    @cached_property
    def content(self) -> str:
        """Identity: a hash of what the edit does and to which base, not of who made it when."""
        what: list[Any] = [content_digest(self._named()), [list(m.sites) for m in self.text_maps]]
        if self.gated:
            what += [[one.gate and asdict(one.gate) for one in self.low_rank]]
        if self.guidance:
            what += [self.info.method, self.info.options, self.info.task, self.info.strength]
        return content_hash([self.info.base, *what])

    @property
    def gated(self) -> bool:
        """Whether prompts set the strength of some of it while images are made here; as weights all is at full."""
        return bool(self.gates)

    @property
    def gates(self) -> Mapping[Gate, tuple[LowRank, ...]]:
        """The low-rank changes behind each gate, in the edit's order."""
        found: dict[Gate, tuple[LowRank, ...]] = {}
        for one in self.low_rank:
            if one.gate is not None:
                found[one.gate] = (*found.get(one.gate, ()), one)
        return found

    @property
    def ungated(self) -> Edit:
        """What of the edit is the same for every prompt."""
        return replace(self, low_rank=tuple(one for one in self.low_rank if one.gate is None))

    @property
    def touches(self) -> tuple[str, ...]:
        """Names of the tensors that it changes, sorted."""
        mapped = {site for text_map in self.text_maps for site in text_map.sites}
        return tuple(sorted(mapped | set(self.deltas) | {one.site for one in self.low_rank}))

    @property
    def rank(self) -> int:
        """Largest rank by which text maps and low-rank changes together change a weight."""
        ranks = dict.fromkeys(self.touches, 0)
        for text_map in self.text_maps:
            for site in text_map.sites:
                ranks[site] += text_map.rank
        for one in self.low_rank:
            ranks[one.site] += int(one.up.shape[1])
        return max(ranks.values(), default=0)

    def scaled(self, strength: float) -> Edit:
        """The edit at a strength: 0 changes nothing, 1 is the edit itself, 2 goes twice as far, -1 the other way.

        Raises BadOption for a strength that is not finite, or at which the edit is not.
        """
        check_strength(strength)
        maps = tuple(replace(text_map, up=text_map.up * strength) for text_map in self.text_maps)
        deltas = {name: delta * strength for name, delta in self.deltas.items()}
        low_rank = tuple(replace(one, up=one.up * strength) for one in self.low_rank)
        effect = self.info.effect.scaled(strength) if self.info.effect else None
        info = replace(self.info, strength=self.info.strength * strength, effect=effect)
        scaled = Edit(info, maps, deltas, low_rank, self.guidance, self.modules)
        if not math.isfinite(info.strength) or not all(is_finite(value) for _, value in scaled._named()):
            raise BadOption(f"at strength {strength} the edit is NaN or infinite; give a smaller one.")
        return scaled

    def __add__(self, other: Edit) -> Edit:
        """Both edits together: the sum of what each adds to a weight. Raises ModelMismatch on different bases."""
        if self.info.base != other.info.base:
            raise ModelMismatch(
                f"edits of two base models cannot be added ({self.info.base[:12]} and {other.info.base[:12]}); "
                "make both on the same model."
            )
        self.check_weights()
        other.check_weights()
        deltas = dict(self.deltas)
        for name, delta in other.deltas.items():
            deltas[name] = _finite(name, _added(name, deltas[name], delta)) if name in deltas else delta
        parts = (asdict(self.info), asdict(other.info))
        beyond = {**self.info.beyond, **other.info.beyond}
        info = EditInfo("sum", {}, {}, self.info.family, self.info.base, parts=parts, beyond=beyond)
        return Edit(info, self.text_maps + other.text_maps, deltas, self.low_rank + other.low_rank)

    def changed_tensor(self, name: str, value: Tensor) -> Tensor:
        """The new value of a tensor, in its own dtype; raises BadWeights if it is quantised, BadEdit if not finite."""
        check_unquantised(name, value)
        total = self._add_change(name, value, value.to(torch.float64, copy=True))
        return _finite(name, total.to(value.dtype))

    def change(self, name: str, value: Tensor) -> Tensor:
        """What is added to a tensor, in float64; `value` is what it is without."""
        return self._add_change(name, value, torch.zeros_like(value, dtype=torch.float64))

    def _add_change(self, name: str, value: Tensor, total: Tensor) -> Tensor:
        for text_map in self.text_maps:
            if name in text_map.sites:
                text_map.add_delta(total, value)
        if name in self.deltas:
            total += self.deltas[name]
        for one in self.low_rank:
            if one.site == name:
                total += one.delta(value)
        return total

    def changed(self, model: Model) -> Iterator[tuple[str, Tensor]]:
        """Every tensor it changes with its new value, one at a time. Raises ModelMismatch, BadEdit."""
        self.check(model)
        for name in self.touches:
            yield name, self.changed_tensor(name, model.weight(name))

    def check(self, model: Model) -> None:
        """Raises ModelMismatch if the edit was made for another model, BadEdit if it changes no weight."""
        self.check_base(model.fingerprint)
        self.check_weights()
        self.check_fits(partial(_shape_in, model))
        self.check_beyond(model.weight)

    def check_base(self, fingerprint: str) -> None:
        """Raises ModelMismatch if the edit was made for another model."""
        if fingerprint != self.info.base:
            raise self._mismatch(fingerprint)

    def _mismatch(self, fingerprint: str) -> ModelMismatch:
        return ModelMismatch(
            f"the edit was made for the base model {self.info.base[:12]}, this one is {fingerprint[:12]} "
            "(another model, or an edited one); use the model that the edit was made on, in whichever precision."
        )

    def rebased(self, model: Model) -> Edit:
        """The edit for another precision of the model that it was made on, which is told; itself on its own base.

        It adds to the weights there by the same maps and differences. Raises ModelMismatch.
        """
        if (own := model.fingerprint) == self.info.base:
            return self
        how = self._rounding(own, model.identity(), model.weight)
        record = {**self.info.record, "rebased": {"from": self.info.base, "content": self.content, "how": str(how)}}
        beyond = {name: content_digest([(name, model.weight(name))]) for name in self.info.beyond}
        return replace(self, info=replace(self.info, base=own, beyond=beyond, record=record, rounded={}))

    def _rounding(self, own: str, identity: Iterator[tuple[str, Tensor]], weight: Callable[[str], Tensor]) -> Rounding:
        """How a model differs from the base in precision alone, told; raises ModelMismatch if it is another model."""
        found = find_rounding(self.info.base, self.info.rounded, own, identity=identity)
        if found is None:
            raise self._mismatch(own)
        if found.finer:  # what a rounded one holds beyond its fingerprint cannot be compared
            self.check_beyond(lambda name: weight(name).to(HALVES[found.dtype]))
        _log.warning("%s: what it adds to the weights is rounded otherwise", found)
        return found

    def check_fits(self, shape_of: Callable[[str], Sequence[int] | None]) -> None:
        """Raises ModelMismatch if it changes a tensor that a model does not have, BadEdit one of another shape."""
        for name in self.touches:
            shape = shape_of(name)
            if shape is None:
                raise ModelMismatch(f"the edit changes {name}, which this model does not have.")
            size = (shape[0], math.prod(shape[1:])) if len(shape) > 1 else None
            maps = [one for one in self.text_maps if name in one.sites]
            fits = [len(shape) == 2 and len(one.up) <= shape[1] for one in maps]
            fits += [(len(one.up), one.down.shape[1]) == size for one in self.low_rank if one.site == name]
            if not all(fits) or (name in self.deltas and tuple(self.deltas[name].shape) != tuple(shape)):
                raise BadEdit(f"the edit's change of {name} does not fit its shape {list(shape)}; re-create the edit.")

    def check_beyond(self, weight: Callable[[str], Tensor]) -> None:
        """Raises ModelMismatch if a weight that the fingerprint does not hold is not the base's own."""
        for name, digest in self.info.beyond.items():
            if content_digest([(name, weight(name))]) != digest:
                raise ModelMismatch(
                    f"{name} is not as in the base model that the edit was made for: the edit, or another one, has "
                    "changed it already; use the model that the edit was made on."
                )

    def check_weights(self) -> None:
        """Raises BadEdit if the edit acts while sampling and changes no weight."""
        if self.guidance:
            raise BadEdit(
                f"{self.info.method} acts while sampling and changes no weight, so it cannot be exported or applied as "
                "weights; generate with its edit, or take a method that changes weights."
            )

    def apply(self, pipe: Any, *, force: bool = False) -> Applied:
        """Weights of a loaded pipeline changed in place; `.undo()` or the end of a `with` block restores every bit.

        A pipeline in another precision than the edit's base is told. Raises ModelMismatch unless `force`, BadEdit,
        BadModel for fused layers or a loaded LoRA, BadWeights.
        """
        self.check_weights()
        check_plain(pipe)
        named = parameters_of(pipe)
        self.check_fits(lambda name: named[name].shape if name in named else None)
        if not force and (own := fingerprint_of(pipe)) == self.info.base:
            self.check_beyond(lambda name: named[name].data)
        elif not force:
            self._rounding(own, identity_of(pipe), lambda name: named[name].data)
        changed = {name: self.changed_tensor(name, named[name].data.cpu()) for name in self.touches}
        before = {name: named[name].data.clone() for name in changed}
        for name, value in changed.items():
            named[name].data.copy_(value)
        return Applied(named, before)

    def save(self, path: Path | str) -> None:
        """Writes one safetensors file; the same edit gives the same bytes."""
        said = asdict(self.info) | {"sites": [text_map.sites for text_map in self.text_maps], "guidance": self.guidance}
        said["gates"] = [
            asdict(gate) | {"numbers": [number for number, one in enumerate(self.low_rank) if one.gate == gate]}
            for gate in self.gates
        ]
        metadata = {METADATA_KEY: json.dumps(said, sort_keys=True)}
        write_atomically(Path(path), save(apart(self._named()), metadata=metadata))

    @staticmethod
    def load(path: Path | str) -> Edit:
        """Reads an edit from its file; raises BadEdit for a file that is none or is damaged, PickleRefused."""
        contents = read_contents(Path(path))
        effect = contents.info.get("effect")
        several = {name: tuple(contents.info.get(name, ())) for name in ("parts", "loras")}
        info = EditInfo(**{**contents.info, **several, "effect": Effect(**effect) if effect else None})
        return Edit(info, contents.text_maps, contents.deltas, contents.low_rank, contents.guidance, contents.modules)

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        for number, text_map in enumerate(self.text_maps):
            yield f"text_map.{number}.up", text_map.up.contiguous()
            yield f"text_map.{number}.down", text_map.down.contiguous()
        for kind, held in (("delta", self.deltas), ("module", self.modules)):
            for name in sorted(held):
                yield f"{kind}.{name}", held[name].contiguous()
        for number, one in enumerate(self.low_rank):
            yield f"low_rank.{number}.up.{one.site}", one.up.contiguous()
            yield f"low_rank.{number}.down.{one.site}", one.down.contiguous()


def _shape_in(model: Model, name: str) -> Sequence[int] | None:
    """A tensor's shape in a model; None if it has none of that name."""
    part, _, key = name.partition(".")
    weights = model.weights(part) if part in (model.backbone, *model.text_components) else None
    return weights.shape(key) if weights is not None and weights.has(key) else None


def check_strength(strength: float) -> None:
    """Raises BadOption for a strength that is not finite as the edits' own float32."""
    if not math.isfinite(torch.tensor(strength, dtype=torch.float32).item()):
        raise BadOption(f"strength is {strength}; expected a finite number, such as 1.")


def _added(name: str, one: Tensor, other: Tensor) -> Tensor:
    if one.shape != other.shape:
        raise BadEdit(
            f"the edits change {name} in the shapes {list(one.shape)} and {list(other.shape)}; re-create one."
        )
    return one + other


def _finite(name: str, value: Tensor) -> Tensor:
    if not is_finite(value):
        raise BadEdit(f"the edit makes {name} NaN or infinite; try a smaller strength or a larger lamb.")
    return value
