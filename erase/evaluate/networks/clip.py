"""A CLIP for scoring: cosines of images and texts, from a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from erase.errors import ScoreFailed
from erase.evaluate.networks.loading import load_network


@dataclass(frozen=True)
class ClipTowers:
    """The image and text tower in a folder; raises ScoreFailed if they cannot be loaded or a text is too long."""

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

    def _unit(self, vectors: Tensor) -> Tensor:
        if not bool(torch.isfinite(vectors).all()):
            raise ScoreFailed(f"the CLIP in {self.folder} gives NaN or infinite vectors; its weights are damaged.")
        return normalize(vectors)

    @property
    def side(self) -> int:
        """Pixels of a picture's edge."""
        return int(self._model.config.vision_config.image_size)

    @torch.inference_mode()
    def batch(self, pixels: Tensor) -> Tensor:
        """The unit vectors [pictures, width] of pictures [pictures, 3, side, side] in -1 .. 1."""
        return self._unit(self._model.get_image_features(pixel_values=pixels).pooler_output)

    @property
    def _longest(self) -> int:
        return int(self._model.config.text_config.max_position_embeddings)

    def is_cut(self, text: str) -> bool:
        """Whether the network reads the beginning of a text alone."""
        return len(self._tokenizer(text, verbose=False)["input_ids"]) > self._longest

    def check(self, names: Sequence[str]) -> None:
        """Raises ScoreFailed for the first name that the network would not read to its end."""
        for name in names:
            if self.is_cut(name):
                raise ScoreFailed(
                    f'"{name[:60]}{"..." if len(name) > 60 else ""}" has more than the {self._longest - 2} tokens that '
                    f"the CLIP in {self.folder} reads, so it cannot judge it: give a shorter name, or another judge."
                )

    @torch.inference_mode()
    def texts(self, texts: Sequence[str], *, cut: bool = False) -> dict[str, Tensor]:
        """Each distinct text's unit vector, [width]; `cut`: of the beginning of one that is too long."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return {}
        longest = self._longest
        tokens = self._tokenizer(
            distinct, padding=True, truncation=cut, max_length=longest if cut else None, return_tensors="pt"
        )
        if tokens["input_ids"].shape[1] > longest:
            raise ScoreFailed(f"a prompt has more than the {longest - 2} tokens that the CLIP in {self.folder} reads.")
        return dict(zip(distinct, self._unit(self._model.get_text_features(**tokens).pooler_output), strict=True))
