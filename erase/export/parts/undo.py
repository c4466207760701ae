"""An exported folder turned back into its source, bit for bit: from the base model or from a reversal file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from erase.edit import Edit
from erase.errors import BadEdit, BadModel, ModelMismatch
from erase.export.parts.manifest import Manifest, stored_key, verify
from erase.export.parts.patching import header_of, put_header, rewrite
from erase.export.parts.writing import Entry, write_tensors
from erase.files import building_folder, sha256_of
from erase.models import Model, open_model
from erase.models.storage.stored import read_header, stored_tensor
from erase.models.storage.weights import content_digest

REVERSAL_KEY = "erase.reversal"
COPY = "copy:"  # before the key of what repeats an edited tensor
Record = Mapping[str, Any]  # what a manifest says of a changed tensor
Values = Callable[[Record], Tensor]  # what a changed tensor was before the edit


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
        for name in restored_files(manifest):
            place = build / manifest.content.get("renamed", {}).get(name, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(exported / name, place)
        for file, records in _by_file(manifest).items():
            rewrite(build / file, _old_values(build / file, records, values))
        for name, header in manifest.content.get("respelled", {}).items():
            put_header(build / name, header)
        _check_files(manifest, build)
    return target


def restored_files(manifest: Manifest) -> list[str]:
    """The exported files that the source had too."""
    added = set(manifest.content.get("added", ()))
    return [name for name in sorted(manifest.files) if name not in added]


def _from_base(manifest: Manifest, base: str | Path) -> Values:
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


def read_reversal(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a reversal file says and holds; raises BadEdit."""
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
    return said, tensors


def _from_reversal(manifest: Manifest, file: Path) -> Values:
    said, tensors = read_reversal(file)
    if said.get("content") != manifest.content["edit"]["content"]:
        raise ModelMismatch(f"{file} reverses another edit than that of {manifest.folder}; give the base by --base.")
    if missing := [record["tensor"] for record in manifest.changed if _kept_as(record) not in tensors]:
        raise BadEdit(f"{file} lacks {missing[0]}; give the base model by --base.")
    return lambda record: tensors[_kept_as(record)]


def _kept_as(record: Record) -> str:
    """Under which name a reversal file holds what a tensor was."""
    return f"{COPY}{record['file']}:{record['key']}" if "key" in record else str(record["tensor"])


def _old_values(file: Path, records: list[dict[str, Any]], values: Values) -> Mapping[str, Tensor]:
    keys, old = set(read_header(file)[0]), {}
    for record in records:
        value = values(record)
        if content_digest([(record["tensor"], value)]) != record["sha256_before"]:
            raise BadModel(
                f"{record['tensor']} is not what it was before the edit; the source is damaged: download it again."
            )
        old[record.get("key") or stored_key(record["tensor"], keys)] = value
    return old


def _by_file(manifest: Manifest) -> dict[str, list[dict[str, Any]]]:
    by_file: dict[str, list[dict[str, Any]]] = {}
    for record in manifest.changed:
        by_file.setdefault(record["file"], []).append(record)
    return by_file


def _check_files(manifest: Manifest, build: Path) -> None:
    for name, digest in manifest.content.get("rewritten", {}).items():
        if sha256_of(build / name) != digest:
            raise BadModel(f"{name} could not be restored bit for bit; copy it from the base model.")
