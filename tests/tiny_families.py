"""Tiny random models of each family's true architecture, written as the folders that people load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from tests.tiny import WORDS, tiny_autoencoder, tiny_stable_diffusion, tiny_text_config, tiny_tokenizer

SIDE = 8  # of a latent


def tiny_openclip_tokenizer() -> CLIPTokenizer:
    """The tokenizer of OpenCLIP models, which pads with the token of an exclamation mark."""
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = "!"
    return tokenizer


def tiny_t5_tokenizer() -> T5TokenizerFast:
    """A T5 tokenizer that has whole tokens for WORDS and spells other words by letters."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -1.0) for word in WORDS]
    pieces += [(chr(code), -9.0) for code in range(ord("!"), ord("~") + 1)]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=512)


def tiny_clip_encoder(width: int, *, act: str = "quick_gelu", projection: int | None = None, layers: int = 2) -> Any:
    config = tiny_text_config(tiny_tokenizer(), width=width)
    config.hidden_act, config.num_hidden_layers = act, layers
    if projection is None:
        return CLIPTextModel(config)
    config.projection_dim = projection
    return CLIPTextModelWithProjection(config)


def tiny_t5(width: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(tiny_t5_tokenizer()),
        d_model=width,
        d_kv=8,
        d_ff=width,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        is_decoder=False,
    )
    return T5EncoderModel(config)


def ddim(**settings: Any) -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1, **settings
    )


def joint_autoencoder() -> AutoencoderKL:
    config = dict(tiny_autoencoder().config) | {"shift_factor": 0.1, "scaling_factor": 1.5}
    config.pop("_use_default_values")  # in whose place diffusers would put its own
    return AutoencoderKL.from_config(config)


def tiny_sd2() -> StableDiffusionPipeline:
    unet = UNet2DConditionModel(
        sample_size=SIDE,
        block_out_channels=(16, 32),
        layers_per_block=2,
        cross_attention_dim=64,
        attention_head_dim=(2, 4),
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        use_linear_projection=True,
    )
    return StableDiffusionPipeline(
        vae=tiny_autoencoder(),
        text_encoder=tiny_clip_encoder(64, act="gelu"),
        tokenizer=tiny_openclip_tokenizer(),
        unet=unet,
        scheduler=ddim(prediction_type="v_prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tiny_sdxl() -> StableDiffusionXLPipeline:
    unet = UNet2DConditionModel(
        sample_size=SIDE,
        block_out_channels=(16, 32),
        layers_per_block=2,
        cross_attention_dim=32 + 48,
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
    )
    return StableDiffusionXLPipeline(
        vae=tiny_autoencoder(),
        text_encoder=tiny_clip_encoder(32),
        text_encoder_2=tiny_clip_encoder(48, act="gelu", projection=24, layers=3),
        tokenizer=tiny_tokenizer(),
        tokenizer_2=tiny_openclip_tokenizer(),
        unet=unet,
        scheduler=ddim(),
        add_watermarker=False,
    )


def tiny_sd3() -> StableDiffusion3Pipeline:
    transformer = SD3Transformer2DModel(
        sample_size=SIDE,
        patch_size=2,
        in_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=96,
        caption_projection_dim=32,
        pooled_projection_dim=16 + 24,
        out_channels=4,
        pos_embed_max_size=SIDE,
        dual_attention_layers=(0,),  # as in 3.5
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=joint_autoencoder(),
        text_encoder=tiny_clip_encoder(32, projection=16),
        tokenizer=tiny_tokenizer(),
        text_encoder_2=tiny_clip_encoder(48, act="gelu", projection=24),
        tokenizer_2=tiny_openclip_tokenizer(),
        text_encoder_3=tiny_t5(96),
        tokenizer_3=tiny_t5_tokenizer(),
    )


def tiny_flux() -> FluxPipeline:
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=64,
        pooled_projection_dim=32,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=joint_autoencoder(),
        text_encoder=tiny_clip_encoder(32),
        tokenizer=tiny_tokenizer(),
        text_encoder_2=tiny_t5(64),
        tokenizer_2=tiny_t5_tokenizer(),
        transformer=transformer,
    )


BUILDERS: Mapping[str, Callable[[], Any]] = MappingProxyType(
    {
        "stable-diffusion-2": tiny_sd2,
        "stable-diffusion-xl": tiny_sdxl,
        "stable-diffusion-3": tiny_sd3,
        "flux": tiny_flux,
    }
)
FAMILIES = ("stable-diffusion", *BUILDERS)


def tiny_family(family: str, folder: Path, *, seed: int = 0) -> Path:
    """A complete random folder of a family."""
    if family == "stable-diffusion":
        return tiny_stable_diffusion(folder, seed=seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BUILDERS[family]().save_pretrained(folder)
    return folder
