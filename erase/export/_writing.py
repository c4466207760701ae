"""A safetensors file written tensor by tensor, whose bytes depend on its content alone.

The library writes metadata in no fixed order, and only tensors that are all in memory; here keys are sorted and each
tensor is made when its turn comes.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from erase.errors import BadWeights
from erase.files import replacing

HASH_KEY = "modelspec.hash_sha256"
_NO_HASH = "0x" + 64 * "0"
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
DTYPES = {name: dtype for dtype, name in _NAMES.items()}


@dataclass(frozen=True)
class Entry:
    """A tensor to be written: its dtype and shape now, its values when they are asked for."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], Tensor]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @staticmethod
    def of(tensor: Tensor) -> Entry:
        """The entry of a tensor that is in memory."""
        return Entry(tensor.dtype, tuple(tensor.shape), lambda: tensor)


def write_tensors(path: Path, entries: Mapping[str, Entry], *, metadata: Mapping[str, str]) -> None:
    """Writes the file, whole or not at all; ModelSpec's hash is over the tensors' bytes and is added here.

    Raises BadWeights if a dtype has no name in the format or a tensor is not what its entry says, DiskFull.
    """
    # Larger numbers first, as the library does: every tensor then begins at a multiple of its own size.
    order = sorted(entries, key=lambda name: (-entries[name].dtype.itemsize, name))
    header = _header(entries, order, metadata=dict(metadata) | {HASH_KEY: _NO_HASH})
    digest = hashlib.sha256()
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for name in order:
            data = _data(name, entries[name])
            digest.update(data)
            file.write(data)
        _fill_in(file, header, digest.hexdigest())


def tensor_bytes(tensor: Tensor) -> bytes:
    """A tensor's values as the format stores them."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def _header(entries: Mapping[str, Entry], order: list[str], *, metadata: Mapping[str, str]) -> bytes:
    content: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    begin = 0
    for name in order:
        entry = entries[name]
        if entry.dtype not in _NAMES:
            raise BadWeights(f"{name} is of {entry.dtype}, which cannot be written; expected {', '.join(_plain())}.")
        end = begin + entry.bytes
        content[name] = {"dtype": _NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(content, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _data(name: str, entry: Entry) -> bytes:
    tensor = entry.read()
    if tensor.dtype != entry.dtype or tuple(tensor.shape) != entry.shape:
        raise BadWeights(
            f"{name} is {tensor.dtype} {list(tensor.shape)}; expected {entry.dtype} {list(entry.shape)}: "
            "the file has changed while it was read."
        )
    return tensor_bytes(tensor)


def _fill_in(file: BinaryIO, header: bytes, digest: str) -> None:
    file.seek(8 + header.index(_NO_HASH.encode()))
    file.write(f"0x{digest}".encode())


def _plain() -> list[str]:
    return [str(dtype).removeprefix("torch.") for dtype in _NAMES]
