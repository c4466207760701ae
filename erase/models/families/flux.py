"""FLUX.1: T5's token states and CLIP's pooled state.

CLIP reads the beginning of a long prompt only, as in the family's own pipeline; T5 reads all of it or refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from erase.models.encoding import Condition, Encoding, Guidance, embeddings
from erase.models.families._joint import JointModel
from erase.models.sites import Pattern, pattern
from erase.models.text import Text, TextEncoder


class Flux(JointModel):
    """A `FluxPipeline`, of the first generation."""

    family: ClassVar[str] = "flux"
    pipeline_class: ClassVar[str] = "FluxPipeline"
    network: ClassVar[str] = "FluxTransformer2DModel"
    texts: tuple[Text, ...] = (
        Text("text_encoder", "tokenizer", "CLIPTextModel", whole=False),
        Text("text_encoder_2", "tokenizer_2", "T5EncoderModel", length=512),
    )
    patterns: ClassVar[tuple[Pattern, ...]] = (
        *JointModel.patterns,
        pattern(r"single_transformer_blocks\.\d+\.attn\.to_k\.weight", "key", "stream"),
        pattern(r"single_transformer_blocks\.\d+\.attn\.to_v\.weight", "value", "stream"),
    )

    true_cfg: ClassVar[bool] = True
    takes_clip_skip: ClassVar[bool] = False
    embedded_guidance: ClassVar[float] = 3.5  # the pipeline's own, of what the network is told to follow a prompt by

    def latent_shape(self, pipe: Any, size: int = 0) -> tuple[int, int, int]:
        # The network reads squares of two by two latents as one token, and its config names no size.
        channels, height, width = super().latent_shape(pipe, size or pipe.default_sample_size * pipe.vae_scale_factor)
        return channels // 4, height, width

    @classmethod
    def call_arguments(
        cls, conditions: tuple[Condition, Condition], guidance: Guidance, *, alone: bool = False
    ) -> dict[str, Any]:
        true = guidance.true_scale > 1 and not alone
        guided = {"true_cfg_scale": guidance.true_scale} if true else {}
        return embeddings(*conditions[: 1 + true]) | {"guidance_scale": guidance.scale} | guided

    @classmethod
    def size_step(cls, scale: int, config: Mapping[str, Any]) -> int:
        return 2 * scale

    @classmethod
    def predict(cls, pipe: Any, latents: Tensor, time: Tensor, *, condition: Condition) -> Tensor:
        rows, channels, height, width = latents.shape
        guidance = torch.full((rows,), cls.embedded_guidance) if pipe.transformer.config.guidance_embeds else None
        predicted = pipe.transformer(
            packed(latents),
            timestep=time.expand(rows) / 1000,
            guidance=guidance,
            encoder_hidden_states=condition.states,
            pooled_projections=condition.pooled,
            img_ids=places(height // 2, width // 2),
            txt_ids=torch.zeros(condition.states.shape[1], 3),
        ).sample
        return unpacked(predicted, (channels, height, width))

    @classmethod
    def join(cls, encoders: Sequence[TextEncoder], prompts: Sequence[str]) -> Encoding:
        _, pooled = encoders[0].run(prompts)
        tokens, _ = encoders[1].run(prompts)
        return Encoding((tokens,), pooled)


def packed(latents: Tensor) -> Tensor:
    """Latents [rows, channels, height, width] as tokens of two by two, [rows, height * width / 4, channels * 4]."""
    rows, channels, height, width = latents.shape
    squares = latents.reshape(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return squares.reshape(rows, height * width // 4, channels * 4)


def unpacked(tokens: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Latents of a shape from tokens of two by two, the other way round."""
    channels, height, width = shape
    squares = tokens.reshape(len(tokens), height // 2, width // 2, channels, 2, 2)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), *shape)


def places(height: int, width: int) -> Tensor:
    """Where each token of a picture stands, [height * width, 3]: 0, row, column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).float()
