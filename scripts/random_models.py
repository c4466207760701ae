"""Pipelines of published architectures with random weights, made where they are wanted: on a card, or tiny anywhere.

A tiny one has the same parts and CLIP's whole vocabulary, so that it reads prompts as the published one does. T5's
vocabulary is not carried by the package: words are spelled by letters, up to as many tokens as the published one reads.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from erase.models.storage.clip_tokens import clip_tokenizer
from erase.models.storage.published import settings_of
from tests.tiny_families import tiny_t5_tokenizer

FAMILIES = ("stable-diffusion", "stable-diffusion-xl", "flux")
_UP, _DOWN = ("UpDecoderBlock2D",) * 4, ("DownEncoderBlock2D",) * 4
# As published for FLUX.1 dev.
_FLUX_TRANSFORMER = {"guidance_embeds": True}
_FLUX_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "norm_num_groups": 32,
    "down_block_types": _DOWN,
    "up_block_types": _UP,
    "sample_size": 1024,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_FLUX_T5 = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
_FLUX_SCHEDULER = {"shift": 3.0, "use_dynamic_shifting": True}
_TINY_VAE = {"block_out_channels": (8, 16, 16, 16), "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 64}
_TINY_FLUX: Mapping[str, Any] = {
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 64,
    "pooled_projection_dim": 64,
    "axes_dims_rope": (4, 6, 6),
}
_TINY_UNETS: Mapping[str, Mapping[str, Any]] = {
    "stable-diffusion": {
        "block_out_channels": (32, 64, 64, 64),
        "cross_attention_dim": 64,
        "layers_per_block": 1,
        "sample_size": 8,
        "norm_num_groups": 8,
    },
    "stable-diffusion-xl": {
        "block_out_channels": (32, 64, 64),
        "cross_attention_dim": 128,
        "layers_per_block": 1,
        "transformer_layers_per_block": (1, 1, 1),
        "attention_head_dim": (2, 4, 4),
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 64 + 6 * 8,
        "sample_size": 8,
        "norm_num_groups": 8,
    },
}
_TINY_CLIP = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "projection_dim": 64,
}


def pipeline(
    family: str, *, tiny: bool = False, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0
) -> Any:
    """A whole diffusers pipeline of a family with random weights, made on the device in the precision."""
    with _made_on(device, dtype, seed):
        pipe = _flux(tiny) if family == "flux" else _unet_pipeline(family, tiny)
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)  # whose tables stay on the CPU
    pipe.set_progress_bar_config(disable=True)
    return pipe


@contextmanager
def _made_on(device: str, dtype: torch.dtype, seed: int) -> Iterator[None]:
    """Lets modules be made on a device in a precision, from a seed, until the block ends."""
    before = torch.get_default_dtype()
    cards = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(cards), torch.device(device):
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def _unet_pipeline(family: str, tiny: bool) -> Any:
    import diffusers
    import transformers

    def settings(part: str, **less: Any) -> dict[str, Any]:
        own = settings_of(family, part)
        return {key: value for key, value in (own | (less if tiny else {})).items() if key != "_name_or_path"}

    def encoder(part: str) -> Any:
        config = settings(part, **_TINY_CLIP)
        kind = getattr(transformers, config["architectures"][0])
        return kind(kind.config_class(**config)).eval()

    parts = {
        "unet": diffusers.UNet2DConditionModel.from_config(settings("unet", **_TINY_UNETS[family])).eval(),
        "vae": diffusers.AutoencoderKL.from_config(settings("vae", **_TINY_VAE)).eval(),
        "text_encoder": encoder("text_encoder"),
        "tokenizer": clip_tokenizer(),
        "scheduler": diffusers.DDIMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1
        ),
    }
    if family == "stable-diffusion-xl":
        more = {"text_encoder_2": encoder("text_encoder_2"), "tokenizer_2": clip_tokenizer(pad="!")}
        return diffusers.StableDiffusionXLPipeline(**parts, **more, add_watermarker=False)
    without = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return diffusers.StableDiffusionPipeline(**parts, **without)


def _flux(tiny: bool) -> Any:
    import diffusers
    import transformers

    clip = settings_of("stable-diffusion", "text_encoder") | (_TINY_CLIP if tiny else {})
    t5 = _FLUX_T5 | ({"d_model": 64, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4} if tiny else {})
    tokenizer = tiny_t5_tokenizer()
    config = transformers.T5Config(**t5, feed_forward_proj="gated-gelu", is_decoder=False)
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**_FLUX_SCHEDULER),
        vae=diffusers.AutoencoderKL(**(_FLUX_VAE | (_TINY_VAE if tiny else {}))).eval(),
        text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(**clip)).eval(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=transformers.T5EncoderModel(config).eval(),
        tokenizer_2=tokenizer,
        transformer=diffusers.FluxTransformer2DModel(**(_FLUX_TRANSFORMER | (_TINY_FLUX if tiny else {}))).eval(),
    )
