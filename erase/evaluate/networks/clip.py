"""A CLIP in a local folder, for pictures prepared as the folder says: unit vectors of pictures and texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from erase.errors import ScoreFailed
from erase.evaluate.networks.loading import load_network
from erase.evaluate.networks.preprocessing import preparation_of


@dataclass(frozen=True)
class ClipFolder:
    """The image and text tower of a folder; raises ScoreFailed if they cannot be loaded or a text is too long."""

    folder: Path

    @cached_property
    def _model(self) -> Any:
        return load_network("CLIPModel", self.folder, what="CLIP")

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import CLIPTokenizer

        try:
            return CLIPTokenizer.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, TypeError) as error:
            raise ScoreFailed(f"the CLIP in {self.folder} lacks its tokenizer: {str(error).splitlines()[0]}") from error

    @cached_property
    def _last(self) -> dict[bytes, Tensor]:
        return {}

    @property
    def _longest(self) -> int:
        return int(self._model.config.text_config.max_position_embeddings)

    @property
    def scale(self) -> float:
        """What the network multiplies cosines by to get its logits."""
        return float(self._model.logit_scale.detach().exp())

    @property
    def side(self) -> int:
        """Pixels of a picture's edge."""
        return int(self._model.config.vision_config.image_size)

    def _unit(self, vectors: Tensor) -> Tensor:
        if not bool(torch.isfinite(vectors).all()):
            raise ScoreFailed(f"the CLIP in {self.folder} gives NaN or infinite vectors; its weights are damaged.")
        return normalize(vectors)

    def check(self, names: Sequence[str]) -> None:
        """Raises ScoreFailed for the first name that the network would not read to its end."""
        for name in names:
            if len(self._tokenizer(name, verbose=False)["input_ids"]) > self._longest:
                raise ScoreFailed(
                    f'"{name[:60]}{"..." if len(name) > 60 else ""}" has more than the {self._longest - 2} tokens that '
                    f"the CLIP in {self.folder} reads, so it cannot judge it: give a shorter name, or another judge."
                )

    def pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Each picture's unit vector, [pictures, width]; of those of the call before it is known already."""
        names = [hashlib.sha256(f"{one.mode}{one.size}".encode() + one.tobytes()).digest() for one in pictures]
        known = {name: self._last[name] for name in names if name in self._last}
        new = {name: one for name, one in zip(names, pictures, strict=True) if name not in known}
        if new:
            prepared = preparation_of(self.folder, side=self.side)(list(new.values()))
            known |= dict(zip(new, self.batch(prepared), strict=True))
        self._last.clear()
        self._last.update(known)
        return torch.stack([known[name] for name in names])

    @torch.inference_mode()
    def batch(self, pixels: Tensor) -> Tensor:
        """The unit vectors [pictures, width] of pictures [pictures, 3, side, side] in -1 .. 1."""
        return self._unit(self._model.get_image_features(pixel_values=pixels).pooler_output)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str], *, cut: bool = False) -> Tensor:
        """Each text's unit vector, [texts, width]; `cut`: of the beginning of one that is too long."""
        if not texts:
            raise ScoreFailed(f"no text to compare with the pictures; the CLIP in {self.folder} needs at least one.")
        distinct, longest = list(dict.fromkeys(texts)), self._longest
        tokens = self._tokenizer(
            distinct, padding=True, truncation=cut, max_length=longest if cut else None, return_tensors="pt"
        )
        if tokens["input_ids"].shape[1] > longest:
            raise ScoreFailed(f"a prompt has more than the {longest - 2} tokens that the CLIP in {self.folder} reads.")
        vectors = self._unit(self._model.get_text_features(**tokens).pooler_output)
        row = {text: number for number, text in enumerate(distinct)}
        return vectors[[row[text] for text in texts]]
