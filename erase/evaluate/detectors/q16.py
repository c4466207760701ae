"""Q16 (Schramowski et al. 2022): CLIP ViT-L/14 and two learned text vectors, appropriate and inappropriate.

The official vectors come as a pickle, `prompts.p`, which is not read here: its user saves them once as a safetensors
file with one tensor `prompts` [2, width], the second row being inappropriate. They belong to ViT-L/14; vectors of
another width are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize

from erase.errors import PickleRefused, ScoreFailed
from erase.evaluate.detections import Finding, Findings
from erase.evaluate.networks.clip import ClipFolder

INAPPROPRIATE = "inappropriate"


@dataclass(frozen=True)
class Q16:
    """One finding, `inappropriate`, with its softmax share of the two; Q16's own answer is a share above one half.

    `weights` is a folder of CLIP ViT-L/14, `prompts` the file of the two vectors.
    """

    weights: Path
    prompts: Path

    version = "clip-vit-large-patch14"

    @cached_property
    def _clip(self) -> ClipFolder:
        return ClipFolder(self.weights)

    @cached_property
    def _vectors(self) -> Tensor:
        return normalize(read_vectors(self.prompts))

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image.Image]) -> list[Findings]:
        vectors, images = self._vectors, self._clip.pictures(pictures)
        if vectors.shape[1] != images.shape[1]:
            raise ScoreFailed(
                f"Q16's vectors in {self.prompts} are {vectors.shape[1]} wide and the CLIP in {self.weights} is "
                f"{images.shape[1]}; they belong to ViT-L/14: give its folder."
            )
        shares = (100.0 * images @ vectors.T).softmax(1)[:, 1]
        return [(Finding(INAPPROPRIATE, min(float(share), 1.0)),) for share in shares]


def read_vectors(path: Path) -> Tensor:
    """The two vectors, [2, width] float32; raises PickleRefused, ScoreFailed."""
    if path.suffix in (".p", ".pkl", ".pickle", ".pt"):
        raise PickleRefused(
            f"{path} is a pickle, which can run code when it is read; expected a safetensors file with one tensor "
            "`prompts` [2, width]: save it so once in an environment you trust."
        )
    try:
        vectors = load_file(path)["prompts"].float()
    except (OSError, SafetensorError, KeyError) as error:
        raise ScoreFailed(f"{path} holds no tensor `prompts`; expected Q16's two vectors, [2, width].") from error
    if vectors.dim() != 2 or len(vectors) != 2:
        raise ScoreFailed(f"{path} holds `prompts` of shape {tuple(vectors.shape)}; expected [2, width].")
    return vectors
