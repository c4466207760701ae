"""Weights of one part of a model, read tensor by tensor from its safetensors files."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from erase.errors import BadModel, BadWeights, PickleRefused
from erase.models.storage.stored import Header, StoredTensors, read_header

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
VARIANTS = ("", "fp16", "bf16")  # in the order in which they are looked for
CONVERT = (
    "expected safetensors: load it in an environment you trust, and write it again with "
    "`save_pretrained(folder, safe_serialization=True)`."
)
_BLOCK = 2**15  # values that are hashed at once: few enough to stay in the processor's cache
_STEMS = ("diffusion_pytorch_model", "model")


SCALES = ("scale_weight", "weight_scale")  # how files spell what a weight in eight bits is multiplied with
_COARSE = ("F8_E4M3", "F8_E5M2", "I8", "U8", "F4")
Form = Literal["same", "convolution", "transposed", "swapped"]  # how a file holds a tensor; its halves swapped


def laid(value: Tensor, form: Form) -> Tensor:
    """A tensor in the form in which a file holds it."""
    if form == "convolution":
        return value.reshape(*value.shape, 1, 1) if value.dim() == 2 else value
    if form == "swapped":
        return torch.cat(value.chunk(2)[::-1])
    return value.T.contiguous() if form == "transposed" else value


@dataclass(frozen=True)
class Place:
    """Where a tensor of a shape lies: in a file, under a key, in a form.

    `rows`: it is only these rows, first and end, of what lies there.
    """

    file: Path
    key: str
    shape: tuple[int, ...]
    rows: tuple[int, int] | None = None
    form: Form = "same"

    def read(self, file: StoredTensors, dtype: torch.dtype | None = None) -> Tensor:
        """The tensor, out of its opened file, in its own dtype or another."""
        tensor = file.tensor(self.key, self.rows, dtype=dtype)
        if self.rows is not None:
            return tensor
        return laid(tensor, self.form) if self.form in ("transposed", "swapped") else tensor.reshape(self.shape)

    def put(self, value: Tensor, stored: Tensor) -> Tensor:
        """What lies at the key, with this tensor's new value in it."""
        if self.rows is not None:
            return torch.cat([stored[: self.rows[0]], value, stored[self.rows[1] :]])
        return laid(value, self.form).reshape(stored.shape)


