"""Copies of edited weights that a file or folder holds beside them: whoever loaded one would get what was erased.

In a single file: averages, as LDM stores them (`model_ema.` and the name without its dots) or with dots, and networks
kept under another beginning (`ema.`, `unet_ema.`, diffusers' own names). In a folder: variants and pickles beside the
weights, shards that hold a tensor once more, both spellings of a text encoder's key, folders such as `unet_ema`, whole
checkpoints. A ControlNet has the same names and is another network; it is no copy.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from erase.errors import BadWeights, ModelMismatch
from erase.models import Model
from erase.models.identity import canonical
from erase.models.storage.ldm import TEXTS, UNET
from erase.models.storage.weights import Place, shapes_in

Members = dict[str, list[tuple[str, Place]]]  # by the key in a file, the edited tensors that lie there
WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".onnx", ".gguf")
_INDEX = re.compile(r".*\.index(\.[\w-]+)?\.json")
_INDICES = ("diffusion_pytorch_model.safetensors.index.json", "model.safetensors.index.json")
_CONTROL = "control_model."
_FLAT_HEAD = re.compile(r"(.*(model|mod|net))?")  # what stands before a name without dots


def copies_in(shapes: Mapping[str, tuple[int, ...]], members: Members, *, own: frozenset[str]) -> Members:
    """The keys of a file that repeat edited tensors, with where each then lies.

    `shapes` are those of the file's tensors, `members` the edited ones by their keys, `own` the keys that the model
    itself reads, which are no copies.
    """
    tails: dict[str, list[tuple[str, Place]]] = {}
    for key, found in members.items():
        for tail in _tails(key):
            tails.setdefault(tail, found)
        for name, place in found:
            plain = [(name, Place(place.file, place.key, place.shape))]
            tails.setdefault(name.partition(".")[2], plain)
    flat = {tail.replace(".", ""): found for tail, found in tails.items()}
    copies: Members = {}
    for key in (key for key in shapes if key not in own and not key.startswith(_CONTROL)):
        repeated = next((tails[tail] for tail in _suffixes(key) if tail in tails), None) or _flat(key, flat)
        if repeated and all(_holds(shapes[key], place) for _, place in repeated):
            copies[key] = [(name, replace(place, key=key)) for name, place in repeated]
    return copies


def edited_in(model: Model, names: Sequence[str]) -> tuple[Members, Members]:
    """The edited tensors by their keys in a single file, and the keys that repeat them; raises ModelMismatch."""
    parts = ("vae", model.backbone, *model.text_components)
    places = {f"{part}.{key}": place for part in parts for key, place in model.weights(part).places.items()}
    members: Members = {}
    for name in names:
        if name not in places:
            raise ModelMismatch(f"{model.path} has no {name}; it is not the single file of the model that was edited.")
        members.setdefault(places[name].key, []).append((name, places[name]))
    own = frozenset(place.key for place in places.values())
    return members, copies_in(shapes_in(model.path), members, own=own)


def _holds(shape: tuple[int, ...], place: Place) -> bool:
    """Whether a tensor of a shape can hold what lies at such a place."""
    if place.rows is not None:
        return shape == (3 * place.shape[0], *place.shape[1:])
    if place.form == "convolution":
        return shape[:2] == place.shape and set(shape[2:]) <= {1}
    return shape == (place.shape[::-1] if place.form == "transposed" else place.shape)


def _tails(key: str) -> Iterator[str]:
    """A key, and its ends down to the name inside its network."""
    inner = key.removeprefix(UNET)
    for text in {text.prefix for texts in TEXTS.values() for text in texts.values()}:
        inner = inner.removeprefix(text)
    inner = canonical(inner)
    yield from (tail for tail in _suffixes(key) if len(tail) >= len(inner))


def _suffixes(key: str) -> Iterator[str]:
    """A key and what is left of it behind each of its dots, the longest first."""
    parts = key.split(".")
    return (".".join(parts[begin:]) for begin in range(len(parts)))


def _flat(key: str, flat: Mapping[str, list[tuple[str, Place]]]) -> list[tuple[str, Place]] | None:
    """The edited tensors whose name without dots ends a key's last part."""
    last = key.rpartition(".")[2]
    ends = (last[begin:] for begin in range(len(last)))
    return next((flat[end] for end in ends if end in flat and _FLAT_HEAD.fullmatch(last.removesuffix(end))), None)


def summary(keys: Sequence[str]) -> str:
    """The keys in a few words: how many begin alike."""
    counts = Counter(key.partition(".")[0] for key in keys)
    return ", ".join(f"{count} under {begin}" for begin, count in sorted(counts.items()))


def left_out(model: Model, names: Sequence[str], file: Path) -> bool:
    """Whether a file of a model's folder holds another copy of these weights, which an export does not rewrite."""
    if not file.name.endswith(WEIGHTS) and not _INDEX.fullmatch(file.name):
        return False
    if len(file.parts) == 1:
        return True
    edited = {name.partition(".")[0] for name in names}
    if file.parts[0] in edited:
        return model.path / file not in model.weights(file.parts[0]).files and file.name not in _INDICES
    if file.parts[0] in model.parts() or file.parts[0] in ("safety_checker", "feature_extractor", "image_encoder"):
        return False
    return _repeats(model, names, file)


def _repeats(model: Model, names: Sequence[str], file: Path) -> bool:
    """Whether a file outside the model's parts holds edited weights; one that cannot be looked into is taken to."""
    kind = _class_in((model.path / file).parent)
    if kind and kind not in {_class_in(model.path / name.partition(".")[0]) for name in names}:
        return False
    if file.suffix != ".safetensors":
        return True
    try:
        shapes = shapes_in(model.path / file)
    except BadWeights:
        return True
    members: Members = {}
    for name in names:
        component, _, key = name.partition(".")
        place = model.weights(component).places[model.weights(component).stored_key(key)]
        members.setdefault(f"{component}.{key}", []).append((name, place))
    return bool(copies_in(shapes, members, own=frozenset()))


def _class_in(folder: Path) -> str:
    """The class that a folder's config names; empty if it names none."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str(config.get("_class_name") or (config.get("architectures") or [""])[0])
    except (OSError, ValueError, AttributeError, TypeError, IndexError):
        return ""
