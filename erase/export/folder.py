"""The edited model as a diffusers folder: the source byte for byte, but for the tensors that the edit changes.

Keys of CLIP text encoders get the `text_model.` that every program reads, where the source lacks it. A single file is
first laid out as a folder, with the settings and tokenizers of its family or those it was opened with.

A model card is put in, and the source's own kept beside it. `manifest.json`, written last, tells what was done: the
edit, the base, every file's hash, every changed tensor's.
Other copies of edited weights are edited where they lie in the same files, and else left out (a second variant, a
pickle, a whole checkpoint beside the parts, a folder such as `unet_ema`); all are named there: whoever loaded them
would get what was erased.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from erase import __version__
from erase.edit import Edit
from erase.errors import BadModel
from erase.export.parts.card import picture_beside, read_about, write_card
from erase.export.parts.copies import Members, copies_in, left_out
from erase.export.parts.laying import lay_out
from erase.export.parts.manifest import read_manifest
from erase.export.parts.precision import Precision, cast_file, cast_folder, chosen, edited_tensor
from erase.export.parts.recipe import MANIFEST, content_in, recipe, title_of
from erase.export.parts.undo import reversal_place, write_reversal
from erase.export.parts.writing import Entry, rewrite, spell_out
from erase.files import building_folder, sha256_of
from erase.models import Model
from erase.models.identity import canonical
from erase.models.storage.hub import hub_id, root_of
from erase.models.storage.stored import StoredTensors, stored_tensor
from erase.models.storage.weights import Weights, content_digest, shapes_in

_logger = logging.getLogger(__name__)
LEFT_OUT = ("judge", MANIFEST)  # what scores the model, and what an earlier export said of it


@dataclass(frozen=True)
class Held:
    """Where a folder holds an edited tensor, or a copy of one."""

    name: str
    file: Path
    key: str
    is_copy: bool = False


def folder(
    model: Model,
    edit: Edit,
    target: Path,
    *,
    card: bool = True,
    base_model: str = "",
    licence: str = "",
    scores: str = "",
    picture: str = "",
    redact: str = "",
    reversal: bool = False,
    dtype: Precision = "",
) -> Path:
    """The edited model's folder.

    `card`: whether it gets a model card. `base_model`: the id on the hub that the card names; known of a model that
    comes from there. `licence`: what the card says where the source has no card of its own. `scores`: a run's
    scores.json, whose figures the card shows. `picture`: a picture before and after, for the card; the grid.png beside
    the scores if not given, unless that shows what is unsafe or redacted. `redact`: a secret under which the concepts'
    names are hashed. `reversal`: whether what undoes the edit is written beside it. `dtype`: of all weights; each
    tensor's own if not given, and a folder in another cannot be undone.

    Raises RunConflict if the target exists, ModelMismatch, BadEdit if a changed weight is not finite, BadModel if the
    source holds a link that leads out of it, BadOption, DiskFull.
    """
    place = reversal_place(target)
    if reversal and content_in(target) == edit.content and not place.exists():  # a kill came between the two
        write_reversal(model, edit, place, copies=copies_before(model, read_manifest(target).changed))
        return target
    edit.check(model)
    precision = chosen(model, dtype, reversal=reversal)
    with building_folder(target) as build:
        stale = copy_folder(model, edit, build) if model.path.is_dir() else lay_out(model, edit, build)
        manifest = rewrite_folder(model, edit, build, dtype=precision)
        manifest |= {"edit": recipe(edit, redact=redact), "left_out": stale}
        if card:
            picture = picture or picture_beside(scores, edit, redact=redact)
            known = base_model or hub_id(model.path)
            about = read_about(model.path, base_model=known, licence=licence, scores=scores, picture=picture)
            manifest |= write_card(build, manifest["edit"], about, title=title_of(edit, model.title, redact=redact))
        manifest["files"] = dict(_hashes(build))
        (build / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if reversal:  # before the folder is there: one that a kill leaves alone is written again
            write_reversal(model, edit, place, copies=copies_before(model, manifest["changed"]))
    if stale:
        _logger.warning("%s: left out, as they hold what was edited: %s", target, shown(stale))
    return target


def copy_folder(model: Model, edit: Edit, build: Path) -> list[str]:
    """Copies the source, and names what of it was left out."""
    files = source_files(model.path)
    stale = [file for file in files if left_out(model, edit.touches, file)]
    for file in (file for file in files if file not in stale):
        (build / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model.path / file, build / file)
    return [file.as_posix() for file in stale]


def source_files(path: Path) -> list[Path]:
    """The model's files, relative and sorted; raises BadModel for a link out of the folder."""
    files, root = [], root_of(path).resolve()
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path)
        if relative.parts[0] in LEFT_OUT or not file.is_file():
            continue
        if not file.resolve().is_relative_to(root):
            raise BadModel(f"{file} is a link that leads out of the model; copy the file itself into the model first.")
        files.append(relative)
    return files


