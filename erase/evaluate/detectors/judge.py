"""The embedded judge: what its style and its object classifier see.

Trained beside the embedded model on other views of the same pictures, and independent of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from erase.errors import ScoreFailed
from erase.evaluate.detections import Findings
from erase.evaluate.detectors.classifier import Classifier

DOMAINS = ("style", "object")


@dataclass(frozen=True)
class Judge:
    """Every style and object with its probability; raises ScoreFailed if the folder holds no judge."""

    weights: Path

    version = "emoji-v1"

    @cached_property
    def _parts(self) -> list[Classifier]:
        if missing := [domain for domain in DOMAINS if not (self.weights / domain).is_dir()]:
            raise ScoreFailed(f"{self.weights} is no judge: it has no folder {missing[0]}.")
        return [Classifier(self.weights / domain, domain=domain) for domain in DOMAINS]

    def __call__(self, pictures: Sequence[Image.Image]) -> list[Findings]:
        styles, objects = (part(pictures) for part in self._parts)
        return [left + right for left, right in zip(styles, objects, strict=True)]
