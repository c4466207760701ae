"""What all families with a cross-attention UNet have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from erase.errors import BadOption
from erase.models.encoding import Condition, Guidance, embeddings
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

    @classmethod
    def call_arguments(
        cls, pipe: Any, conditions: tuple[Condition, Condition], guidance: Guidance, *, alone: bool = False
    ) -> dict[str, Any]:
        if guidance.true_scale > 1:
            raise BadOption(f"true_guidance is for guidance-distilled models such as FLUX.1; a {cls.family} is none.")
        distilled = pipe.unet.config.time_cond_proj_dim is not None  # as those of latent consistency are
        if distilled and (guidance.negative or alone):
            raise BadOption("the model is distilled to one prediction a step: no negative prompt and no guard for it.")
        return embeddings(*conditions) | {"guidance_scale": 1.0 if alone else guidance.scale}

    @staticmethod
    def predict(pipe: Any, latents: Tensor, time: Tensor, *, condition: Condition) -> Tensor:
        predicted: Tensor = pipe.unet(latents, time, encoder_hidden_states=condition.states).sample
        return predicted