def rewrite_folder(model: Model, edit: Edit, build: Path, *, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """Puts an edit's tensors into a copy of its base's folder, all in a dtype; what the manifest says of it."""
    held = held_in(build, edit.touches)
    clips = [text.encoder for text in model.texts if text.kind.startswith("CLIP")]
    files = {one.file for one in held} | {file for part in clips for file in to_spell_out(build / part)}
    before = {file.relative_to(build).as_posix(): sha256_of(file) for file in sorted(files)}
    records = write_changes(edit, held, build, dtype=dtype)
    if dtype is not None:
        cast_folder(model, build, {one.file for one in held}, dtype=dtype)
    respelled = {
        file.relative_to(build).as_posix(): spell_out(file) for part in clips for file in to_spell_out(build / part)
    }
    more: dict[str, Any] = {"respelled": respelled} if respelled else {}
    more |= {"dtype": str(dtype).removeprefix("torch.")} if dtype is not None else {}
    said = {"tool": f"erase {__version__}", "base": edit.info.base}
    return said | {"rewritten": before, "changed": records} | more


def to_spell_out(part: Path) -> list[Path]:
    """The file of a CLIP text encoder whose keys lack `text_model.`; shards and their index stay as they are."""
    files = Weights(part).files
    lack = all(canonical(key) == key for key in shapes_in(files[0]))
    return files if len(files) == 1 and lack else []


def held_in(build: Path, names: Sequence[str]) -> list[Held]:
    """Where the named tensors lie in a folder, each followed by its copies in the same part's files."""
    found = []
    for component in dict.fromkeys(name.partition(".")[0] for name in names):
        weights = Weights(build / component)
        members: Members = {}
        for name in (name for name in names if name.startswith(f"{component}.")):
            place = weights.places[weights.stored_key(name.partition(".")[2])]
            members[place.key] = [(name, place)]
            found.append(Held(name, place.file, place.key))
        for file in weights.files:
            own = frozenset(key for key, ((_, place),) in members.items() if place.file == file)
            copies = copies_in(shapes_in(file), members, own=own)
            found += [Held(name, file, key, is_copy=True) for key, ((name, _),) in copies.items()]
    return found


def write_changes(edit: Edit, held: Sequence[Held], build: Path, *, dtype: torch.dtype | None) -> list[dict[str, Any]]:
    """What changed in which tensor, after the copies of the weight files were rewritten."""
    records = []
    for file in dict.fromkeys(one.file for one in held):
        tensors: dict[str, Tensor] = {}
        for one in (one for one in held if one.file == file):
            with StoredTensors(file) as opened:
                before = opened.tensor(one.key)
            tensors[one.key] = edited_tensor(edit, one.name, before, dtype=dtype)
            record = _record(one.name, before, tensors[one.key], file=file.relative_to(build).as_posix())
            records.append(record | ({"key": one.key} if one.is_copy else {}))
        rewrite(file, tensors) if dtype is None else cast_file(file, tensors, dtype)
    return sorted(records, key=lambda record: (record["tensor"], record.get("key", "")))


def copies_before(model: Model, records: Sequence[dict[str, Any]]) -> dict[str, Entry]:
    """What the copies that were edited are in the source, by file and key."""
    copies = [(record["file"], record["key"]) for record in records if "key" in record]
    return {f"{file}:{key}": Entry.made(partial(stored_tensor, model.path / file, key)) for file, key in copies}


def shown(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _hashes(build: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted(build.rglob("*")):
        if file.is_file():
            yield file.relative_to(build).as_posix(), {"sha256": sha256_of(file), "bytes": file.stat().st_size}


def _record(name: str, before: Tensor, after: Tensor, *, file: str) -> dict[str, Any]:
    moved, size = (float(torch.linalg.vector_norm(one)) for one in (after.double() - before.double(), before.double()))
    return {
        "tensor": name,
        "file": file,
        "relative_change": moved / size if size else None,
        "sha256_before": content_digest([(name, before)]),
        "sha256_after": content_digest([(name, after)]),
    }
