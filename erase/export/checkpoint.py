"""The edited model as a single-file checkpoint, in the LDM layout that A1111 and ComfyUI load.

A source that is itself a single file keeps every tensor and all metadata but those that the edit changes. A diffusers
folder is converted (`_keys` holds the names); it can be given its single file as `original`, which is then patched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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
    changed = dict(edit.changed(model))
    said = {RECIPE_KEY: json.dumps(recipe(edit, redact=redact), sort_keys=True)}
    title = title_of(edit, model.path.stem if model.path.is_file() else model.path.name, redact=redact)
    source = Path(original) if original else model.path
    if not source.is_dir():
        metadata, entries = patched(model, source, changed)
        if "modelspec.title" in metadata:
            said["modelspec.title"] = title
    else:
        kind = architecture(model)
        metadata, entries = modelspec(kind, title=title), converted(model, changed, _FAMILIES[kind.name])
        entries |= _markers(kind.name, kind.prediction)
    write_tensors(target, entries, metadata=metadata | said)
    return target


def converted(model: Model, changed: Mapping[str, Tensor], family: Family) -> dict[str, Entry]:
    """The file's tensors from a folder, each read when it is written; `changed` stand in for the source's."""
    names = {name for part in ("unet", "vae", *TEXTS[family]) for name in names_in(model, part)}
    grouped: dict[str, list[tuple[str, Slot]]] = {}
    for name, slot in slots(names, family).items():
        grouped.setdefault(slot.key, []).append((name, slot))
    entries = {}
    for key, members in grouped.items():
        members.sort(key=lambda pair: pair[1].third)
        entries[key] = _entry(partial(_gather, model, changed, members=members))
    return entries


def patched(model: Model, source: Path, changed: Mapping[str, Tensor]) -> tuple[dict[str, str], dict[str, Entry]]:
    """A single file's metadata and tensors with those of an edit in their places.

    Raises ModelMismatch if the file does not hold the model's own values there, BadWeights, BadModel.
    """
    metadata, _ = read_keys(source)
    header = {key: entry for key, entry in read_header(source)[0].items() if key != "__metadata__"}
    entries = {key: _stored_entry(source, key, entry) for key, entry in header.items()}
    family = family_of(header)
    names = {name for part in ("unet", *TEXTS[family]) for name in names_in(model, part)}
    by_key: dict[str, list[str]] = {}
    where = slots(names, family)
    for name in changed:
        by_key.setdefault(where[name].key, []).append(name)
    for key, touched in by_key.items():
        if key not in entries:
            raise ModelMismatch(f"{source} has no {key}; it is not the single file of {model.path.name}.")
        value = entries[key].read().clone()
        for name in touched:
            _put(value, where[name], old=model.weight(name), new=changed[name])
        entries[key] = Entry.of(value)
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


def _put(value: Tensor, slot: Slot, *, old: Tensor, new: Tensor) -> None:
    """Writes a changed tensor into its place in `value`; raises ModelMismatch if another was there."""
    rows = slice(None)
    if slot.form == "joined":
        rows = slice(slot.third * len(old), (slot.third + 1) * len(old))
    place, before = value[rows], slot.stored(old)
    if place.dtype != before.dtype or place.shape != before.shape or not torch.equal(place, before):
        raise ModelMismatch(
            f"{slot.key} is not what the model has ({place.dtype}, {list(place.shape)} against {before.dtype}, "
            f"{list(before.shape)}); give the single file that the model was made from, in the same precision."
        )
    place.copy_(slot.stored(new))


def _gather(model: Model, changed: Mapping[str, Tensor], *, members: list[tuple[str, Slot]]) -> Tensor:
    parts = [slot.stored(changed[name] if name in changed else model.weight(name)) for name, slot in members]
    if members[0][1].form == "joined" and len(parts) != 3:
        raise BadModel(f"{members[0][0]} lacks its companions among query, key and value; get the model anew.")
    return (torch.cat(parts) if len(parts) > 1 else parts[0]).contiguous()


def _entry(read: Any) -> Entry:
    """An entry whose dtype and shape are those of the tensor, which is then let go until it is written."""
    tensor: Tensor = read()
    return Entry(tensor.dtype, tuple(tensor.shape), read)


def _stored_entry(source: Path, key: str, entry: Mapping[str, Any]) -> Entry:
    if entry["dtype"] not in DTYPES:
        raise BadModel(f"{key} in {source} is of {entry['dtype']}, which cannot be edited; give an unquantised model.")
    return Entry(DTYPES[entry["dtype"]], tuple(entry["shape"]), partial(_read, source, key))


def _read(source: Path, key: str) -> Tensor:
    with safe_open(source, framework="pt") as file:
        value: Tensor = file.get_tensor(key)
    return value


def _markers(architecture: str, prediction: str) -> dict[str, Entry]:
    """The empty tensor by which ComfyUI tells an XL model that predicts velocities."""
    is_marked = architecture == "stable-diffusion-xl-v1-base" and prediction == "v_prediction"
    return {"v_pred": Entry.of(torch.tensor([]))} if is_marked else {}
