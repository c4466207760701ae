"""The edited transformer alone, as one file in the layout in which FLUX.1 and Stable Diffusion 3 were published."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from erase.edit import Edit
from erase.errors import BadEdit
from erase.export.parts.precision import cast, edited_tensor
from erase.export.parts.writing import Entry
from erase.models import Model
from erase.models.storage.mmdit import LAYOUTS, Member, members_of

__all__ = ["LAYOUTS", "transformer_entries"]


def transformer_entries(model: Model, edit: Edit, *, dtype: torch.dtype | None = None) -> dict[str, Entry]:
    """The file's tensors by its keys, each made when it is written.

    Raises BadEdit if the edit changes what the file does not hold, BadModel.
    """
    if beyond := [name for name in edit.touches if not name.startswith(f"{model.backbone}.")]:
        raise BadEdit(
            f"{beyond[0]} is changed, and a {model.family} file holds the transformer alone; export a folder."
        )
    joined: dict[str, list[tuple[str, Member]]] = {}
    for key, member in members_of(model.weights(model.backbone).places, model.family).items():
        joined.setdefault(member.key, []).append((f"{model.backbone}.{key}", member))
    entries, touched = {}, frozenset(edit.touches)
    for key, parts in joined.items():
        parts.sort(key=lambda pair: pair[1].turn)
        own = _gathered(model, edit, parts, touched=frozenset(), dtype=dtype)
        made = partial(_gathered, model, edit, parts, touched=touched, dtype=dtype)
        entries[key] = Entry(own.dtype, tuple(own.shape), made)
    return entries


def _gathered(
    model: Model,
    edit: Edit,
    parts: Sequence[tuple[str, Member]],
    *,
    touched: frozenset[str],
    dtype: torch.dtype | None,
) -> Tensor:
    values = []
    for name, member in parts:
        own = model.weight(name)
        values.append(
            member.stored(edited_tensor(edit, name, own, dtype=dtype) if name in touched else cast(name, own, dtype))
        )
    return (torch.cat(values) if len(values) > 1 else values[0]).contiguous()
