"""An export, a folder or a single file, turned back into its source bit for bit."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from erase.edit import Edit
from erase.errors import BadEdit, BadModel, ModelMismatch, RunConflict
from erase.export.parts.manifest import Manifest, stored_key, verify
from erase.export.parts.recipe import RECIPE_KEY
from erase.export.parts.writing import HASH_KEY, Entry, header_of, put_header, rewrite, tensor_bytes, write_tensors
from erase.files import building_folder, replacing, sha256_of
from erase.models import Model, open_model
from erase.models.storage.checkpoint import open_checkpoint
from erase.models.storage.ldm import TEXTS
from erase.models.storage.stored import read_header, stored_tensor
from erase.models.storage.weights import Place, content_digest, read_keys

REVERSAL_KEY = "erase.reversal"
COPY = "copy:"  # before the key of what repeats an edited tensor
Record = Mapping[str, Any]  # what a manifest says of a changed tensor
Before = Callable[[Record], Tensor]  # what a changed tensor was before the edit
Values = dict[str, Callable[[], Tensor]]  # the same of each tensor, by its name


def reversal_place(exported: Path) -> Path:
    """Where the reversal file of an export lies: beside it and not in it, for it undoes the erasure."""
    return exported.with_name(f"{exported.name.removesuffix('.safetensors')}.reversal.safetensors")


def write_reversal(
    model: Model,
    edit: Edit,
    path: Path,
    *,
    source: Path | None = None,
    copies: Mapping[str, Entry] = MappingProxyType({}),
) -> None:
    """Writes the values that the edit's tensors have in the source, in their own dtypes.

    `source`: the single file that is edited, of which the header and the hash are kept as well. `copies`: what repeats
    edited tensors, by its key in a file.
    """
    entries = {name: Entry.of(model.weight(name)) for name in edit.touches}
    entries |= {f"{COPY}{key}": entry for key, entry in copies.items()}
    said = {"base": edit.info.base, "content": edit.content}
    if source is not None:
        said |= {"header": header_of(source), "sha256": sha256_of(source)}
    write_tensors(path, entries, metadata={REVERSAL_KEY: json.dumps(said, sort_keys=True)})


def undo(exported: Path, target: Path, *, base: str | Path | None = None, reversal: Path | None = None) -> Path:
    """The restored folder, from the base model or else from the reversal file (that beside the export by default).

    What the export left out of the source (a judge, other copies of edited weights) does not come back. Raises BadModel
    if the folder is not what its manifest says or cannot be restored bit for bit, ModelMismatch, BadEdit, RunConflict.
    """
    manifest = verify(exported)
    if dtype := manifest.content.get("dtype"):
        raise BadModel(f"{exported} was exported as {dtype}, which is not undone; take the base model itself.")
    values = _from_base(manifest, base) if base else _from_reversal(manifest, reversal or reversal_place(exported))
    with building_folder(target) as build:
        for name in sorted(manifest.files.keys() - set(manifest.content.get("added", ()))):
            place = build / manifest.content.get("renamed", {}).get(name, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(exported / name, place)
        for file in dict.fromkeys(record["file"] for record in manifest.changed):
            records = [record for record in manifest.changed if record["file"] == file]
            rewrite(build / file, _old_values(build / file, records, values))
        for name, header in manifest.content.get("respelled", {}).items():
            put_header(build / name, header)
        for name, digest in manifest.content.get("rewritten", {}).items():
            if sha256_of(build / name) != digest:
                raise BadModel(f"{name} could not be restored bit for bit; copy it from the base model.")
    return target


def _from_base(manifest: Manifest, base: str | Path) -> Before:
    model = open_model(base)
    if model.fingerprint != manifest.content["base"]:
        raise ModelMismatch(
            f"{manifest.folder} was made from the base model {manifest.content['base'][:12]}, {base} is "
            f"{model.fingerprint[:12]}; give the model that was edited."
        )

    def value(record: Record) -> Tensor:
        """A copy's value lies in the file of the base that has the same name, under its key."""
        if "key" in record:
            return stored_tensor(model.path / record["file"], record["key"])
        return model.weight(record["tensor"])

    return value


def read_reversal(file: Path, content: str, exported: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a reversal file says and holds; raises BadEdit, ModelMismatch if it is of another edit than an export's."""
    if not file.is_file():
        raise BadEdit(
            f"{file} does not exist; give the base model by --base, or the reversal file that "
            "`erase export --option reversal=true` wrote by --reversal."
        )
    try:
        with safe_open(file, framework="pt") as opened:
            said = json.loads((opened.metadata() or {})[REVERSAL_KEY])
            tensors = {key: opened.get_tensor(key) for key in list(opened.keys())}
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise BadEdit(f"{file} is no reversal file, or is damaged ({error}); give the base model by --base.") from error
    if said.get("content") != content:
        raise ModelMismatch(f"{file} reverses another edit than that of {exported}; give the base by --base.")
    return said, tensors


def _from_reversal(manifest: Manifest, file: Path) -> Before:
    _, tensors = read_reversal(file, manifest.content["edit"]["content"], manifest.folder)
    if missing := [record["tensor"] for record in manifest.changed if _kept_as(record) not in tensors]:
        raise BadEdit(f"{file} lacks {missing[0]}; give the base model by --base.")
    return lambda record: tensors[_kept_as(record)]


def _kept_as(record: Record) -> str:
    """Under which name a reversal file holds what a tensor was."""
    return f"{COPY}{record['file']}:{record['key']}" if "key" in record else str(record["tensor"])


def _old_values(file: Path, records: list[dict[str, Any]], values: Before) -> Mapping[str, Tensor]:
    keys, old = set(read_header(file)[0]), {}
    for record in records:
        value = values(record)
        if content_digest([(record["tensor"], value)]) != record["sha256_before"]:
            raise BadModel(
                f"{record['tensor']} is not what it was before the edit; the source is damaged: download it again."
            )
        old[record.get("key") or stored_key(record["tensor"], keys)] = value
    return old


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
        source, tensors = read_reversal(reversal or reversal_place(exported), said["content"], exported)
        values = {name: partial(tensors.__getitem__, name) for name in tensors}
        copies = {name.removeprefix(COPY): values.pop(name) for name in tensors if name.startswith(COPY)}
        header, digest = str(source.get("header", "")), str(source.get("sha256", ""))  # empty if it was a folder
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
