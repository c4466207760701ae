"""Stable Diffusion 3 and 3.5: two CLIP encoders side by side, and behind them, token after token, T5.

The transformer reads one row of states: first those of the two CLIP encoders in front of their last layers,
concatenated and filled up with zeros to T5's width, then T5's. The pooled state is both encoders' projected one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from erase.models.encoding import Condition, Encoding, TokenSequence
from erase.models.families._joint import JointModel
from erase.models.text import Text, TextEncoder


class StableDiffusion3(JointModel):
    """A `StableDiffusion3Pipeline`, with or without its third text encoder, which is the largest."""

    family: ClassVar[str] = "stable-diffusion-3"
    pipeline_class: ClassVar[str] = "StableDiffusion3Pipeline"
    network: ClassVar[str] = "SD3Transformer2DModel"
    texts: tuple[Text, ...] = (
        Text("text_encoder", "tokenizer", "CLIPTextModelWithProjection", states="penultimate", inversions=False),
        Text("text_encoder_2", "tokenizer_2", "CLIPTextModelWithProjection", states="penultimate", inversions=False),
        Text("text_encoder_3", "tokenizer_3", "T5EncoderModel", length=256, inversions=False, optional=True),
    )

    @classmethod
    def size_step(cls, scale: int, config: Mapping[str, Any]) -> int:
        return scale * int(config["patch_size"])

    @staticmethod
    def predict(pipe: Any, latents: Tensor, time: Tensor, *, condition: Condition) -> Tensor:
        predicted: Tensor = pipe.transformer(
            latents,
            timestep=time.expand(len(latents)),
            encoder_hidden_states=condition.states,
            pooled_projections=condition.pooled,
        ).sample
        return predicted

    @classmethod
    def join(cls, encoders: Sequence[TextEncoder], prompts: Sequence[str]) -> Encoding:
        first, pooled = encoders[0].run(prompts)
        second, pooled_2 = encoders[1].run(prompts)
        third, _ = encoders[2].run(prompts)
        clip = torch.cat([first.states, second.states], dim=-1)
        states = torch.nn.functional.pad(clip, (0, third.states.shape[-1] - clip.shape[-1]))
        parts = (TokenSequence(states, first.ids, first.lengths), third)
        return Encoding(parts, torch.cat([pooled, pooled_2], dim=-1))
