"""A safetensors file written tensor by tensor, whose bytes depend on its content alone.

The library writes metadata in no fixed order, and only tensors that are all in memory; here keys are sorted and each
tensor is made shortly before its turn comes. What is taken over from another file is not made at all but copied; the
next tensors are made, and the last block is written, meanwhile. At the end: tensors, and headers, of a file that is
there rewritten at their own places; every other byte stays.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from erase.errors import BadWeights
from erase.files import replacing
from erase.models.storage.stored import DTYPES, read_header

HASH_KEY = "modelspec.hash_sha256"
_NO_HASH = "0x" + 64 * "0"
_BLOCK = 2**23  # bytes that are copied at once
_AHEAD = 4  # tensors that are made before their turn
_CHANGED = "the file has changed while it was read."
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


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
    digest = hashlib.sha256()
    with replacing(path, alone=True) as partial:
        with partial.open("wb", buffering=_BLOCK) as file, _ahead(to_make) as made:
            file.write(struct.pack("<Q", len(header)) + header)
            for name in order:
                for part in _parts(name, entries[name], made):
                    file.write(part)
                    if hashed:
                        digest.update(part)
        if hashed:
            with partial.open("rb+", buffering=0) as file:
                file.seek(8 + header.index(_NO_HASH.encode()))
                file.write(f"0x{digest.hexdigest()}".encode())


def _parts(name: str, entry: Entry, made: Iterator[Tensor]) -> Iterator[memoryview]:
    """A tensor's bytes, a part at a time: as they lie in another file, or of the next that is made.

    Raises BadWeights if the other file ends before they do.
    """
    if entry.stored is None:
        yield tensor_bytes(next(made))
        return
    path, begin = entry.stored
    left, block = entry.bytes, memoryview(bytearray(min(_BLOCK, entry.bytes)))
    with path.open("rb", buffering=0) as source:
        source.seek(begin)
        while left:
            if not (size := source.readinto(block[:left])):
                raise BadWeights(f"{path} ends within {name}; {_CHANGED}")
            yield block[:size]
            left -= size


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


def _plain() -> list[str]:
    return [str(dtype).removeprefix("torch.") for dtype in _NAMES]


def rewrite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Overwrites tensors in place; raises BadWeights if one is not there in the same dtype and shape."""
    header, begin = read_header(path)
    with path.open("rb+") as file:
        for name, tensor in tensors.items():
            entry = header.get(name)
            if entry is None or DTYPES.get(entry["dtype"]) != tensor.dtype or entry["shape"] != list(tensor.shape):
                raise BadWeights(f"{path} does not hold {name} as {tensor.dtype} of shape {list(tensor.shape)}.")
            file.seek(begin + entry["data_offsets"][0])
            file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())


def spell_out(path: Path) -> str:
    """Puts `text_model.` before the keys of a CLIP text encoder that lack it; the header that the file had."""
    text = header_of(path)
    header = {
        key if key.startswith(("__metadata__", "text_model.", "text_projection")) else f"text_model.{key}": entry
        for key, entry in json.loads(text).items()
    }
    new = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
    put_header(path, new + " " * (-len(new.encode()) % 8))
    return text


def header_of(file: Path) -> str:
    """A safetensors file's header as it stands there, padding included."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        return opened.read(length).decode()


def put_header(path: Path, header: str) -> None:
    """Exchanges a safetensors file's header; its tensors' bytes stay."""
    with path.open("rb") as source, replacing(path) as partial:
        (length,) = struct.unpack("<Q", source.read(8))
        source.seek(8 + length)
        with partial.open("wb") as file:
            file.write(struct.pack("<Q", len(header.encode())) + header.encode())
            shutil.copyfileobj(source, file, 2**22)
