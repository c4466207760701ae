"""A CLIP in a local folder, for pictures prepared as the folder says: unit vectors of pictures and texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from erase.errors import ScoreFailed
from erase.evaluate.networks.clip import ClipTowers
from erase.evaluate.networks.preprocessing import preparation_of


@dataclass(frozen=True)
class ClipFolder:
    """The towers of a folder; raises ScoreFailed if they cannot be loaded or a text is too long."""

    folder: Path

    @cached_property
    def _towers(self) -> ClipTowers:
        return ClipTowers(self.folder)

    @cached_property
    def _last(self) -> dict[bytes, Tensor]:
        return {}

    @property
    def scale(self) -> float:
        """What the network multiplies cosines by to get its logits."""
        return float(self._towers._model.logit_scale.detach().exp())

    def check(self, names: Sequence[str]) -> None:
        """Raises ScoreFailed for the first name that the network would not read to its end."""
        self._towers.check(names)

    def pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Each picture's unit vector, [pictures, width]; of those of the call before it is known already."""
        names = [hashlib.sha256(f"{one.mode}{one.size}".encode() + one.tobytes()).digest() for one in pictures]
        known = {name: self._last[name] for name in names if name in self._last}
        new = {name: one for name, one in zip(names, pictures, strict=True) if name not in known}
        if new:
            prepared = preparation_of(self.folder, side=self._towers.side)(list(new.values()))
            known |= dict(zip(new, self._towers.batch(prepared), strict=True))
        self._last.clear()
        self._last.update(known)
        return torch.stack([known[name] for name in names])

    def texts(self, texts: Sequence[str], *, cut: bool = False) -> Tensor:
        """Each text's unit vector, [texts, width]; `cut`: of the beginning of one that is too long."""
        if not texts:
            raise ScoreFailed(f"no text to compare with the pictures; the CLIP in {self.folder} needs at least one.")
        vectors = self._towers.texts(texts, cut=cut)
        return torch.stack([vectors[text] for text in texts])
