"""Stable Diffusion 2.x: an OpenCLIP text encoder without its last layer, a UNet that may predict the velocity.

What differs in the computing differs in the files: the text encoder's folder has a layer less and its own activation,
the scheduler's says `v_prediction`. So only the family's marks are told here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from erase.models.families.stable_diffusion import StableDiffusion


class StableDiffusion2(StableDiffusion):
    """A `StableDiffusionPipeline` of the second generation: 1024 wide at full size, attention fed by linear layers."""

    family: ClassVar[str] = "stable-diffusion-2"

    @classmethod
    def matches(cls, config: Mapping[str, Any]) -> bool:
        return bool(config.get("use_linear_projection")) and config.get("addition_embed_type") is None
