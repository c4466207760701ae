"""The edited model as a single-file checkpoint, in the LDM layout that A1111 and ComfyUI load.

A source that is itself a single file keeps every tensor and all metadata but those that the edit changes; copies of
edited weights in it, such as averages (`model_ema.`), are edited as well and named. A diffusers folder is converted
(`models/storage/ldm` holds the names), or its own single file is patched, if given as `original`. Of Stable Diffusion 3
and FLUX.1 the file holds the transformer alone, in the layout in which it was published.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from erase.edit import Edit
from erase.errors import BadModel, ModelMismatch
from erase.export.parts.copies import edited_in, summary
from erase.export.parts.modelspec import architecture, modelspec
from erase.export.parts.precision import Precision, cast, cast_entries, chosen, edited_tensor
from erase.export.parts.recipe import RECIPE_KEY, recipe, single_file, title_of
from erase.export.parts.transformer_file import LAYOUTS, transformer_entries
from erase.export.parts.undo import reversal_place, write_reversal
from erase.export.parts.writing import HASH_KEY, Entry, write_tensors
from erase.models import Model
from erase.models.identity import canonical
from erase.models.storage.checkpoint import open_checkpoint
from erase.models.storage.ldm import TEXTS, Slot, slots
from erase.models.storage.stored import DTYPES, Header, StoredTensors, read_header
from erase.models.storage.weights import Place, read_keys

_logger = logging.getLogger(__name__)
_Parts = Sequence[tuple[str, Slot]]  # the model's tensors that one of the file's holds
_BUFFERS = "position_ids"  # counts from 0; some versions of transformers store it and others do not


def checkpoint(
    model: Model,
    edit: Edit,
    target: Path,
    *,
    original: str = "",
    redact: str = "",
    reversal: bool = False,
    dtype: Precision = "",
) -> Path:
    """The checkpoint's file.

    `original`: the single file that the folder was made from, to be patched, not written again. `redact`: a secret
    under which the concepts' names are hashed. `reversal`: whether what undoes the edit is written beside it. `dtype`:
    of all weights; each tensor's own if not given.

    Raises RunConflict if another file lies there, ModelMismatch, BadEdit, BadWeights, DiskFull, BadModel for a family
    that has no single file.
    """
    _check_family(model, original)
    target = single_file(target, edit)
    edit.check(model)
    precision = chosen(model, dtype, reversal=reversal)
    model.free_encoders()  # nobody encodes prompts while gigabytes are written
    said = recipe(edit, redact=redact)
    title = title_of(edit, model.title, redact=redact)
    source = Path(original) if original else model.path
    before: dict[str, Entry] = {}
    anew = source.is_dir() or model.family in LAYOUTS
    if not anew:
        metadata, entries, before = patched(model, source, edit, dtype=precision)
        if "modelspec.title" in metadata:
            metadata["modelspec.title"] = title
    else:
        kind = architecture(model)
        metadata = modelspec(kind, title=title)
        entries = (transformer_entries if model.family in LAYOUTS else converted)(model, edit, dtype=precision)
        if (kind.name, kind.prediction) == ("stable-diffusion-xl-v1-base", "v_prediction"):
            entries["v_pred"] = Entry.of(torch.tensor([]))  # an empty tensor, by which ComfyUI tells such a model
    # A hash of all tensors is renewed where there was one, and new files get one; others are spared the time.
    hashed = HASH_KEY in metadata or anew
    metadata[RECIPE_KEY] = json.dumps(said | ({"copies": sorted(before)} if before else {}), sort_keys=True)
    if reversal:  # before the file: one that a kill leaves alone is written again
        write_reversal(model, edit, reversal_place(target), source=None if anew else source, copies=before)
    write_tensors(target, cast_entries(entries, precision), metadata=metadata, hashed=hashed)
    if before:
        _logger.warning(
            "%s: %d tensors that repeat edited ones were edited as well: %s", target, len(before), summary(list(before))
        )
    return target


def _check_family(model: Model, original: str) -> None:
    if model.family not in TEXTS and model.family not in LAYOUTS:
        raise BadModel(f"{model.path.name} is a {model.family}, which has no single files; export a folder.")
    if original and model.family in LAYOUTS:
        raise BadModel(f"original is for Stable Diffusion 1, 2 and XL, and {model.path.name} is a {model.family}.")


def converted(model: Model, edit: Edit, *, dtype: torch.dtype | None = None) -> dict[str, Entry]:
    """The edited model's tensors from a folder, under the file's keys, each made when it is written."""
    parts = ("unet", "vae", *TEXTS[model.family])
    keys = {part: [key for key in model.weights(part).where if not key.endswith(_BUFFERS)] for part in parts}
    names = {f"{part}.{canonical(key)}" for part in parts for key in keys[part]}
    grouped: dict[str, list[tuple[str, Slot]]] = {}
    for name, slot in slots(names, model.family).items():
        grouped.setdefault(slot.key, []).append((name, slot))
    entries, touched = {}, set(edit.touches)
    for key, members in grouped.items():
        members.sort(key=lambda pair: pair[1].third or 0)
        entries[key] = _entry(model, edit, members, touched=touched, dtype=dtype)
    return entries


def patched(
    model: Model, source: Path, edit: Edit, *, dtype: torch.dtype | None = None
) -> tuple[dict[str, str], dict[str, Entry], dict[str, Entry]]:
    """A single file's metadata, its tensors with those of an edit in their places, and what its copies were before.

    Each tensor is made when it is written. Raises ModelMismatch if the file does not hold the model's own values there,
    BadWeights, BadModel.
    """
    metadata, _ = read_keys(source)
    header = read_header(source)
    stored = {key: _stored_entry(source, key, header) for key in header[0] if key != "__metadata__"}
    whole = open_checkpoint(source)
    by_key, copies = edited_in(whole, edit.touches)
    for name, _ in (pair for members in by_key.values() for pair in members):
        if source != model.path:  # told now, and not when half of the file is written
            _check_same(name, model.weight(name), whole.weight(name), source=source)
    edited = {
        key: replace(
            stored[key],
            dtype=dtype or stored[key].dtype,
            read=partial(_with_changes, edit, members, source, header=header, dtype=dtype),
            stored=None,
        )
        for key, members in (by_key | copies).items()
    }
    return metadata, stored | edited, {key: stored[key] for key in copies}


def _check_same(name: str, ours: Tensor, theirs: Tensor, *, source: Path) -> None:
    """Raises ModelMismatch if a file does not hold the model's own value."""
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape or not torch.equal(ours, theirs):
        raise ModelMismatch(
            f"{name} in {source} is not what the model has ({theirs.dtype}, {list(theirs.shape)} against {ours.dtype}, "
            f"{list(ours.shape)}); give the single file that the model was made from, in the same precision."
        )


