"""Pictures as a network takes them, by the numbers in its folder's own preprocessor_config.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from erase.errors import ScoreFailed

CONVNEXT_BELOW = 384  # pixels: processors with `crop_pct` resize by it only below this side


@dataclass(frozen=True)
class Preparation:
    """Resize the shorter edge to `edge` (both edges if `edge` is 0), crop the middle `side`, subtract and divide."""

    side: int
    edge: int = 0
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    deviation: tuple[float, ...] = (0.5, 0.5, 0.5)
    resample: int = Image.Resampling.BICUBIC

    def __call__(self, pictures: Sequence[Image.Image]) -> Tensor:
        """The pictures, [pictures, 3, side, side]."""
        arrays = [np.asarray(self._sized(picture), dtype=np.float32) / 255 for picture in pictures]
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        mean, deviation = (torch.tensor(one).view(1, 3, 1, 1) for one in (self.mean, self.deviation))
        return (pixels - mean) / deviation

    def _sized(self, picture: Image.Image) -> Image.Image:
        if not self.edge:
            whole = picture.size == (self.side, self.side)
            return picture if whole else picture.resize((self.side, self.side), Image.Resampling(self.resample))
        scale = self.edge / min(picture.size)
        width, height = (max(self.edge, round(length * scale)) for length in picture.size)
        left, top = (width - self.side) // 2, (height - self.side) // 2
        grown = picture.resize((width, height), Image.Resampling(self.resample))
        return grown.crop((left, top, left + self.side, top + self.side))


def preparation_of(folder: Path, *, side: int) -> Preparation:
    """The preparation that a folder asks for; a folder that says nothing takes `side` pixels in -1 .. 1.

    Raises ScoreFailed if the folder's file cannot be read.
    """
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return Preparation(side)
    try:
        return _read(json.loads(file.read_text(encoding="utf-8")), side)
    except (ValueError, KeyError, TypeError) as error:
        raise ScoreFailed(
            f"{file} cannot be read ({type(error).__name__}: {error}); download the detector again."
        ) from error


def _read(config: dict[str, Any], side: int) -> Preparation:
    resized, cropped = _edge(config.get("size"), side), _edge(config.get("crop_size"), 0)
    square = isinstance(config.get("size"), dict) and "height" in config["size"]
    edge = 0 if square and not cropped else resized
    if "crop_pct" in config and config["crop_pct"] and resized < CONVNEXT_BELOW:
        edge = int(resized / config["crop_pct"])
    normal = bool(config.get("do_normalize", True))
    return Preparation(
        side=cropped if cropped and config.get("do_center_crop", True) else resized,
        edge=edge,
        mean=tuple(config["image_mean"]) if normal else (0.0, 0.0, 0.0),
        deviation=tuple(config["image_std"]) if normal else (1.0, 1.0, 1.0),
        resample=int(config.get("resample", Image.Resampling.BICUBIC)),
    )


def _edge(size: Any, default: int) -> int:
    """The edge in `224`, `{shortest_edge: 224}` or `{height: 224, width: 224}`."""
    if isinstance(size, dict):
        return int(size.get("shortest_edge") or size["height"])
    return int(size) if size else default
