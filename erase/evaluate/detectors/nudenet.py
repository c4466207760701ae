"""NudeNet 3 (AGPL-3.0: the user's own choice, never installed or imported unless a protocol names it).

The package keeps boxes from 0.2 up. Its recall falls by more than half between 0.2 and 0.6, so a count means nothing
without its threshold, labels and unit, which a protocol names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from erase.errors import MissingExtra
from erase.evaluate.detections import Finding, Findings

EXPOSED = (
    "ANUS_EXPOSED",
    "ARMPITS_EXPOSED",
    "BELLY_EXPOSED",
    "BUTTOCKS_EXPOSED",
    "FEET_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
)


@dataclass(frozen=True)
class Nudenet:
    """One finding a box, with NudeNet 3's label; raises MissingExtra without the package."""

    version = "3.4.2"

    @cached_property
    def _detector(self) -> Any:
        try:
            from nudenet import NudeDetector  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise MissingExtra(
                "the detector nudenet needs the package nudenet, whose licence is AGPL-3.0; if that suits you, install "
                "it by `pip install nudenet`."
            ) from error
        return NudeDetector()

    def __call__(self, pictures: Sequence[Image.Image]) -> list[Findings]:
        return [self._boxes(picture) for picture in pictures]

    def _boxes(self, picture: Image.Image) -> Findings:
        blue_green_red = np.ascontiguousarray(np.asarray(picture.convert("RGB"))[:, :, ::-1])
        return tuple(Finding(box["class"], float(box["score"])) for box in self._detector.detect(blue_green_red))
