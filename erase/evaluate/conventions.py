"""CLIP scores as the field prints them: the same cosine, on scales that differ by a hundred, by backbone and by prefix.

A printed score carries its convention's name. None is comparable with another, and none with the embedded judge's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType


@dataclass(frozen=True)
class Convention:
    """`factor` times the cosine of an image and `prefix` + caption, cut off below 0 if `clipped`.

    `network` is the CLIP that published figures use, `users` the papers and tools that print it.
    """

    name: str
    network: str
    factor: float
    clipped: bool
    prefix: str
    users: str

    def text(self, caption: str) -> str:
        """The text whose vector is compared."""
        return self.prefix + caption

    def score(self, cosine: float) -> float:
        """One image's score."""
        scaled = self.factor * cosine
        return max(scaled, 0.0) if self.clipped else scaled


B32, L14 = "openai/clip-vit-base-patch32", "openai/clip-vit-large-patch14"
_ALL = (
    # the network's own logits: exp(logit_scale) is 100 in OpenAI's weights
    Convention("clip/b32-logit", B32, 100.0, False, "", "UCE, MACE, CPE; Concept-prune"),
    Convention("clip/b32-logit-over-100", B32, 1.0, False, "", "AdvUnlearn, UnlearnDiffAtk's table"),
    Convention("clip/l14-logit", L14, 100.0, False, "", "RECE, SPEED, AdaVD"),
    Convention("clip/l14-x100", L14, 100.0, True, "", "torchmetrics"),
    Convention("clip/hessel-2.5", B32, 2.5, True, "A photo depicts ", "CLIPScore (Hessel et al. 2021), CA"),
    Convention("clip/hessel-2.5-bare", B32, 2.5, True, "", "SPM"),
)
CONVENTIONS: Mapping[str, Convention] = MappingProxyType({one.name: one for one in _ALL})


def clip_accuracy(target: Sequence[float], anchor: Sequence[float]) -> float:
    """The share of images nearer to the target than to the anchor (Concept Ablation); 1 minus it is SPM's CER.

    Both are one cosine or score an image. Raises ValueError on unequal lengths.
    """
    pairs = list(zip(target, anchor, strict=True))
    return fmean(float(near > far) for near, far in pairs) if pairs else float("nan")
