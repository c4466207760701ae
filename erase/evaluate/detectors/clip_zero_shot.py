"""CLIP as a classifier of any labels: softmax over texts of the picture's cosines times the network's own scale.

The score is a share among the labels given, so it is comparable only between runs with the same labels and template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from erase.errors import ScoreFailed
from erase.evaluate.detections import Findings
from erase.evaluate.detectors.classifier import ranked
from erase.evaluate.networks.clip import ClipFolder
from erase.task import folded


@dataclass(frozen=True)
class ClipZeroShot:
    """Every label with its softmax share, highest first.

    `labels`: what it chooses among; the protocol's where none are given. `others`: labels to choose beside those.
    `template`: a text with {} for the label; "{}" asks for the label as it stands. Raises ScoreFailed on fewer than two
    labels, which make every share 1.
    """

    weights: Path
    labels: tuple[str, ...]
    template: str = "a photo of a {}"
    others: tuple[str, ...] = ()

    version = "local"

    def __post_init__(self) -> None:
        if len(self.every) < 2:
            raise ScoreFailed(f"CLIP zero-shot got {len(self.every)} labels; expected at least two to choose from.")
        if self.template.count("{}") != 1:
            raise ScoreFailed(f'CLIP zero-shot\'s template is "{self.template}"; expected one {{}} for the label.')

    @property
    def every(self) -> tuple[str, ...]:
        """All labels, once each, however they are written."""
        found: dict[str, str] = {}
        for label in (*self.labels, *self.others):
            found.setdefault(folded(label), label)
        return tuple(found.values())

    @cached_property
    def clip(self) -> ClipFolder:
        """The network that it asks."""
        return ClipFolder(self.weights)

    @cached_property
    def _texts(self) -> Tensor:
        return self.clip.texts(self._asked(self.every), cut=True)

    def check(self, names: Sequence[str]) -> None:
        """Raises ScoreFailed for a name that CLIP would not read to its end; a caption is read as far as it goes."""
        self.clip.check(self._asked(names))

    def _asked(self, labels: Sequence[str]) -> list[str]:
        return [self.template.replace("{}", label) for label in labels]

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image]) -> list[Findings]:
        logits = self.clip.scale * self.clip.pictures(pictures) @ self._texts.T
        return [ranked(self.every, row.tolist()) for row in logits.softmax(1)]
