"""What all families have in common whose transformer lets image and text attend to each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from erase.models.model import Model
from erase.models.sites import Pattern, pattern


class JointModel(Model):
    """A model that reads token states through `context_embedder` and a pooled state beside the time.

    Both have a bias. All deeper projections of the text read a stream that is mixed with the image.
    """

    backbone: ClassVar[str] = "transformer"
    patterns: ClassVar[tuple[Pattern, ...]] = (
        pattern(r"context_embedder\.weight", "embed", "tokens"),
        pattern(r"time_text_embed\.text_embedder\.linear_1\.weight", "embed", "pooled"),
        pattern(r"transformer_blocks\.\d+\.attn\.add_k_proj\.weight", "key", "stream"),
        pattern(r"transformer_blocks\.\d+\.attn\.add_v_proj\.weight", "value", "stream"),
    )

    @classmethod
    def matches(cls, config: Mapping[str, Any]) -> bool:
        return True