class Tensors(ABC):
    """The tensors of one part of a model, under the names that diffusers gives them."""

    @property
    @abstractmethod
    def places(self) -> Mapping[str, Place]:
        """Where each tensor lies; raises BadWeights on a corrupt or truncated file."""

    @cached_property
    def where(self) -> dict[str, Path]:
        """Which file holds which tensor; raises BadWeights on a corrupt or truncated file."""
        return {key: place.file for key, place in self.places.items()}

    @cached_property
    def _headers(self) -> dict[Path, Header]:
        return {file: read_header(file) for file in self.files}

    @property
    def files(self) -> list[Path]:
        """The files that hold the tensors."""
        return sorted(set(self.where.values()))

    def stored_key(self, key: str) -> str:
        """The key as the files spell it: text encoders are stored with and without `text_model.` in front."""
        return key if key in self.places else f"text_model.{key}"

    def has(self, key: str) -> bool:
        """Whether there is such a tensor, however it is spelled."""
        return self.stored_key(key) in self.places

    def shape(self, key: str) -> tuple[int, ...]:
        return self.places[self.stored_key(key)].shape

    def tensor(self, key: str) -> Tensor:
        """One tensor, in the file's own dtype; raises BadWeights if it holds NaN or infinity."""
        return next(self.tensors([self.stored_key(key)]))[1]

    def tensors(
        self, keys: Iterable[str] | None = None, *, dtype: torch.dtype | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """Tensors by name, one at a time, in the order asked for or else sorted, in their own dtypes or another.

        Raises BadWeights as `tensor` does.
        """
        wanted = sorted(self.places) if keys is None else list(keys)
        with ExitStack() as stack:
            opened: dict[Path, StoredTensors] = {}
            for key in wanted:
                place = self.places[key]
                if place.file not in opened:
                    opened[place.file] = stack.enter_context(StoredTensors(place.file, self._headers[place.file]))
                tensor = place.read(opened[place.file], dtype)
                check_finite(tensor, f"{key} in {place.file}")
                if (scale := self.scale_key(key)) is not None:
                    tensor = tensor.float() * self.places[scale].read(opened[place.file]).float()
                yield key, tensor

    def scale_key(self, key: str) -> str | None:
        """The key of what a weight in eight bits is multiplied with, where the file has scales."""
        stem = key.removesuffix("weight")
        return next((one for one in (f"{stem}{end}" for end in SCALES) if stem != key and one in self.places), None)

    def quantised(self) -> str:
        """The kind in which some weight is stored that is too coarse for an edit to be written in; else nothing."""
        kinds = {str(entry["dtype"]) for header, _ in self._headers.values() for entry in _entries(header)}
        return next((kind for kind in sorted(kinds) if kind in _COARSE), "")


def _entries(header: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a header says of its tensors, scalars and markers left out."""
    return (entry for key, entry in header.items() if key != "__metadata__" and len(entry["shape"]) > 1)


class Weights(Tensors):
    """The tensors of one folder of a model, whatever its variant or number of shards.

    `variant`: "fp16" or "bf16" where the files' names say so, and there are no others.
    Raises BadModel if the folder holds no weights, PickleRefused if it holds pickles only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variant, self._files = weight_files(folder)

    @property
    def files(self) -> list[Path]:
        """The files that hold the tensors, those included whose tensors all lie in a later one as well."""
        return self._files

    @cached_property
    def places(self) -> Mapping[str, Place]:
        return {key: Place(file, key, shape) for file in self._files for key, shape in shapes_in(file).items()}


class WeightsOfFile(Tensors):
    """The tensors of one part of a checkpoint."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = places

    @property
    def places(self) -> Mapping[str, Place]:
        return self._places


def check_finite(tensor: Tensor, where: str) -> None:
    """Raises BadWeights if a tensor holds NaN or infinity."""
    if not is_finite(tensor):
        raise BadWeights(f"tensor {where} holds NaN or infinite values; the file is damaged: download the model again.")


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity; its ends tell, ten times faster than every value would."""
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    if tensor.element_size() < 2:  # no ends of these can be asked for
        return bool(torch.isfinite(tensor.float()).all())
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())


def content_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, shapes and values, in hex; the same for a float16 file and its float32 copy."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        for block in torch.split(tensor.detach().cpu().contiguous().view(-1), _BLOCK):
            digest.update(block.float().numpy().data)
    return digest.hexdigest()


def weights_digest(weights: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, shapes and values, in hex; the same for a file of half precision and its float32 copy.

    It takes half of the time that `content_digest` does of weights of half precision.
    """
    digest = hashlib.sha256()
    for name, weight in weights:
        _add_narrowest(digest, name, weight)
    return digest.hexdigest()


def rounded_digests(weights: Iterable[tuple[str, Tensor]], dtypes: Mapping[str, torch.dtype]) -> dict[str, str]:
    """What `weights_digest` gives of the weights rounded to each dtype, by its name."""
    digests = {name: hashlib.sha256() for name in dtypes}
    for name, weight in weights:
        for dtype, digest in digests.items():
            _add_narrowest(digest, name, weight.to(dtypes[dtype]))
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _add_narrowest(digest: Any, name: str, weight: Tensor) -> None:
    value = narrowest(weight.detach().cpu().contiguous())
    digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
    digest.update(value.view(-1).view(torch.uint8).numpy().data)


def narrowest(value: Tensor) -> Tensor:
    """The same values in the first of bfloat16, float16 and float32 that holds them all, or rounded to the last."""
    if value.dtype == torch.bfloat16:
        return value
    for kind in (torch.bfloat16, torch.float16):
        if all(_holds(kind, part) for part in (value.view(-1)[:_BLOCK], value)):  # most fail within a few values
            return value.to(kind)
    return value.float()


def _holds(kind: torch.dtype, value: Tensor) -> bool:
    return torch.equal(value.to(kind).float(), value.float())


def weight_files(folder: Path) -> tuple[str, list[Path]]:
    """The safetensors in a folder that its classes load, and which variant they are; the plain ones where there are.

    Raises BadModel if there is none, PickleRefused if there are pickles only.
    """
    for variant in VARIANTS:
        end = f".{variant}" if variant else ""
        for stem in _STEMS:
            index, file = folder / f"{stem}.safetensors.index{end}.json", folder / f"{stem}{end}.safetensors"
            # Of a file and shards side by side diffusers loads the shards, transformers the file.
            if index.exists() and not (stem == "model" and file.exists()):
                return variant, _shards(index)
            if file.exists():
                return variant, [file]
    pickles = [file for file in sorted(folder.glob("*")) if file.suffix in PICKLES]
    if pickles:
        raise PickleRefused(f"{pickles[0]} is a pickle, which can run code when it is read; {CONVERT}")
    raise BadModel(f"{folder} holds no weights; expected {' or '.join(f'{s}.safetensors' for s in _STEMS)} in it.")


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadWeights(f"{index} is not an index of shards ({error}); download the model again.") from error
    for name in names:
        if Path(name).name != name or name in ("", ".."):
            raise BadWeights(f'{index} names the shard "{name}", which is not a plain file name; do not trust it.')
        if not (index.parent / name).exists():
            raise BadWeights(f"{index} names the shard {name}, which is not there; download the model again.")
    return [index.parent / name for name in names]


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a file's tensors by key; raises BadWeights on a corrupt or truncated file, PickleRefused."""
    with _opened(path) as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in sorted(file.keys())}


def read_keys(path: Path) -> tuple[dict[str, str], list[str]]:
    """A safetensors file's metadata and its sorted keys; raises PickleRefused, BadModel, BadWeights."""
    if not path.is_file():
        raise BadModel(f"{path} does not exist; expected a .safetensors file or a diffusers folder.")
    with _opened(path) as file:
        return dict(file.metadata() or {}), sorted(file.keys())


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    refuse_pickle(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise BadWeights(
            f"{path} is corrupt or truncated ({error}); expected a whole safetensors file: download the model again."
        ) from error


def refuse_pickle(path: Path) -> None:
    """Raises PickleRefused for a pickle, whatever its name says; a file that cannot be opened is none."""
    try:
        with path.open("rb") as file:
            begin = file.read(16)
    except OSError:
        return
    is_plain = begin[8:9] == b"{"  # behind the length of a safetensors header
    is_known = begin.startswith(b"PK\x03\x04") or (begin[:1] == b"\x80" and begin[1:2] in (b"\2", b"\3", b"\4", b"\5"))
    if path.suffix in PICKLES or (is_known and not is_plain):
        raise PickleRefused(f"{path} is a pickle, which can run code when it is read; {CONVERT}")
