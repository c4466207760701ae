"""Pictures on the disk and the shots that name them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from erase.config.prompts import Row
from erase.evaluate.images import Group, ScoredImage, Side
from erase.sampling.pictures import read_picture


def noisy(path: Path, *, seed: int = 0, side: int = 16) -> Path:
    """A file of a random picture with a random tint."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (side, side, 3)) * rng.uniform(0.2, 1.0, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def plain(path: Path, colour: str) -> Path:
    """A file of one colour."""
    Image.new("RGB", (16, 16), colour).save(path)
    return path


def shot(
    identity: str,
    prompt: str = "a cat in noto style",
    *,
    path: Path = Path("nowhere.png"),
    side: Side = "after",
    group: Group = "erased",
    seed: int = 0,
    **labels: str,
) -> ScoredImage:
    """A shot of this name, its row labelled by keywords."""
    return ScoredImage(identity, Row(prompt, seed, labels), side, group, path)


def read_pixels(path: Path) -> torch.Tensor | None:
    """A picture's pixels [3, height, width] in -1 .. 1, or None if it is missing or damaged."""
    picture = read_picture(path)
    return None if picture is None else torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1
