"""A safetensors file written tensor by tensor, whose bytes depend on its content alone.

The library writes metadata in no fixed order, and only tensors that are all in memory; here keys are sorted and each
tensor is made when its turn comes. What is taken over from another file is not made at all but copied, block by block;
hashing and flushing to the disk go on beside the writing.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import torch
from torch import Tensor

from erase.errors import BadWeights
from erase.files import replacing

HASH_KEY = "modelspec.hash_sha256"
_NO_HASH = "0x" + 64 * "0"
_BLOCK = 2**23  # bytes that are copied at once
_FLUSHED = 2**27  # bytes after which the disk is set to work
_WAITING = 4  # blocks that hashing may be behind
_CHANGED = "the file has changed while it was read."
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
    """A tensor to be written: its dtype and shape now, its values when they are asked for.

    `stored`: the file in which it lies as it is to be written, and where its bytes begin.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    stored: tuple[Path, int] | None = None

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @staticmethod
    def of(tensor: Tensor) -> Entry:
        """The entry of a tensor that is in memory."""
        return Entry(tensor.dtype, tuple(tensor.shape), lambda: tensor)

    @staticmethod
    def made(read: Callable[[], Tensor]) -> Entry:
        """The entry of a tensor that is made now for its dtype and shape, let go, and made again to be written."""
        tensor = read()
        return Entry(tensor.dtype, tuple(tensor.shape), read)


def write_tensors(
    path: Path, entries: Mapping[str, Entry], *, metadata: Mapping[str, str], hashed: bool = True
) -> None:
    """Writes the file, whole or not at all; ModelSpec's hash is over the tensors' bytes and is added here if `hashed`.

    Raises BadWeights if a dtype has no name in the format or a tensor is not what its entry says, DiskFull.
    """
    # Larger numbers first, as the library does: every tensor then begins at a multiple of its own size.
    order = sorted(entries, key=lambda name: (-entries[name].dtype.itemsize, name))
    header = _header(entries, order, metadata=dict(metadata) | ({HASH_KEY: _NO_HASH} if hashed else {}))
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        with _Stream(file) as stream:
            for name in order:
                for block in _blocks(name, entries[name]):
                    stream.write(block)
        if hashed:
            _fill_in(file, header, stream.digest.hexdigest())


class _Stream:
    """A file that is written, hashed and flushed at the same time, each by a thread of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self._hashing, self._flushing = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._hashed: deque[Future[None]] = deque()
        self._flushed: Future[None] | None = None
        self._unflushed = 0

    def write(self, block: bytes | memoryview) -> None:
        self._hashed.append(self._hashing.submit(self.digest.update, block))
        self.file.write(block)
        if len(self._hashed) > _WAITING:
            self._hashed.popleft().result()
        self._unflushed += len(block)
        if self._unflushed >= _FLUSHED and (self._flushed is None or self._flushed.done()):
            self._unflushed, self._flushed = 0, self._flushing.submit(os.fsync, self.file.fileno())

    def __enter__(self) -> _Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hashing.shutdown()
        self._flushing.shutdown()
        if self._flushed is not None and kind is None:
            self._flushed.result()  # a disk that has failed says so here


def tensor_bytes(tensor: Tensor) -> memoryview:
    """A tensor's values as the format stores them, uncopied where they lie in order."""
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


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


def _blocks(name: str, entry: Entry) -> Iterator[bytes | memoryview]:
    """The tensor's bytes; raises BadWeights if they are not what the entry says."""
    if entry.stored is None:
        tensor = entry.read()
        if tensor.dtype != entry.dtype or tuple(tensor.shape) != entry.shape:
            found = f"{tensor.dtype} {list(tensor.shape)}"
            raise BadWeights(f"{name} is {found}; expected {entry.dtype} {list(entry.shape)}: {_CHANGED}")
        yield tensor_bytes(tensor)
        return
    path, begin = entry.stored
    with path.open("rb", buffering=0) as source:
        source.seek(begin)
        left = entry.bytes
        while left:
            block = source.read(min(left, _BLOCK))
            if not block:
                raise BadWeights(f"{path} ends within {name}; {_CHANGED}")
            left -= len(block)
            yield block


def _fill_in(file: BinaryIO, header: bytes, digest: str) -> None:
    file.seek(8 + header.index(_NO_HASH.encode()))
    file.write(f"0x{digest}".encode())


def _plain() -> list[str]:
    return [str(dtype).removeprefix("torch.") for dtype in _NAMES]
