"""Single-file checkpoints of tiny models with CLIP's whole vocabulary, and the folders they are made of.

The converter is written from diffusers' names to the layout's, the other way round than the package reads them; the
tests let diffusers itself read its files first.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from erase.models.storage.clip_tokens import VOCABULARY, clip_tokenizer
from tests.tiny import tiny_autoencoder
from tests.tiny_families import SIDE, ddim

PER_BLOCK = 2
RESNET = [
    ("norm1.", "in_layers.0."),
    ("conv1.", "in_layers.2."),
    ("norm2.", "out_layers.0."),
    ("conv2.", "out_layers.3."),
    ("time_emb_proj.", "emb_layers.1."),
    ("conv_shortcut.", "skip_connection."),
]
OUTER = [
    ("time_embedding.linear_1.", "time_embed.0."),
    ("time_embedding.linear_2.", "time_embed.2."),
    ("add_embedding.linear_1.", "label_emb.0.0."),
    ("add_embedding.linear_2.", "label_emb.0.2."),
    ("conv_in.", "input_blocks.0.0."),
    ("conv_norm_out.", "out.0."),
    ("conv_out.", "out.2."),
    ("mid_block.resnets.0.", "middle_block.0."),
    ("mid_block.attentions.0.", "middle_block.1."),
    ("mid_block.resnets.1.", "middle_block.2."),
]
OPEN_CLIP = [
    ("embeddings.token_embedding.weight", "token_embedding.weight"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("final_layer_norm.", "ln_final."),
    ("encoder.layers.", "transformer.resblocks."),
    ("self_attn.out_proj.", "attn.out_proj."),
    ("layer_norm1.", "ln_1."),
    ("layer_norm2.", "ln_2."),
    ("mlp.fc1.", "mlp.c_fc."),
    ("mlp.fc2.", "mlp.c_proj."),
]


def clip(width: int, *, layers: int = 2, act: str = "quick_gelu", projection: int | None = None) -> Any:
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        hidden_act=act,
        projection_dim=projection or width,
        bos_token_id=VOCABULARY - 2,
        eos_token_id=VOCABULARY - 1,
        pad_token_id=VOCABULARY - 1,
    )
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


def unet(width: int, **settings: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIDE,
        block_out_channels=(16, 32),
        layers_per_block=PER_BLOCK,
        cross_attention_dim=width,
        attention_head_dim=4,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **settings,
    )


def sd(*, two: bool) -> StableDiffusionPipeline:
    """Stable Diffusion 1.x, or 2.x with a text encoder of a layer less than its checkpoint."""
    return StableDiffusionPipeline(
        vae=tiny_autoencoder(),
        text_encoder=clip(64, layers=23, act="gelu") if two else clip(64),
        tokenizer=clip_tokenizer(pad="!") if two else clip_tokenizer(),
        unet=unet(64, use_linear_projection=two),
        scheduler=ddim(prediction_type="v_prediction" if two else "epsilon"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl() -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline(
        vae=tiny_autoencoder(),
        text_encoder=clip(64),
        text_encoder_2=clip(128, layers=3, act="gelu", projection=128),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(pad="!"),
        unet=unet(
            64 + 128,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=128 + 6 * 8,
        ),
        scheduler=ddim(),
        add_watermarker=False,
    )


def replace_all(name: str, table: list[tuple[str, str]]) -> str:
    for old, new in table:
        name = name.replace(old, new)
    return name


def ldm_unet(name: str, blocks_with_attention: set[str]) -> str:
    """The layout's name of a tensor of the UNet."""
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", name)
    if match is None:
        return "model.diffusion_model." + replace_all(replace_all(name, OUTER), RESNET if "resnets" in name else [])
    side, block, kind, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    first = block * (PER_BLOCK + 1)
    outer = "model.diffusion_model." + ("input_blocks" if side == "down" else "output_blocks")
    number = first + layer + (1 if side == "down" else 0)
    if kind == "downsamplers":
        return f"{outer}.{first + PER_BLOCK + 1}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"{outer}.{first + PER_BLOCK}.{2 if f'up_blocks.{block}' in blocks_with_attention else 1}.{rest}"
    return f"{outer}.{number}.0.{replace_all(rest, RESNET)}" if kind == "resnets" else f"{outer}.{number}.1.{rest}"


def ldm_unet_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    with_attention = {".".join(name.split(".")[:2]) for name in tensors if ".attentions." in name}
    named = {ldm_unet(name, with_attention): value for name, value in tensors.items()}
    assert len(named) == len(tensors)
    return named


def ldm_clip(module: torch.nn.Module, prefix: str) -> dict[str, Tensor]:
    flat = {name.removeprefix("text_model."): value for name, value in module.state_dict().items()}
    return {f"{prefix}text_model.{name}": value for name, value in flat.items()}


def ldm_open_clip(module: torch.nn.Module, prefix: str) -> dict[str, Tensor]:
    flat = {name.removeprefix("text_model."): value for name, value in module.state_dict().items()}
    named: dict[str, Tensor] = {"logit_scale": torch.tensor(4.6)}
    for name, value in flat.items():
        if ".self_attn.q_proj." in name:
            parts = [flat[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            stem = replace_all(name.partition(".self_attn.")[0], OPEN_CLIP)
            named[f"{stem}.attn.in_proj_{name.rpartition('.')[2]}"] = torch.cat(parts)
        elif name == "text_projection.weight":
            named["text_projection"] = value.T
        elif "k_proj." not in name and "v_proj." not in name:
            named[replace_all(name, OPEN_CLIP)] = value
    return {f"{prefix}{name}": value for name, value in named.items()}


def last_layer_of_sd2(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A 24th layer and a projection, which the checkpoint holds and nothing reads."""
    more = {name.replace(".22.", ".23."): value + 1.0 for name, value in tensors.items() if ".resblocks.22." in name}
    return more | {"cond_stage_model.model.text_projection": torch.eye(64)}


def ldm_tensors(pipe: Any) -> dict[str, Tensor]:
    """All tensors of a pipeline but the autoencoder's, in the layout of its family."""
    tensors = ldm_unet_tensors(pipe.unet.state_dict())
    if hasattr(pipe, "text_encoder_2"):
        tensors |= ldm_clip(pipe.text_encoder, "conditioner.embedders.0.transformer.")
        return tensors | ldm_open_clip(pipe.text_encoder_2, "conditioner.embedders.1.model.")
    if pipe.unet.config.use_linear_projection:
        tensors |= ldm_open_clip(pipe.text_encoder, "cond_stage_model.model.")
        return tensors | last_layer_of_sd2(tensors)
    return tensors | ldm_clip(pipe.text_encoder, "cond_stage_model.transformer.")


CHECKPOINTS = ("stable-diffusion", "stable-diffusion-2", "stable-diffusion-xl")


def tiny_checkpoint(family: str, folder: Path) -> tuple[Path, Path]:
    """A diffusers folder and the single file of the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        pipe = sdxl() if family == "stable-diffusion-xl" else sd(two=family == "stable-diffusion-2")
    pipe.save_pretrained(folder / "folder")
    file = folder / "model.safetensors"
    save_file({name: value.contiguous().clone() for name, value in ldm_tensors(pipe).items()}, file)
    return folder / "folder", file
