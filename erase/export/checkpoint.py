"""The edited model as a single-file checkpoint, in the LDM layout that A1111 and ComfyUI load.

A source that is itself a single file keeps every tensor and all metadata but those that the edit changes. A diffusers
folder is converted (`_keys` holds the names); it can be given its single file as `original`, which is then patched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from erase.edit import Edit
from erase.errors import BadModel, ModelMismatch, RunConflict
from erase.export._inspection import read_keys
from erase.export._keys import TEXTS, Family, Slot, slots
from erase.export._modelspec import architecture, modelspec
from erase.export._patching import read_header
from erase.export._recipe import RECIPE_KEY, content_in, recipe, title_of
from erase.export._writing import DTYPES, Entry, write_tensors
from erase.models import Model
from erase.models._model import canonical

_FAMILIES: Mapping[str, Family] = {
    "stable-diffusion-v1": "sd1",
    "stable-diffusion-v2-512": "sd2",
    "stable-diffusion-v2-768-v": "sd2",
    "stable-diffusion-xl-v1-base": "xl",
}
Members = Sequence[tuple[str, Slot]]  # the model's tensors that one of the file's holds
_BUFFERS = "position_ids"  # counts from 0; some versions of transformers store it and others do not


def checkpoint(model: Model, edit: Edit, target: Path, *, original: str = "", redact: str = "") -> Path:
    """The checkpoint's file.

    `original`: the single file that the folder was made from, to be patched instead of written anew. `redact`: a secret
    under which the concepts' names are hashed. Raises RunConflict if another file lies there, ModelMismatch, BadEdit,
    BadModel for a family that has no single file, BadWeights, DiskFull.
    """
    if target.suffix != ".safetensors":
        target = target.with_name(f"{target.name}.safetensors")
    if target.exists() and content_in(target) != edit.content:
        raise RunConflict(f"{target} holds something else; name another file or remove it first.")
    edit.check(model)
    said = {RECIPE_KEY: json.dumps(recipe(edit, redact=redact), sort_keys=True)}
    title = title_of(edit, model.path.stem if model.path.is_file() else model.path.name, redact=redact)
    source = Path(original) if original else model.path
    if not source.is_dir():
        metadata, entries = patched(model, source, edit)
        if "modelspec.title" in metadata:
            said["modelspec.title"] = title
    else:
        kind = architecture(model)
        metadata, entries = modelspec(kind, title=title), converted(model, edit, _FAMILIES[kind.name])
        entries |= _markers(kind.name, kind.prediction)
    write_tensors(target, entries, metadata=metadata | said)
    return target


def converted(model: Model, edit: Edit, family: Family) -> dict[str, Entry]:
    """The edited model's tensors from a folder, under the file's keys, each made when it is written."""
    names = {name for part in ("unet", "vae", *TEXTS[family]) for name in names_in(model, part)}
    grouped: dict[str, list[tuple[str, Slot]]] = {}
    for name, slot in slots(names, family).items():
        grouped.setdefault(slot.key, []).append((name, slot))
    entries, touched = {}, set(edit.touches)
    for key, members in grouped.items():
        members.sort(key=lambda pair: pair[1].third)
        entries[key] = _entry(model, edit, members, touched=touched)
    return entries


def patched(model: Model, source: Path, edit: Edit) -> tuple[dict[str, str], dict[str, Entry]]:
    """A single file's metadata and tensors with those of an edit in their places, each made when it is written.

    Raises ModelMismatch if the file does not hold the model's own values there, BadWeights, BadModel.
    """
    metadata, _ = read_keys(source)
    header, begin = read_header(source)
    header.pop("__metadata__", None)
    entries = {key: _stored_entry(source, key, entry, begin=begin) for key, entry in header.items()}
    family = family_of(header)
    names = {name for part in ("unet", *TEXTS[family]) for name in names_in(model, part)}
    by_key: dict[str, list[tuple[str, Slot]]] = {}
    where = slots(names, family)
    for name in edit.touches:
        by_key.setdefault(where[name].key, []).append((name, where[name]))
    for key, members in by_key.items():
        if key not in entries:
            raise ModelMismatch(f"{source} has no {key}; it is not the single file of {model.path.name}.")
        stored = entries[key]
        if source != model.path:  # told now, and not when half of the file is written
            _with_changes(model, edit, members, stored=stored.read, only_check=True)
        read = partial(_with_changes, model, edit, members, stored=stored.read)
        entries[key] = Entry(stored.dtype, stored.shape, read)
    return metadata, entries


def family_of(keys: Mapping[str, Any]) -> Family:
    """The family of a single file; raises BadModel if it is none of these."""
    for family in ("xl", "sd2", "sd1"):
        prefixes = [prefix for prefix, _ in TEXTS[family].values()]
        if all(any(key.startswith(prefix) for key in keys) for prefix in prefixes):
            return family
    raise BadModel("the file holds no text encoder of Stable Diffusion 1, 2 or XL; expected a whole checkpoint.")


def names_in(model: Model, part: str) -> list[str]:
    """The names of a part's tensors, the component in front, counting buffers left out."""
    keys = model.weights(part).where
    return [f"{part}.{canonical(key)}" for key in keys if not key.endswith(_BUFFERS)]


