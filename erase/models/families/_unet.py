"""What all families with a cross-attention UNet have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from erase.models.encoding import Condition
from erase.models.model import Model
from erase.models.sites import Pattern, pattern


class UNetModel(Model):
    """A model whose every `attn2` reads the prompt's token states themselves, so that a closed form is exact there."""

    backbone: ClassVar[str] = "unet"
    network: ClassVar[str] = "UNet2DConditionModel"
    patterns: ClassVar[tuple[Pattern, ...]] = (
        pattern(r".*\battn2\.to_k\.weight", "key", "tokens"),
        pattern(r".*\battn2\.to_v\.weight", "value", "tokens"),
    )

    @staticmethod
    def predict(pipe: Any, latents: Tensor, time: Tensor, *, condition: Condition) -> Tensor:
        predicted: Tensor = pipe.unet(latents, time, encoder_hidden_states=condition.states).sample
        return predicted
