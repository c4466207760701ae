"""A CLIP for scoring: cosines of images and texts, from a local folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import normalize

from erase.errors import ScoreFailed
from erase.evaluate.shots import in_batches


@dataclass(frozen=True)
class ClipTowers:
    """The image and text tower in a folder; raises ScoreFailed if they cannot be loaded or a text is too long."""

    folder: Path

    @cached_property
    def _model(self) -> Any:
        from transformers import CLIPModel

        try:
            model = CLIPModel.from_pretrained(self.folder, dtype=torch.float32, local_files_only=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ScoreFailed(f"the CLIP in {self.folder} cannot be loaded: {str(error).splitlines()[0]}") from error
        return model.eval()

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import CLIPTokenizer

        try:
            return CLIPTokenizer.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise ScoreFailed(f"the CLIP in {self.folder} lacks its tokenizer: {str(error).splitlines()[0]}") from error

    def _unit(self, vectors: Tensor) -> Tensor:
        if not bool(torch.isfinite(vectors).all()):
            raise ScoreFailed(f"the CLIP in {self.folder} gives NaN or infinite vectors; its weights are damaged.")
        return normalize(vectors)

    @torch.inference_mode()
    def images(self, pixels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each image's unit vector, [width]."""
        side = int(self._model.config.vision_config.image_size)
        parts = [
            self._model.get_image_features(pixel_values=batch).pooler_output
            for batch in in_batches(list(pixels.values()), side=side)
        ]
        return dict(zip(pixels, self._unit(torch.cat(parts)), strict=True)) if parts else {}

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Each distinct text's unit vector, [width]."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return {}
        longest = int(self._model.config.text_config.max_position_embeddings)
        tokens = self._tokenizer(distinct, padding=True, return_tensors="pt")
        if tokens["input_ids"].shape[1] > longest:
            raise ScoreFailed(f"a prompt has more than the {longest - 2} tokens that the CLIP in {self.folder} reads.")
        return dict(zip(distinct, self._unit(self._model.get_text_features(**tokens).pooler_output), strict=True))
