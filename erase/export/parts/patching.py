"""Tensors rewritten inside a safetensors file, at their own places; every other byte stays."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from erase.errors import BadWeights
from erase.files import replacing
from erase.models.storage.stored import DTYPES, read_header


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
