"""Tensors of a safetensors file, read from it into memory of their own.

The library maps files instead, and what was read of a mapped file counts as this process's memory beside the tensors
that are made of it, for as long as the file is open.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import torch
from torch import Tensor

from erase.errors import BadWeights

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
    }
)


_PART = 2**19  # values that are read and converted at once
Header = tuple[Mapping[str, Any], int]  # what a file says of its tensors, and where its data begins


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """A safetensors file's header and where its data begins."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)), 8 + length


class StoredTensors:
    """An opened safetensors file, to be closed by a `with` block; its header is taken as it is.

    `header`: what `read_header` found, where that was read before; to read it again takes longer than a tensor does.
    """

    def __init__(self, path: Path, header: Header | None = None) -> None:
        self.path = path
        self._header, self._begin = header or read_header(path)
        self._file = path.open("rb", buffering=0)

    def tensor(self, key: str, rows: tuple[int, int] | None = None, *, dtype: torch.dtype | None = None) -> Tensor:
        """The tensor at a key, or these rows of it, first and end, in its own dtype or another.

        Raises BadWeights if it cannot be read.
        """
        entry = self._header[key]
        if entry["dtype"] not in DTYPES:
            raise BadWeights(f"{key} in {self.path} is of {entry['dtype']}; expected one of {', '.join(DTYPES)}.")
        own, shape = DTYPES[entry["dtype"]], list(entry["shape"])
        begin = self._begin + int(entry["data_offsets"][0])
        if rows is not None:
            begin += rows[0] * math.prod(shape[1:]) * own.itemsize
            shape[0] = rows[1] - rows[0]
        value = torch.empty(shape, dtype=dtype or own)
        self._file.seek(begin)
        if value.dtype == own:
            self._fill(key, value.view(-1))
        else:  # a part at a time, for the whole would be there twice
            part = torch.empty(min(value.numel(), _PART), dtype=own)
            for room in torch.split(value.view(-1), _PART):
                self._fill(key, part[: len(room)])
                room.copy_(part[: len(room)])
        return value

    def _fill(self, key: str, values: Tensor) -> None:
        """Reads the next bytes into a tensor of one dimension."""
        block = values.view(torch.uint8).numpy().data
        while block:
            if not (size := self._file.readinto(block)):
                raise BadWeights(f"{self.path} ends within {key}; the file has changed while it was read.")
            block = block[size:]

    def __enter__(self) -> StoredTensors:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def stored_tensor(file: Path, key: str) -> Tensor:
    """One tensor of a safetensors file; raises BadWeights."""
    with StoredTensors(file) as opened:
        return opened.tensor(key)
