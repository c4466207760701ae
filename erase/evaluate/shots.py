"""Images to be scored: which row each one shows, on which side of the edit, and what the row is to the task."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from erase.prompts import Row
from erase.task import Target, Task

Group = Literal["erased", "kept", "unrelated"]
Side = Literal["before", "after"]
GROUPS: tuple[Group, ...] = ("erased", "kept", "unrelated")
_END_OF_PNG = b"IEND\xaeB`\x82"
SIDES: tuple[Side, ...] = ("before", "after")


@dataclass(frozen=True)
class Shot:
    """One image: its name, its row, its side, and its row's group."""

    id: str
    row: Row
    side: Side
    group: Group
    path: Path


def group_of(row: Row, task: Task) -> Group:
    """`erased` if the prompt asks for a target, `kept` if it names another concept of that kind, else `unrelated`."""
    if task.named_by(row.prompt, row.labels):
        return "erased"
    return "kept" if task.domain in row.labels else "unrelated"


def target_of(row: Row, task: Task) -> Target:
    """The target that an erased row asks for; the first one, if it asks for none."""
    return task.named_by(row.prompt, row.labels) or task.targets[0]


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


def split_readable(shots: Sequence[Shot]) -> tuple[list[tuple[Shot, Tensor]], list[Shot]]:
    """The images that can be read, with their pixels, and those that are missing or damaged."""
    read = [(shot, read_pixels(shot.path)) for shot in shots]
    return [(shot, pixels) for shot, pixels in read if pixels is not None], [
        shot for shot, pixels in read if pixels is None
    ]


def resized(pixels: Tensor, side: int) -> Tensor:
    """The picture, [3, side, side], resized if it is of another size."""
    if pixels.shape[-2:] == (side, side):
        return pixels
    grown = torch.nn.functional.interpolate(pixels[None], (side, side), mode="bicubic", antialias=True)
    return grown[0].clamp(-1, 1)
