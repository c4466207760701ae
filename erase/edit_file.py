"""What an edit's file holds: its description and its tensors, checked for types, shapes and values as they are read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from erase.changes import Gate, LowRank, TextMap
from erase.config import documents
from erase.config.documents import Form
from erase.errors import BadEdit
from erase.models.storage.weights import is_finite, refuse_pickle

METADATA_KEY = "erase.edit"  # one key: safetensors writes several in no fixed order
_LOW_RANK = re.compile(r"low_rank\.(?P<number>\d{1,9})\.up\.(?P<site>.+)")
_UNREADABLE = (SafetensorError, OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError)


class _Strict(Form):
    """A form whose values have the very types that are written, not others that can be turned into them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Open(_Strict):
    """A form that may hold more than it names, as what other releases write does."""

    model_config = ConfigDict(extra="allow")


class StoredTarget(_Open):
    """A target as an edit's file describes it."""

    name: str
    kind: str
    anchor: str = ""
    synonyms: Sequence[str] = ()
    prompts: Sequence[str] = ()


class StoredKeep(_Open):
    """A concept that must stay; edits of earlier releases hold its bare name."""

    name: str


class StoredTask(_Open):
    """What was to be erased and to stay; a sum of edits says it of its parts alone."""

    targets: Sequence[StoredTarget] = ()
    keeps: Sequence[str | StoredKeep] = ()
    prompts: Sequence[str] = ()


class StoredEffect(_Strict):
    """What was seen of an edit's effect."""

    seen: Literal["outputs", "predictions"]
    moved: float | None
    kept: float | None


class StoredInfo(_Strict):
    """Where an edit comes from, or a part of a sum."""

    method: str
    options: dict[str, Any]
    task: StoredTask
    family: str
    base: str
    strength: float = 1.0
    versions: dict[str, str] = Field(default_factory=dict)
    parts: Sequence[StoredInfo] = ()
    record: dict[str, Any] = Field(default_factory=dict)
    beyond: dict[str, str] = Field(default_factory=dict)
    effect: StoredEffect | None = None
    rounded: dict[str, str] = Field(default_factory=dict)
    loras: Sequence[dict[str, Any]] = ()


class StoredGate(_Strict):
    """Whose gate it is, the words that open it, and the numbers of the low-rank changes behind it."""

    method: str
    words: list[str]
    numbers: list[int]


class StoredEdit(StoredInfo):
    """All that an edit's metadata says."""

    sites: list[list[str]]
    guidance: bool = False
    gates: Sequence[StoredGate] = ()


@dataclass(frozen=True)
class Contents:
    """An edit's description as plain values, and its changes."""

    info: Mapping[str, Any]
    text_maps: tuple[TextMap, ...]
    deltas: Mapping[str, Tensor]
    low_rank: tuple[LowRank, ...]
    guidance: bool
    modules: Mapping[str, Tensor]