def _with_changes(
    model: Model, edit: Edit, members: Members, *, stored: Callable[[], Tensor], only_check: bool = False
) -> Tensor:
    """What a file holds with the edit's values in it; raises ModelMismatch if it does not hold the model's own."""
    value = stored().clone()
    for name, slot in members:
        old, place = model.weight(name), value
        if slot.form == "joined":
            place = value[slot.third * len(old) : (slot.third + 1) * len(old)]
        before = slot.stored(old)
        if place.dtype != before.dtype or place.shape != before.shape or not torch.equal(place, before):
            raise ModelMismatch(
                f"{slot.key} is not what the model has ({place.dtype}, {list(place.shape)} against {before.dtype}, "
                f"{list(before.shape)}); give the single file that the model was made from, in the same precision."
            )
        if not only_check:
            place.copy_(slot.stored(edit.changed_tensor(name, old)))
    return value


def _gather(model: Model, edit: Edit, members: Members, *, touched: set[str]) -> Tensor:
    values = ((name, slot, model.weight(name)) for name, slot in members)
    parts = [slot.stored(edit.changed_tensor(name, own) if name in touched else own) for name, slot, own in values]
    if members[0][1].form == "joined" and len(parts) != 3:
        raise BadModel(f"{members[0][0]} lacks its companions among query, key and value; get the model anew.")
    return (torch.cat(parts) if len(parts) > 1 else parts[0]).contiguous()


def _entry(model: Model, edit: Edit, members: Members, *, touched: set[str]) -> Entry:
    """An entry whose dtype and shape are those of the tensor, which is made when it is written."""
    own = _gather(model, edit, members, touched=set())
    return Entry(own.dtype, tuple(own.shape), partial(_gather, model, edit, members, touched=touched))


def _stored_entry(source: Path, key: str, entry: Mapping[str, Any], *, begin: int) -> Entry:
    if entry["dtype"] not in DTYPES:
        raise BadModel(f"{key} in {source} is of {entry['dtype']}, which cannot be edited; give an unquantised model.")
    place = (source, begin + int(entry["data_offsets"][0]))
    return Entry(DTYPES[entry["dtype"]], tuple(entry["shape"]), partial(_read, source, key), place)


def _read(source: Path, key: str) -> Tensor:
    with safe_open(source, framework="pt") as file:
        value: Tensor = file.get_tensor(key)
    return value


def _markers(architecture: str, prediction: str) -> dict[str, Entry]:
    """The empty tensor by which ComfyUI tells an XL model that predicts velocities."""
    is_marked = architecture == "stable-diffusion-xl-v1-base" and prediction == "v_prediction"
    return {"v_pred": Entry.of(torch.tensor([]))} if is_marked else {}
