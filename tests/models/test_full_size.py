"""The published architectures at full size, without any numbers in them: their sites and their names in one file."""

from __future__ import annotations

from functools import cache
from typing import Any

import diffusers
import pytest
import torch

from erase.models.families import families
from erase.models.sites import Site, find_sites
from erase.models.storage.ldm import UNET, places
from tests.tiny_checkpoints import ldm_unet_tensors

SD = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
}
# Class of the backbone, its settings as published, and how many of its weights read tokens, pooled state and stream.
PUBLISHED: dict[str, tuple[str, dict[str, Any], tuple[int, int, int]]] = {
    "stable-diffusion": (
        "UNet2DConditionModel",
        {**SD, "cross_attention_dim": 768, "attention_head_dim": 8},
        (32, 0, 0),
    ),
    "stable-diffusion-2": (
        "UNet2DConditionModel",
        {
            **SD,
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
        (32, 0, 0),
    ),
    "stable-diffusion-xl": (
        "UNet2DConditionModel",
        {
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        (140, 1, 0),
    ),
    "stable-diffusion-3": (
        "SD3Transformer2DModel",
        {
            "num_layers": 24,
            "attention_head_dim": 64,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 1536,
            "pooled_projection_dim": 2048,
            "sample_size": 8,  # as the next one, for a small table of positions
            "pos_embed_max_size": 8,
        },
        (1, 1, 48),
    ),
    "flux": (
        "FluxTransformer2DModel",
        {"num_layers": 19, "num_single_layers": 38, "pooled_projection_dim": 768, "guidance_embeds": True},
        (1, 1, 2 * 19 + 2 * 38),
    ),
}
WIDTHS = {
    "stable-diffusion": {768},
    "stable-diffusion-2": {1024},
    "stable-diffusion-xl": {2048, 2816},
    "stable-diffusion-3": {4096, 2048},
    "flux": {4096, 768},
}


@cache
def backbone(family: str) -> torch.nn.Module:
    kind, settings, _ = PUBLISHED[family]
    with torch.device("meta"):
        return getattr(diffusers, kind)(**settings)


def sites(family: str) -> tuple[Site, ...]:
    shapes = {name: tuple(value.shape) for name, value in backbone(family).state_dict().items()}
    view = next(view for view in families() if view.family == family)
    return find_sites(view.backbone, shapes, view.patterns, shape=shapes.__getitem__)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(PUBLISHED))
def test_published_architectures_have_the_sites_that_they_are_known_for(family: str) -> None:
    found = sites(family)
    assert (
        tuple(sum(site.reads == reads for site in found) for reads in ("tokens", "pooled", "stream"))
        == (PUBLISHED[family][2])
    )
    assert {site.columns for site in found if site.reads != "stream"} == WIDTHS[family]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["stable-diffusion", "stable-diffusion-2", "stable-diffusion-xl"])
def test_every_weight_of_a_published_unet_is_found_in_a_single_file(family: str, tmp_path: Any) -> None:
    expected = backbone(family).state_dict()
    stored = ldm_unet_tensors(expected)
    shapes = {name: tuple(value.shape) for name, value in stored.items()}
    assert all(name.startswith(UNET) for name in shapes)
    found = places(tmp_path / "model.safetensors", shapes, family)["unet"]
    assert set(found) == set(expected)
    assert all(place.shape == tuple(expected[name].shape) for name, place in found.items())
    assert all(stored[place.key] is expected[name] for name, place in found.items())
