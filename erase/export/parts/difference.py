"""Which tensors of two files or folders differ, and by how much."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from erase.edit import Edit
from erase.errors import BadModel
from erase.foreign import edit_in
from erase.models import Model, open_model
from erase.models.identity import canonical
from erase.models.storage.checkpoint import open_checkpoint
from erase.models.storage.kinds import WHOLE, kind_of
from erase.models.storage.ldm import current
from erase.models.storage.stored import StoredTensors
from erase.models.storage.weights import Place, Weights, read_keys, shapes_in


@dataclass(frozen=True)
class Difference:
    """How a tensor differs: `relative` is the change's Frobenius norm by the first's; `rank` that of the change.

    A tensor that only one side has, or has in another shape or dtype, says so in `why` and has no numbers.
    """

    name: str
    relative: float = 0.0
    largest: float = 0.0
    rank: int | None = None
    why: str = ""


@dataclass(frozen=True)
class Comparison:
    """All tensors that differ, sorted by name, and how many are the same bit for bit.

    `beside`: how many of a single file's tensors have no place in a folder, so that nothing is said of them.
    """

    differences: tuple[Difference, ...]
    same: int
    beside: int = 0


def compare(one: Path, other: Path, *, ranks: bool = True) -> Comparison:
    """The comparison of two safetensors files, two diffusers folders, or a folder and a single file.

    Raises BadModel if they have no tensor in common, BadWeights.
    """
    if (base := _base_of(one, other)) is not None:
        return _compare_edit(base, edit_in(other, base), ranks=ranks)
    is_mixed = one.is_dir() != other.is_dir()
    (left, beside), (right, more) = (places_in(path, is_mixed=is_mixed) for path in (one, other))
    if not left.keys() & right.keys():
        raise BadModel(f"{one} and {other} have no tensor in common; compare two models, or two files of one kind.")
    names = sorted(left.keys() | right.keys())
    found = [difference(name, left.get(name), right.get(name), ranks=ranks) for name in names]
    differences = tuple(one for one in found if one is not None)
    return Comparison(differences, len(names) - len(differences), beside + more)


def _base_of(one: Path, other: Path) -> Model | None:
    """The first, opened, where the second is a file of changes to it: an edit, a LoRA, some tensors."""
    kinds = [kind_of(read_keys(path)[1]) if path.is_file() else "" for path in (one, other)]
    if not kinds[1] or kinds[1] in WHOLE or not (one.is_dir() or kinds[0] in WHOLE):
        return None
    return open_model(one)


def _compare_edit(base: Model, edit: Edit, *, ranks: bool) -> Comparison:
    """How a base's tensors differ under an edit."""
    pairs = ((name, base.weight(name)) for name in edit.touches)
    found = [differing(name, own, edit.changed_tensor(name, own), ranks=ranks) for name, own in pairs]
    differences = tuple(one for one in found if one is not None)
    parts = (base.backbone, *base.text_components)
    return Comparison(differences, sum(len(base.weights(part).places) for part in parts) - len(differences))


def places_in(path: Path, *, is_mixed: bool) -> tuple[dict[str, Place], int]:
    """Where each tensor lies, by its name: in a folder with the part in front and without `text_model.`.

    A file's tensors have their own names, or those of a folder if it is compared with one; the number says how many
    have none there.
    """
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise BadModel(f"{path} is no diffusers folder: expected one with a model_index.json in it.")
        return {name: place for part in sorted(path.iterdir()) for name, place in _part(part)}, 0
    read_keys(path)
    if not is_mixed:
        return {key: Place(path, key, shape) for key, shape in shapes_in(path).items()}, 0
    model = open_checkpoint(path)
    parts = ("unet", "vae", *model.text_components)
    found = {f"{part}.{name}": place for part in parts for name, place in model.weights(part).places.items()}
    return found, len(shapes_in(path).keys() - {place.key for place in found.values()})


def difference(name: str, one: Place | None, other: Place | None, *, ranks: bool) -> Difference | None:
    """How a tensor differs; None if it does not, bit for bit."""
    if one is None or other is None:
        return Difference(name, why="only in the second" if one is None else "only in the first")
    return differing(name, _read(one), _read(other), ranks=ranks)


def differing(name: str, before: Tensor, after: Tensor, *, ranks: bool) -> Difference | None:
    """How a tensor's two values differ; None if they do not, bit for bit."""
    if before.shape != after.shape:
        return Difference(name, why=f"{list(before.shape)} and {list(after.shape)}")
    if before.dtype == after.dtype and torch.equal(before.view(-1).view(torch.uint8), after.view(-1).view(torch.uint8)):
        return None
    why = "" if before.dtype == after.dtype else f"{_plain(before.dtype)} and {_plain(after.dtype)}"
    change = after.double() - before.double()
    norm = float(torch.linalg.vector_norm(before.double()))
    relative = float(torch.linalg.vector_norm(change)) / norm if norm else float("inf")
    rank = rank_of(change, after) if ranks and change.dim() == 2 and bool(torch.isfinite(change).all()) else None
    return Difference(name, relative, float(change.abs().max()), rank, why)


def rank_of(change: Tensor, stored: Tensor) -> int:
    """The rank of a change that was stored in a weight's precision: singular values above the rounding's.

    Rounding adds noise of at most half a unit in the last place to each entry; a random matrix whose entries have the
    deviation s has singular values up to s (sqrt(rows) + sqrt(columns)).
    """
    unit = torch.finfo(stored.dtype).eps if stored.is_floating_point() else 1.0
    deviation = unit * float(stored.double().square().mean().sqrt())
    rows, columns = change.shape
    floor = deviation * (rows**0.5 + columns**0.5)
    return int((torch.linalg.svdvals(change) > floor).sum())


def _part(folder: Path) -> Iterator[tuple[str, Place]]:
    if folder.is_dir() and any(folder.glob("*.safetensors")):
        for key, place in Weights(folder).places.items():
            yield f"{folder.name}.{current(folder.name, canonical(key))}", place


def _read(place: Place) -> Tensor:
    with StoredTensors(place.file) as opened:
        return place.read(opened)


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
