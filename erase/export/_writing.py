"""A safetensors file written tensor by tensor, whose bytes depend on its content alone.

The library writes metadata in no fixed order, and only tensors that are all in memory; here keys are sorted and each
tensor is made shortly before its turn comes. What is taken over from another file is not made at all but copied by the
system; making tensors and hashing go on beside the writing.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from erase.errors import BadWeights
from erase.files import replacing

HASH_KEY = "modelspec.hash_sha256"
_NO_HASH = "0x" + 64 * "0"
_BLOCK = 2**23  # bytes that are read or hashed at once
_PART = 2**26  # bytes that are copied at once
_AHEAD = 4  # tensors that are made before their turn, or wait to be hashed
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
    to_make = [(name, entries[name]) for name in order if entries[name].stored is None]
    with replacing(path) as partial, partial.open("wb", buffering=0) as file, _ahead(to_make) as made:
        file.write(struct.pack("<Q", len(header)) + header)
        with _Stream(file, hashed=hashed) as stream:
            for name in order:
                if (stored := entries[name].stored) is None:
                    stream.write(tensor_bytes(next(made)))
                else:
                    stream.copy(name, *stored, count=entries[name].bytes)
        if hashed:
            _fill_in(file, header, stream.digest.hexdigest())


class _Stream:
    """A file that is written and hashed at the same time."""

    def __init__(self, file: FileIO, *, hashed: bool) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self._hashing = ThreadPoolExecutor(1) if hashed else None
        self._waiting: deque[Future[None]] = deque()

    def write(self, block: memoryview) -> None:
        """Writes these bytes."""
        self._hash(partial(self.digest.update, block))
        while block:
            block = block[self.file.write(block) :]

    def copy(self, name: str, path: Path, begin: int, *, count: int) -> None:
        """Writes a tensor's bytes as they lie in another file; raises BadWeights if that ends before they do."""
        with path.open("rb", buffering=0) as source:
            if os.fstat(source.fileno()).st_size < begin + count:
                raise BadWeights(f"{path} ends within {name}; {_CHANGED}")
            self._hash(partial(_hash_part, self.digest, path, begin=begin, count=count))
            for start in range(begin, begin + count, _PART):
                _copy_part(source, self.file, begin=start, count=min(_PART, begin + count - start))

    def _hash(self, work: Callable[[], None]) -> None:
        if self._hashing is None:
            return
        self._waiting.append(self._hashing.submit(work))
        if len(self._waiting) > _AHEAD:
            self._waiting.popleft().result()

    def __enter__(self) -> _Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hashing is not None:
            self._hashing.shutdown(cancel_futures=kind is not None)
        for one in self._waiting if kind is None else ():
            one.result()


def _copy_part(source: FileIO, target: FileIO, *, begin: int, count: int) -> None:
    """Appends a part of a file to another, within the system where that can."""
    while count and hasattr(os, "copy_file_range"):
        try:
            done = os.copy_file_range(source.fileno(), target.fileno(), count, offset_src=begin)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            break  # two file systems, or one that cannot
        if not done:
            break
        begin, count = begin + done, count - done
    source.seek(begin)
    while count:
        block = source.read(min(count, _BLOCK))
        if not block:
            raise BadWeights(f"{source.name} ends too early; {_CHANGED}")
        target.write(block)
        count -= len(block)


def _hash_part(digest: Any, path: Path, *, begin: int, count: int) -> None:
    """Adds a part of a file to a digest."""
    block = memoryview(bytearray(min(count, _BLOCK)))
    with path.open("rb", buffering=0) as source:
        source.seek(begin)
        while count:
            size = source.readinto(block[: min(count, len(block))])
            if not size:
                return  # who copies the same part says so
            digest.update(block[:size])
            count -= size


@contextmanager
def _ahead(entries: Sequence[tuple[str, Entry]]) -> Iterator[Iterator[Tensor]]:
    """The entries' tensors in their order, a few of which are made while others are written."""
    maker = ThreadPoolExecutor(1)

    def made() -> Iterator[Tensor]:
        waiting: deque[Future[Tensor]] = deque()
        for number in range(len(entries) + _AHEAD):
            if number < len(entries):
                waiting.append(maker.submit(_make, *entries[number]))
            if number >= _AHEAD:
                yield waiting.popleft().result()

    try:
        yield made()
    finally:
        maker.shutdown(cancel_futures=True)


def _make(name: str, entry: Entry) -> Tensor:
    """An entry's tensor; raises BadWeights if it is not what the entry says."""
    tensor = entry.read()
    if tensor.dtype != entry.dtype or tuple(tensor.shape) != entry.shape:
        found = f"{tensor.dtype} {list(tensor.shape)}"
        raise BadWeights(f"{name} is {found}; expected {entry.dtype} {list(entry.shape)}: {_CHANGED}")
    return tensor


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


def _fill_in(file: FileIO, header: bytes, digest: str) -> None:
    file.seek(8 + header.index(_NO_HASH.encode()))
    file.write(f"0x{digest}".encode())


def _plain() -> list[str]:
    return [str(dtype).removeprefix("torch.") for dtype in _NAMES]