def _with_changes(
    edit: Edit,
    members: Sequence[tuple[str, Place]],
    source: Path,
    *,
    header: Header,
    dtype: torch.dtype | None,
) -> Tensor:
    """What a file holds at a key, with the edit's values in it."""
    with StoredTensors(source, header) as file:
        value = cast(members[0][1].key, file.tensor(members[0][1].key), dtype)
        for name, place in members:
            value = place.put(edited_tensor(edit, name, place.read(file), dtype=dtype), value)
    return value


def _gather(model: Model, edit: Edit, members: _Parts, *, touched: set[str], dtype: torch.dtype | None) -> Tensor:
    values = ((name, slot, model.weight(name)) for name, slot in members)
    parts = [
        slot.stored(edited_tensor(edit, name, own, dtype=dtype) if name in touched else cast(name, own, dtype))
        for name, slot, own in values
    ]
    if members[0][1].third is not None and len(parts) != 3:
        raise BadModel(f"{members[0][0]} lacks its companions among query, key and value; download the model again.")
    return (torch.cat(parts) if len(parts) > 1 else parts[0]).contiguous()


def _entry(model: Model, edit: Edit, members: _Parts, *, touched: set[str], dtype: torch.dtype | None) -> Entry:
    """An entry whose dtype and shape are those of the tensor, which is made when it is written."""
    own = _gather(model, edit, members, touched=set(), dtype=dtype)
    return Entry(own.dtype, tuple(own.shape), partial(_gather, model, edit, members, touched=touched, dtype=dtype))


def _stored_entry(source: Path, key: str, header: Header) -> Entry:
    entry, begin = header[0][key], header[1]
    if entry["dtype"] not in DTYPES:
        raise BadModel(f"{key} in {source} is of {entry['dtype']}, which cannot be edited; give an unquantised model.")
    place = (source, begin + int(entry["data_offsets"][0]))
    return Entry(DTYPES[entry["dtype"]], tuple(entry["shape"]), partial(_read, source, key, header), place)


def _read(source: Path, key: str, header: Header) -> Tensor:
    with StoredTensors(source, header) as file:
        return file.tensor(key)
