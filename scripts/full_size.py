"""Single-file checkpoints with every tensor of a published model, in bfloat16, of random weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor

from erase.export._writing import Entry, write_tensors
from erase.models._clip_tokens import VOCABULARY
from erase.models._ldm import TEXTS, slots
from erase.models._model import canonical

CLIP = {"vocab_size": VOCABULARY, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
BIG_CLIP = {"vocab_size": VOCABULARY, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
AUTOENCODER = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}


@dataclass(frozen=True)
class Shape:
    """A family's published settings: of its UNet, and of each text encoder with its class."""

    family: str
    unet: dict[str, Any]
    texts: tuple[tuple[str, dict[str, Any]], ...]
    hashed: bool = False

    def narrow(self) -> Shape:
        """The same with an eighth of the UNet's channels and two layers a text encoder."""
        channels = tuple(count // 8 for count in self.unet["block_out_channels"])
        texts = tuple((kind, config | {"num_hidden_layers": 3}) for kind, config in self.texts)
        return replace(self, unet=self.unet | {"block_out_channels": channels, "norm_num_groups": 8}, texts=texts)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, by its name in an edit."""
        with torch.device("meta"):
            parts: dict[str, Any] = {"unet": diffusers.UNet2DConditionModel(**self.unet)}
            parts["vae"] = diffusers.AutoencoderKL(**AUTOENCODER)
            for name, (kind, config) in zip(TEXTS[self.family], self.texts, strict=True):
                heads = {"num_attention_heads": config["hidden_size"] // 64, "projection_dim": config["hidden_size"]}
                parts[name] = getattr(transformers, kind)(transformers.CLIPTextConfig(**config, **heads))
        return {
            f"{part}.{canonical(key)}": tuple(value.shape)
            for part, module in parts.items()
            for key, value in module.state_dict().items()
        }


SHAPES = {
    "sd1": Shape(
        "stable-diffusion",
        {
            "block_out_channels": (320, 640, 1280, 1280),
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        (("CLIPTextModel", CLIP),),
    ),
    "sdxl": Shape(
        "stable-diffusion-xl",
        {
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
        (("CLIPTextModel", CLIP), ("CLIPTextModelWithProjection", BIG_CLIP)),
        hashed=True,
    ),
}


def write_checkpoint(shape: Shape, path: Path) -> tuple[list[int], int]:
    """Writes the family's single file; gives the rows of every weight that reads the prompt, and their width."""
    tensors = shape.tensors()
    where = slots(tensors, shape.family)
    noise = (0.02 * torch.randn(2**22, generator=torch.Generator().manual_seed(6))).bfloat16()
    grouped: dict[str, list[Tensor]] = {}
    entries = {}
    for name in sorted(tensors, key=lambda name: where[name].third or 0):
        grouped.setdefault(where[name].key, []).append(torch.empty(tensors[name], device="meta"))
    for number, (key, parts) in enumerate(sorted(grouped.items())):
        stored = where[next(name for name in tensors if where[name].key == key)].stored(torch.cat(parts))
        size = tuple(stored.shape)
        entries[key] = Entry(torch.bfloat16, size, partial(filled, noise, size, start=977 * number, mean=is_norm(key)))
    # The published file of SDXL tells the hash of its tensors, which an edited one tells anew; that of 1.5 does not.
    write_tensors(path, entries, metadata={}, hashed=shape.hashed)
    sites = [shape for name, shape in tensors.items() if ".attn2.to_k." in name or ".attn2.to_v." in name]
    return [rows for rows, _ in sites], sites[0][1]


def is_norm(key: str) -> bool:
    """Whether a tensor scales what a norm gives, so that ones are what it begins with."""
    return key.endswith(".weight") and ("norm" in key or ".ln_" in key)


def filled(noise: Tensor, shape: tuple[int, ...], *, start: int, mean: bool) -> Tensor:
    """Noise of a shape, taken round and round from a start."""
    count = torch.Size(shape).numel()
    turns = -(-(count + start) // len(noise))
    return noise.repeat(turns)[start : start + count].view(shape) + float(mean)
