"""Tensors rewritten inside a safetensors file, at their own places; every other byte stays."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from erase.errors import BadWeights

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """A safetensors file's header and where its data begins."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)), 8 + length


def rewrite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Overwrites tensors in place; raises BadWeights if one is not there in the same dtype and shape."""
    header, begin = read_header(path)
    with path.open("rb+") as file:
        for name, tensor in tensors.items():
            entry = header.get(name)
            if entry is None or _DTYPES.get(entry["dtype"]) != tensor.dtype or entry["shape"] != list(tensor.shape):
                raise BadWeights(f"{path} does not hold {name} as {tensor.dtype} of shape {list(tensor.shape)}.")
            file.seek(begin + entry["data_offsets"][0])
            file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
