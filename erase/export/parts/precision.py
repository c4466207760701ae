"""Exports in another precision than the source's: each number is made in float64 and rounded once, to what is asked."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from erase.edit import Edit
from erase.errors import BadOption, BadWeights
from erase.export.parts.writing import Entry, write_tensors
from erase.models import Model
from erase.models.storage.stored import stored_tensor
from erase.models.storage.weights import Weights, is_finite, read_keys, shapes_in

Precision = Literal["", "float32", "float16", "bfloat16"]  # empty: each tensor's own


def chosen(model: Model, dtype: Precision, *, reversal: bool) -> torch.dtype | None:
    """The dtype of a name, None for each tensor's own; raises BadOption beside `reversal`, BadWeights if quantised."""
    if not dtype:
        return None
    if reversal:
        raise BadOption("reversal and dtype are given; what was rounded cannot be undone: leave one of them out.")
    model.check_unquantised(f"an export as {dtype}")
    found: torch.dtype = getattr(torch, dtype)
    return found


def edited_tensor(edit: Edit, name: str, value: Tensor, *, dtype: torch.dtype | None) -> Tensor:
    """A tensor's new value in a dtype; raises BadWeights where that cannot hold it, BadEdit."""
    if dtype is None or not value.is_floating_point():
        return edit.changed_tensor(name, value)
    return cast(name, edit.changed_tensor(name, value.double()), dtype)


def cast(name: str, value: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor in a dtype, whole numbers as they are; raises BadWeights if one of its values is beyond that dtype."""
    if dtype is None or not value.is_floating_point() or value.dtype == dtype:
        return value
    found = value.to(dtype)
    if not is_finite(found):
        raise BadWeights(f"{name} has values that {str(dtype).removeprefix('torch.')} cannot hold; export as bfloat16.")
    return found


def cast_entries(entries: Mapping[str, Entry], dtype: torch.dtype | None) -> dict[str, Entry]:
    """The entries as they are to be written; those that have the dtype already are left alone."""
    return {
        key: replace(entry, dtype=dtype, read=partial(_read_cast, key, entry, dtype), stored=None)
        if dtype is not None and entry.dtype.is_floating_point and entry.dtype != dtype
        else entry
        for key, entry in entries.items()
    }


def cast_file(file: Path, made: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Rewrites a file of weights in a dtype, with new values of some tensors."""
    metadata, _ = read_keys(file)
    own = {key: Entry.made(partial(stored_tensor, file, key)) for key in shapes_in(file)}
    new = {key: Entry.of(value) for key, value in made.items()}
    write_tensors(file, cast_entries(own | new, dtype), metadata=metadata, hashed=False)


def cast_folder(model: Model, build: Path, done: Collection[Path], *, dtype: torch.dtype) -> None:
    """Rewrites a model's weight files in a dtype, but for those that are done; its configs tell the dtype."""
    for part in (model.backbone, *model.text_components, "vae"):
        for file in (file for file in Weights(build / part).files if file not in done):
            cast_file(file, {}, dtype)
        _tell_dtype(build / part, str(dtype).removeprefix("torch."))


def _tell_dtype(part: Path, dtype: str) -> None:
    """Puts a dtype where a part's config names one, and its files' size where an index names it."""
    config = part / "config.json"
    said = json.loads(config.read_text(encoding="utf-8"))
    if named := [key for key in ("dtype", "torch_dtype") if key in said]:
        config.write_text(json.dumps(said | dict.fromkeys(named, dtype), indent=2) + "\n", encoding="utf-8")
    for index in part.glob("*.index*.json"):
        content = json.loads(index.read_text(encoding="utf-8"))
        files = {part / name for name in content.get("weight_map", {}).values()}
        if "total_size" in content.get("metadata", {}) and all(file.is_file() for file in files):
            sizes = [Entry.made(partial(stored_tensor, file, key)).bytes for file in files for key in shapes_in(file)]
            content["metadata"]["total_size"] = sum(sizes)
            index.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _read_cast(name: str, entry: Entry, dtype: torch.dtype) -> Tensor:
    return cast(name, entry.read(), dtype)
