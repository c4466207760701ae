"""Tensors rewritten inside a safetensors file, at their own places; every other byte stays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from erase.errors import BadWeights
from erase.models._stored import DTYPES, read_header


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
