"""Stable Diffusion XL: two text encoders side by side, and a pooled state that enters beside the time.

Every `attn2` reads the states of both encoders in front of their last layers, concatenated (768 + 1280 wide at full
size). The second encoder's projected state enters through `add_embedding.linear_1`, in front of six numbers that tell
the picture's size and crop, so an edit of the `attn2` alone leaves a concept half in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from erase.models.encoding import Condition, Encoding, TokenSequence
from erase.models.families._unet import UNetModel
from erase.models.sites import Pattern, Site, pattern
from erase.models.text import Text, TextEncoder


class StableDiffusionXL(UNetModel):
    """A `StableDiffusionXLPipeline`: the base model; the refiner has one encoder only and is none."""

    family: ClassVar[str] = "stable-diffusion-xl"
    pipeline_class: ClassVar[str] = "StableDiffusionXLPipeline"
    pipeline_options: ClassVar[Mapping[str, Any]] = {"add_watermarker": False}
    texts: tuple[Text, ...] = (
        Text("text_encoder", "tokenizer", "CLIPTextModel", states="penultimate"),
        Text("text_encoder_2", "tokenizer_2", "CLIPTextModelWithProjection", states="penultimate"),
    )
    patterns: ClassVar[tuple[Pattern, ...]] = (
        *UNetModel.patterns,
        pattern(r"add_embedding\.linear_1\.weight", "embed", "pooled"),
    )

    @classmethod
    def matches(cls, config: Mapping[str, Any]) -> bool:
        return config.get("addition_embed_type") == "text_time"

    def find_sites(self) -> tuple[Site, ...]:
        pooled = self.weights("text_encoder_2").shape("text_projection.weight")[0]
        found = super().find_sites()
        return tuple(replace(site, others=site.columns - pooled) if site.reads == "pooled" else site for site in found)

    @classmethod
    def join(cls, encoders: Sequence[TextEncoder], prompts: Sequence[str]) -> Encoding:
        first, _ = encoders[0].run(prompts)
        second, pooled = encoders[1].run(prompts)
        # Both spell a prompt alike; they pad it with different tokens.
        states = torch.cat([first.states, second.states], dim=-1)
        return Encoding((TokenSequence(states, first.ids, first.lengths),), pooled)

    @classmethod
    def unconditional(cls, pipe: Any, encoders: Sequence[TextEncoder]) -> Condition:
        empty = super().unconditional(pipe, encoders)
        return empty.zeros() if pipe.config.force_zeros_for_empty_prompt else empty

    @staticmethod
    def predict(pipe: Any, latents: Tensor, time: Tensor, *, condition: Condition) -> Tensor:
        size = [side * pipe.vae_scale_factor for side in latents.shape[-2:]]
        numbers = torch.tensor([[*size, 0, 0, *size]], dtype=latents.dtype, device=latents.device).expand(
            len(latents), -1
        )
        predicted: Tensor = pipe.unet(
            latents,
            time,
            encoder_hidden_states=condition.states,
            added_cond_kwargs={"text_embeds": condition.pooled, "time_ids": numbers},
        ).sample
        return predicted
