"""An exported single file turned back into the one that it was made from."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from erase.errors import BadEdit, BadModel, ModelMismatch, RunConflict
from erase.export.parts.inspection import read_keys
from erase.export.parts.patching import header_of
from erase.export.parts.recipe import RECIPE_KEY
from erase.export.parts.undo import COPY, read_reversal, reversal_place
from erase.export.parts.writing import HASH_KEY, tensor_bytes
from erase.files import replacing, sha256_of
from erase.models import Model, open_model
from erase.models.storage.checkpoint import open_checkpoint
from erase.models.storage.ldm import TEXTS
from erase.models.storage.stored import read_header, stored_tensor
from erase.models.storage.weights import Place

Values = dict[str, Callable[[], Tensor]]  # what each tensor was before the edit, by its name


def undo_file(exported: Path, target: Path, *, base: str | Path | None = None, reversal: Path | None = None) -> Path:
    """The restored single file, from the base model or else from the reversal file (that beside it by default).

    It has the source's bytes if that was a single file, and else the source's values. Raises BadModel if it is no
    export or cannot be restored, ModelMismatch, BadEdit, RunConflict.
    """
    if target.exists():
        raise RunConflict(f"{target} exists already; name another file or remove it first.")
    metadata, _ = read_keys(exported)
    if RECIPE_KEY not in metadata:
        raise BadModel(f"{exported} says nothing of an edit; expected what `erase export --to checkpoint` wrote.")
    said = json.loads(metadata[RECIPE_KEY])
    whole = open_checkpoint(exported)
    if base is not None:
        model = open_model(base)
        values, header, digest = of_base(model, whole), "", ""
        copies = of_copies(model.path, said.get("copies", []))
        if model.path.is_file():
            header, digest = header_of(model.path), sha256_of(model.path)
    else:
        values, header, digest = of_reversal(reversal or reversal_place(exported), said["content"])
        copies = {name.removeprefix(COPY): values.pop(name) for name in list(values) if name.startswith(COPY)}
    restoration = _Restoration(exported, members_of(whole, values), values, copies)
    with replacing(target, alone=True) as build:
        restoration.write(build, header or plain_header(exported))
        if open_checkpoint(build).fingerprint != said["base"]:
            raise ModelMismatch(f"{exported} was made from another base model; give the one that was edited.")
        if digest and sha256_of(build) != digest:
            raise BadModel(f"{exported} could not be restored bit for bit; it was changed since: take its source.")
    return target


def of_base(model: Model, whole: Model) -> Values:
    """The base's values of all that an edit can change; raises ModelMismatch for a model of another family."""
    if model.family != whole.family:
        raise ModelMismatch(f"{model.path} is a {model.family}, the exported file a {whole.family}.")
    names = (f"{part}.{key}" for part in parts_of(whole) for key in whole.weights(part).places)
    return {name: partial(model.weight, name) for name in names}


def of_copies(base: Path, keys: Sequence[str]) -> Values:
    """What a single file holds under these keys; raises BadEdit for a folder, which has none of them."""
    if keys and not base.is_file():
        raise BadEdit(
            f"{base} is a folder, which does not hold {keys[0]}; give the single file that was edited by --base, or a "
            "reversal file by --reversal."
        )
    lacks = [key for key in keys if key not in (read_header(base)[0] if keys else {})]
    if lacks:
        raise ModelMismatch(f"{base} has no {lacks[0]}, which the export edited; give the file that was edited.")
    return {key: partial(stored_tensor, base, key) for key in keys}


def of_reversal(file: Path, content: str) -> tuple[Values, str, str]:
    """Values, and the source's header and hash, empty if it was a folder; raises BadEdit, ModelMismatch."""
    said, tensors = read_reversal(file)
    if said.get("content") != content:
        raise ModelMismatch(f"{file} reverses another edit than that of the file; give the base by --base.")
    values: Values = {name: partial(tensors.__getitem__, name) for name in tensors}
    return values, str(said.get("header", "")), str(said.get("sha256", ""))


def parts_of(whole: Model) -> tuple[str, ...]:
    return ("unet", *TEXTS[whole.family])


def plain_header(exported: Path) -> str:
    """The exported file's header without what the export says of the edit."""
    header, _ = read_header(exported)
    left_out = (RECIPE_KEY, HASH_KEY, "modelspec.title")
    metadata = {key: value for key, value in header["__metadata__"].items() if key not in left_out}
    text = json.dumps(header | {"__metadata__": metadata}, separators=(",", ":"))
    return text + " " * (-len(text.encode()) % 8)


def members_of(whole: Model, names: Iterable[str]) -> dict[str, list[tuple[str, Place]]]:
    """The named tensors by the file's key under which they lie; raises BadEdit for one that is not there."""
    found: dict[str, list[tuple[str, Place]]] = {}
    for name in names:
        part, _, key = name.partition(".")
        place = whole.weights(part).places.get(key) if part in parts_of(whole) else None
        if place is None:
            raise BadEdit(f"{whole.path} has no {name}, which is to be restored; give the model that was edited.")
        found.setdefault(place.key, []).append((name, place))
    return found


@dataclass(frozen=True)
class _Restoration:
    """The exported file, where its tensors lie that are to be restored, and what they were."""

    exported: Path
    members: Mapping[str, list[tuple[str, Place]]]
    values: Values
    copies: Values  # what repeats edited tensors, by its key

    def write(self, path: Path, header: str) -> None:
        """Writes the file under a header; raises BadModel if the header is not that of the exported tensors."""
        entries = {key: entry for key, entry in _parsed(header).items() if key != "__metadata__"}
        with safe_open(self.exported, framework="pt") as opened, path.open("wb") as file:
            if entries.keys() != set(opened.keys()):
                raise BadModel(f"{self.exported} has not the tensors of its source; take the source itself.")
            file.write(struct.pack("<Q", len(header.encode())) + header.encode())
            begin = file.tell()
            for key in sorted(entries, key=lambda key: entries[key]["data_offsets"]):
                file.write(tensor_bytes(self._tensor(opened, key)))
                if file.tell() - begin != entries[key]["data_offsets"][1]:
                    raise BadModel(f"{key} in {self.exported} is of another size or precision than in its source.")

    def _tensor(self, opened: Any, key: str) -> Tensor:
        if key in self.copies:
            return self.copies[key]()
        stored: Tensor = opened.get_tensor(key)
        for name, place in self.members.get(key, ()):
            stored = place.put(self.values[name](), stored)
        return stored


def _parsed(header: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(header)
        _ = [entry["data_offsets"][1] for key, entry in content.items() if key != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise BadEdit(f"the source's header is damaged ({error}); give the base model by --base.") from error
    return content
