"""FLUX.1: T5's token states and CLIP's pooled state.

CLIP reads the beginning of a long prompt only, as in the family's own pipeline; T5 reads all of it or refuses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from erase.models._encoding import Encoding
from erase.models._joint import JointModel
from erase.models._sites import Pattern, pattern
from erase.models._text import Text, TextEncoder


class Flux(JointModel):
    """A `FluxPipeline`, of the first generation."""

    family: ClassVar[str] = "flux"
    pipeline_class: ClassVar[str] = "FluxPipeline"
    network: ClassVar[str] = "FluxTransformer2DModel"
    texts: ClassVar[tuple[Text, ...]] = (
        Text("text_encoder", "tokenizer", "CLIPTextModel", whole=False),
        Text("text_encoder_2", "tokenizer_2", "T5EncoderModel", length=512),
    )
    patterns: ClassVar[tuple[Pattern, ...]] = (
        *JointModel.patterns,
        pattern(r"single_transformer_blocks\.\d+\.attn\.to_k\.weight", "key", "stream"),
        pattern(r"single_transformer_blocks\.\d+\.attn\.to_v\.weight", "value", "stream"),
    )

    @classmethod
    def join(cls, encoders: Sequence[TextEncoder], prompts: Sequence[str]) -> Encoding:
        _, pooled = encoders[0].run(prompts)
        tokens, _ = encoders[1].run(prompts)
        return Encoding((tokens,), pooled)
