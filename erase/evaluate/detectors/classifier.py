"""Any image classifier in a local folder that `AutoModelForImageClassification` loads, such as ResNet-50 or a ViT.

With a folder of `microsoft/resnet-50` it judges objects as the field does (top-1 of ImageNet's classes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from erase.evaluate.detections import Finding, Findings
from erase.evaluate.networks.loading import load_network
from erase.evaluate.networks.preprocessing import preparation_of

SIDE = 64  # pixels, for a folder that does not say


@dataclass(frozen=True)
class Classifier:
    """Every label of the classifier with its probability, highest first; raises ScoreFailed if it cannot be loaded.

    `domain` is written into the findings. A label such as "cat, tabby" is called by its first name.
    """

    weights: Path
    domain: str = ""

    version = "local"

    @cached_property
    def _network(self) -> Any:
        return load_network("AutoModelForImageClassification", self.weights, what="classifier")

    @property
    def labels(self) -> list[str]:
        """The labels, in the network's order."""
        names = self._network.config.id2label
        return [str(names[number]).partition(",")[0] for number in range(len(names))]

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image]) -> list[Findings]:
        side = int(getattr(self._network.config, "image_size", SIDE))
        prepared = preparation_of(self.weights, side=side)(pictures)
        shares = self._network(pixel_values=prepared).logits.softmax(1)
        return [ranked(self.labels, row.tolist(), domain=self.domain) for row in shares]


def ranked(labels: Sequence[str], scores: Sequence[float], *, domain: str = "") -> Findings:
    """Every label with its score, highest first; of equal scores the earlier label."""
    pairs = sorted(zip(labels, scores, strict=True), key=lambda pair: -pair[1])
    return tuple(Finding(label, min(score, 1.0), domain) for label, score in pairs)
