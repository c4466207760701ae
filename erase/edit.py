"""The result of every method: a small value that is applied, undone, scaled, added, saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from erase.errors import BadEdit, ModelMismatch
from erase.files import content_hash, write_atomically
from erase.models import Model, fingerprint_of, parameters_of
from erase.models._state import check_plain, check_unquantised
from erase.models._weights import content_digest, is_finite, refuse_pickle
from erase.task import Task

METADATA_KEY = "erase.edit"  # one key: safetensors writes several in no fixed order


@dataclass(frozen=True)
class TextMap:
    """`M = I + up @ down` on the prompt's states, written into weights as `W' = W M`.

    `up` is [width, rank], `down` [rank, width]; `sites` are the names of the weights that take it.
    """

    up: Tensor
    down: Tensor
    sites: tuple[str, ...]

    @property
    def rank(self) -> int:
        return int(self.up.shape[1])

    def matrix(self) -> Tensor:
        """`M`, [width, width] float64."""
        return torch.eye(len(self.up), dtype=torch.float64) + self.up.double() @ self.down.double()

    def delta(self, weight: Tensor) -> Tensor:
        """What a site's weight [rows, columns] changes by, in float64; its first `width` columns read the states.

        Weights of half precision are multiplied in float32.
        """
        return torch.nn.functional.pad(self._change(weight).double(), (0, weight.shape[1] - len(self.up)))

    def add_delta(self, total: Tensor, weight: Tensor) -> None:
        """Adds to a float64 total what a site's weight changes by."""
        total[:, : len(self.up)] += self._change(weight)

    def _change(self, weight: Tensor) -> Tensor:
        kind = torch.float32 if weight.element_size() == 2 else torch.float64
        change = weight[:, : len(self.up)].to(kind)
        for factor in self._factors(kind):
            change = change @ factor
        return change

    def _factors(self, kind: torch.dtype) -> tuple[Tensor, ...]:
        """What a weight is multiplied with, one after the other: one product where that is fewer operations."""
        return (self._whole.to(kind),) if 2 * self.rank > len(self.up) else (self.up.to(kind), self.down.to(kind))

    @cached_property
    def _whole(self) -> Tensor:
        """M - I, [width, width] float64."""
        return self.up.double() @ self.down.double()


@dataclass(frozen=True)
class LowRank:
    """`up @ down`, added to one weight in that weight's shape.

    `up` is [rows, rank], `down` [rank, columns], where a convolution's columns are its inputs and places together.
    """

    up: Tensor
    down: Tensor
    site: str

    def delta(self, weight: Tensor) -> Tensor:
        """What the site's weight changes by, in float64."""
        return (self.up.double() @ self.down.double()).view(weight.shape)


@dataclass(frozen=True)
class EditInfo:
    """Where an edit comes from: enough to make it again, and to refuse it on another model.

    `record`: what the method saw while it made the edit, by its own words; no names of targets.
    `beyond`: hashes of the base's own values of what is changed beyond the weights that its fingerprint holds, by name.
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


def describe(method: Any, model: Model, task: Task) -> EditInfo:
    """What an edit says of itself: method and options, task, base model, the libraries' versions."""
    plain = json.loads(json.dumps({"options": asdict(method), "task": asdict(task)}))
    versions = {name: version(name) for name in ("erase", "torch", "transformers", "diffusers")}
    name = type(method).__module__.rpartition(".")[2]
    return EditInfo(name, plain["options"], plain["task"], model.family, model.fingerprint, versions=versions)


@dataclass(frozen=True)
class Edit:
    """Changes to a model's weights: text maps for what is one matrix, `deltas` and `low_rank` for what is not.

    `guidance`: no weight is changed; the method acts while sampling, as `info` says, and no export can hold it.
    `deltas` maps a tensor's name, component in front, to what is added to it. All tensors are float32; sums are
    formed in float64 and cast to the weight's own dtype.
    """

    info: EditInfo
    text_maps: tuple[TextMap, ...] = ()
    deltas: Mapping[str, Tensor] = field(default_factory=dict)
    low_rank: tuple[LowRank, ...] = ()
    guidance: bool = False

    @cached_property
    def content(self) -> str:
        """Identity: a hash of what the edit does and to which base, not of who made it when."""
        what: list[Any] = [content_digest(self._named()), [list(m.sites) for m in self.text_maps]]
        if self.guidance:
            what += [self.info.method, self.info.options, self.info.task, self.info.strength]
        return content_hash([self.info.base, *what])

    @property
    def gated(self) -> bool:
        """Whether each prompt sets its strength while images are made here; as weights it is at full strength."""
        return bool(self.low_rank) and self.info.options.get("gate") is True

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
        """The edit at a strength: 0 changes nothing, 1 is the edit itself, 2 goes twice as far, -1 the other way."""
        maps = tuple(replace(text_map, up=text_map.up * strength) for text_map in self.text_maps)
        deltas = {name: delta * strength for name, delta in self.deltas.items()}
        low_rank = tuple(replace(one, up=one.up * strength) for one in self.low_rank)
        info = replace(self.info, strength=self.info.strength * strength)
        return Edit(info, maps, deltas, low_rank, self.guidance)

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
            deltas[name] = deltas[name] + delta if name in deltas else delta
        parts = (asdict(self.info), asdict(other.info))
        beyond = {**self.info.beyond, **other.info.beyond}
        info = EditInfo("sum", {}, {}, self.info.family, self.info.base, parts=parts, beyond=beyond)
        return Edit(info, self.text_maps + other.text_maps, deltas, self.low_rank + other.low_rank)

    def changed_tensor(self, name: str, value: Tensor) -> Tensor:
        """The new value of a tensor, in its own dtype; raises BadWeights if it is quantised, BadEdit if not finite."""
        check_unquantised(name, value)
        total = value.to(torch.float64, copy=True)
        for text_map in self.text_maps:
            if name in text_map.sites:
                text_map.add_delta(total, value)
        if name in self.deltas:
            total = total + self.deltas[name].double()
        for one in self.low_rank:
            if one.site == name:
                total = total + one.delta(value)
        return _finite(name, total.to(value.dtype))

    def changed(self, model: Model) -> Iterator[tuple[str, Tensor]]:
        """Every tensor it changes with its new value, one at a time. Raises ModelMismatch, BadEdit."""
        self.check(model)
        for name in self.touches:
            yield name, self.changed_tensor(name, model.weight(name))

    def check(self, model: Model) -> None:
        """Raises ModelMismatch if the edit was made for another model, BadEdit if it changes no weight."""
        self.check_base(model.fingerprint)
        self.check_weights()
        self.check_beyond(model.weight)

    def check_base(self, fingerprint: str) -> None:
        """Raises ModelMismatch if the edit was made for another model."""
        if fingerprint != self.info.base:
            raise ModelMismatch(
                f"the edit was made for the base model {self.info.base[:12]}, this one is {fingerprint[:12]} "
                "(another model, an edited one, or another precision); use the model that the edit was made on."
            )

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

        Raises ModelMismatch unless `force`, BadEdit, BadModel for fused layers or a loaded LoRA, BadWeights.
        """
        self.check_weights()
        check_plain(pipe)
        if not force:
            self.check_base(fingerprint_of(pipe))
        named = parameters_of(pipe)
        missing = [name for name in self.touches if name not in named]
        if missing:
            raise ModelMismatch(f"the edit changes {missing[0]}, which this model does not have.")
        if not force:
            self.check_beyond(lambda name: named[name].data)
        changed = {}
        for name in self.touches:
            changed[name] = self.changed_tensor(name, named[name].data.cpu())
        before = {name: named[name].data.clone() for name in changed}
        for name, value in changed.items():
            named[name].data.copy_(value)
        return Applied(named, before)

    def save(self, path: Path | str) -> None:
        """Writes one safetensors file; the same edit gives the same bytes."""
        sites = [text_map.sites for text_map in self.text_maps]
        info = json.dumps(asdict(self.info) | {"sites": sites, "guidance": self.guidance}, sort_keys=True)
        write_atomically(Path(path), save(dict(self._named()), metadata={METADATA_KEY: info}))

    @staticmethod
    def load(path: Path | str) -> Edit:
        """Reads an edit from its file; raises BadEdit, PickleRefused."""
        path = Path(path)
        refuse_pickle(path)
        if not path.is_file():
            raise BadEdit(f"{path} does not exist; expected an edit that `erase edit` wrote.")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in list(file.keys())}
        except (SafetensorError, OSError) as error:
            raise BadEdit(f"{path} is corrupt or truncated ({error}); make the edit anew.") from error
        if METADATA_KEY not in metadata:
            raise BadEdit(
                f"{path} is no edit: its metadata lacks {METADATA_KEY}; expected a file that `erase edit` wrote."
            )
        try:
            return _from_file(json.loads(metadata[METADATA_KEY]), tensors)
        except (ValueError, KeyError, TypeError) as error:
            raise BadEdit(f"{path} is damaged ({type(error).__name__}: {error}); make the edit anew.") from error

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        for number, text_map in enumerate(self.text_maps):
            yield f"text_map.{number}.up", text_map.up.contiguous()
            yield f"text_map.{number}.down", text_map.down.contiguous()
        for name in sorted(self.deltas):
            yield f"delta.{name}", self.deltas[name].contiguous()
        for number, one in enumerate(self.low_rank):
            yield f"low_rank.{number}.up.{one.site}", one.up.contiguous()
            yield f"low_rank.{number}.down.{one.site}", one.down.contiguous()


class Applied:
    """Weights that an edit has changed, and what they were."""

    def __init__(self, named: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> None:
        self._named, self._before = named, dict(before)

    def undo(self) -> None:
        """Puts the old weights back, bit for bit; a second call does nothing."""
        for name, value in self._before.items():
            self._named[name].data.copy_(value)
        self._before = {}

    def __enter__(self) -> Applied:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


def _finite(name: str, value: Tensor) -> Tensor:
    if not is_finite(value):
        raise BadEdit(f"the edit makes {name} NaN or infinite; try a smaller strength or a larger lamb.")
    return value


def _from_file(info: dict[str, Any], tensors: dict[str, Tensor]) -> Edit:
    sites, guidance = info.pop("sites"), info.pop("guidance", False)
    maps = tuple(
        TextMap(tensors[f"text_map.{number}.up"], tensors[f"text_map.{number}.down"], tuple(names))
        for number, names in enumerate(sites)
    )
    deltas = {key.removeprefix("delta."): value for key, value in tensors.items() if key.startswith("delta.")}
    ups = [key.split(".", 3) for key in tensors if key.startswith("low_rank.") and key.split(".")[2] == "up"]
    low_rank = tuple(
        LowRank(tensors[f"low_rank.{number}.up.{site}"], tensors[f"low_rank.{number}.down.{site}"], site)
        for _, number, _, site in sorted(ups, key=lambda parts: int(parts[1]))
    )
    return Edit(EditInfo(**info | {"parts": tuple(info["parts"])}), maps, deltas, low_rank, guidance)