def read_contents(path: Path) -> Contents:
    """What an edit's file holds; raises BadEdit for what is none or is damaged, PickleRefused."""
    refuse_pickle(path)
    if not path.is_file():
        raise BadEdit(f"{path} does not exist; expected an edit that `erase edit` wrote.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in list(file.keys())}
    except _UNREADABLE as error:
        raise BadEdit(f"{path} is corrupt or truncated ({error}); re-create the edit.") from error
    if METADATA_KEY not in metadata:
        raise BadEdit(f"{path} is no edit: its metadata lacks {METADATA_KEY}; expected a file that `erase edit` wrote.")
    said = _read_said(path, metadata[METADATA_KEY])
    return _sorted(path, said, tensors)


def _read_said(path: Path, text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
        json.dumps(said, ensure_ascii=False).encode()  # half a character cannot be hashed or shown
    except (ValueError, RecursionError) as error:
        raise BadEdit(f"{path} is damaged: its metadata is not JSON ({error}); re-create the edit.") from error
    if not isinstance(said, dict):
        raise BadEdit(f"{path} is damaged: its metadata is not keys and values; re-create the edit.")
    documents.check(said, StoredEdit, source=f"{path} is damaged", error=BadEdit)
    return said


def _sorted(path: Path, said: dict[str, Any], tensors: dict[str, Tensor]) -> Contents:
    """The changes, once each tensor was found to be there, finite and of a shape that fits the others."""
    sites, guidance = said.pop("sites"), said.pop("guidance", False)
    left = _Tensors(path, dict(tensors))
    maps = tuple(
        TextMap(*left.factors(f"text_map.{number}", "", square=True), tuple(names))
        for number, names in enumerate(sites)
    )
    found = [_LOW_RANK.fullmatch(key) for key in tensors]
    places = sorted((int(match["number"]), match["site"]) for match in found if match is not None)
    gates = _gates(said, len(places))
    low_rank = tuple(
        LowRank(*left.factors(f"low_rank.{number}", f".{site}", square=False), site, gates.get(number))
        for number, site in places
    )
    deltas, modules = (
        {key.removeprefix(kind): left.take(key) for key in tensors if key.startswith(kind)}
        for kind in ("delta.", "module.")
    )
    if modules and not guidance:
        raise left.damaged("it holds modules, and is not said to act while sampling")
    if left.tensors:
        raise left.damaged(f"it holds {min(left.tensors)}, which is no tensor of an edit")
    if gates and not gates.keys() <= {number for number, _ in places}:
        raise left.damaged(f"it has a gate for low_rank.{max(gates)}, which is not there")
    return Contents(said, maps, deltas, low_rank, guidance, modules)


def _gates(said: dict[str, Any], count: int) -> dict[int, Gate]:
    """The gate of each low-rank change that has one, by its number."""
    stored = said.pop("gates", None)
    if stored is not None:
        return {number: Gate(one["method"], tuple(one["words"])) for one in stored for number in one["numbers"]}
    if said["method"] != "spm" or said["options"].get("gate") is not True:
        return {}
    # Edits of earlier releases say by SPM's option alone that they have a gate.
    targets = said["task"].get("targets", ())
    words = [word for target in targets for word in (target["name"], *target.get("synonyms", ()))]
    return dict.fromkeys(range(count), Gate("spm", tuple(words)))


@dataclass(frozen=True)
class _Tensors:
    """The tensors of a file that are still to be taken."""

    path: Path
    tensors: dict[str, Tensor]

    def damaged(self, what: str) -> BadEdit:
        return BadEdit(f"{self.path} is damaged: {what}; re-create the edit.")

    def take(self, name: str) -> Tensor:
        """A tensor by its name; raises BadEdit if it is not there, not of floating point or not finite."""
        if name not in self.tensors:
            raise self.damaged(f"it lacks the tensor {name}")
        value = self.tensors.pop(name)
        if not value.is_floating_point() or value.element_size() < 2:
            raise self.damaged(f"{name} is of {str(value.dtype).removeprefix('torch.')}; expected float32")
        if not is_finite(value):
            raise self.damaged(f"{name} holds NaN or infinite values")
        return value

    def factors(self, prefix: str, suffix: str, *, square: bool) -> tuple[Tensor, Tensor]:
        """Two factors, [rows, rank] and [rank, columns]; raises BadEdit where their shapes are others."""
        up, down = (self.take(f"{prefix}.{side}{suffix}") for side in ("up", "down"))
        fit = up.dim() == down.dim() == 2 and up.shape[1] == down.shape[0] and len(up) and down.shape[1]
        if not fit or (square and up.shape[0] != down.shape[1]):
            columns = "rows" if square else "columns"
            raise self.damaged(
                f"{prefix} is of {list(up.shape)} and {list(down.shape)}; expected [rows, rank] and [rank, {columns}]"
            )
        return up, down


def apart(named: Iterator[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors by name, of which no two share memory, as those of an edit that was added to itself do."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in named:
        place = value.untyped_storage().data_ptr()
        found[name] = value.clone() if place in seen else value
        seen.add(place)
    return found
