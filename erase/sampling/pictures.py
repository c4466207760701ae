"""Pictures as files hold them: read whole or not at all, as pixels, at another size."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_END_OF_PNG = b"IEND\xaeB`\x82"


def read_picture(path: Path) -> Image.Image | None:
    """The picture in a file, read to its end, or None if it is missing, damaged or cut short."""
    try:
        data = path.read_bytes()
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        Image.open(io.BytesIO(data)).verify()  # checksums, which reading the pixels does not look at
    except Exception:  # whatever a decoder raises, a size that no memory holds among them
        return None
    return picture if data.endswith(_END_OF_PNG) or not data.startswith(b"\x89PNG") else None


def read_pixels(path: Path) -> Tensor | None:
    """A picture's pixels [3, height, width] in -1 .. 1, or None if it is missing or damaged."""
    picture = read_picture(path)
    if picture is None:
        return None
    array = np.asarray(picture)
    return torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 127.5 - 1


def resized(pixels: Tensor, side: int) -> Tensor:
    """The picture, [3, side, side], resized if it is of another size."""
    if pixels.shape[-2:] == (side, side):
        return pixels
    grown = torch.nn.functional.interpolate(pixels[None], (side, side), mode="bicubic", antialias=True)
    return grown[0].clamp(-1, 1)
