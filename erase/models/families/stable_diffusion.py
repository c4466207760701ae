"""Stable Diffusion 1.x: one CLIP text encoder, whose token states every `attn2` of the UNet reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from erase.models.encoding import Encoding
from erase.models.families._unet import UNetModel
from erase.models.text import Text, TextEncoder


class StableDiffusion(UNetModel):
    """A `StableDiffusionPipeline` of the first generation: 768 wide at full size, attention fed by convolutions."""

    family: ClassVar[str] = "stable-diffusion"
    pipeline_class: ClassVar[str] = "StableDiffusionPipeline"
    pipeline_options: ClassVar[Mapping[str, Any]] = {"safety_checker": None, "requires_safety_checker": False}
    texts: tuple[Text, ...] = (Text("text_encoder", "tokenizer", "CLIPTextModel"),)

    @classmethod
    def matches(cls, config: Mapping[str, Any]) -> bool:
        return not config.get("use_linear_projection") and config.get("addition_embed_type") is None

    @classmethod
    def join(cls, encoders: Sequence[TextEncoder], prompts: Sequence[str]) -> Encoding:
        tokens, _ = encoders[0].run(prompts)
        return Encoding((tokens,))
