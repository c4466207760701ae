"""What a safetensors file is, told by its keys: one answer for whoever opens it and whoever looks at it."""

from __future__ import annotations

from collections.abc import Iterable

from erase.models.storage.ldm import CLIP_1, CLIP_XL, OPEN_CLIP_2, OPEN_CLIP_XL, UNET

_SD = "a single-file checkpoint of Stable Diffusion"
_XL = f"{_SD} XL"
WHOLE = (f"{_SD} 1", f"{_SD} 2", _XL)
PUBLISHED = (
    "a Stable Diffusion 3 checkpoint",
    "a Stable Diffusion 3 transformer",
    "a FLUX checkpoint",
    "a FLUX transformer",
)
TRANSFORMERS = (
    *PUBLISHED,
    "a FLUX transformer of a diffusers folder",
    "a Stable Diffusion 3 transformer of a diffusers folder",
)
# By what some key of a file holds, or begins with where it stands after "^"; the first row of which all is there.
_ROWS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("^text_map.",), "an edit"),
    (("^delta.",), "an edit"),
    (("^low_rank.",), "an edit"),
    (("^lora_",), "a LoRA with kohya's keys"),
    ((".lora_A.",), "a LoRA with diffusers' keys"),
    ((".lora.down.",), "a LoRA with diffusers' keys"),
    (("_lora.down.",), "a LoRA with diffusers' older keys"),
    ((".lora_down.",), "a LoRA"),
    (("^conditioner.embedders.0.model.",), "the refiner of Stable Diffusion XL, which has one text encoder"),
    ((f"^{CLIP_XL}", f"^{OPEN_CLIP_XL}", f"^{UNET}"), _XL),
    ((f"^{CLIP_XL}", f"^{OPEN_CLIP_XL}"), f"{_XL} without its UNet"),
    ((f"^{CLIP_XL}",), f"{_XL} without its second text encoder ({OPEN_CLIP_XL}*)"),
    ((f"^{OPEN_CLIP_XL}",), f"{_XL} without its first text encoder ({CLIP_XL}*)"),
    ((f"^{OPEN_CLIP_2}", f"^{UNET}"), f"{_SD} 2"),
    ((f"^{CLIP_1}", f"^{UNET}"), f"{_SD} 1"),
    ((f"^{OPEN_CLIP_2}",), f"{_SD} 2 without its UNet"),
    ((f"^{CLIP_1}",), f"{_SD} 1 without its UNet"),
    ((f"^{UNET}joint_blocks.",), TRANSFORMERS[0]),
    (("^joint_blocks.",), TRANSFORMERS[1]),
    ((f"^{UNET}double_blocks.",), TRANSFORMERS[2]),
    (("^double_blocks.",), TRANSFORMERS[3]),
    (("^single_transformer_blocks.", "^context_embedder."), TRANSFORMERS[4]),
    (("^transformer_blocks.", "^pos_embed.", "^context_embedder."), TRANSFORMERS[5]),
    ((f"^{UNET}label_emb.",), f"{_XL} without its text encoders"),
    ((f"^{UNET}",), "a UNet without its text encoders"),
    (("^input_blocks.", "^label_emb."), "a bare UNet of Stable Diffusion XL, as ComfyUI keeps them apart"),
    (("^input_blocks.",), "a bare UNet, as ComfyUI keeps them apart"),
    (("^unet.",), "a UNet's tensors by diffusers' names"),
    (("^down_blocks.",), "a UNet of a diffusers folder"),
    (("^mid_block.",), "a UNet of a diffusers folder"),
    (("^up_blocks.",), "a UNet of a diffusers folder"),
    (("^encoder.layers.",), "a text encoder of a diffusers folder"),
    (("^text_model.",), "a text encoder of a diffusers folder"),
    (("^decoder.",), "an autoencoder of a diffusers folder"),
)


def kind_of(keys: Iterable[str]) -> str:
    """What a file with these keys is; empty where nobody knows."""
    found = list(keys)

    def is_there(mark: str) -> bool:
        return any(key.startswith(mark[1:]) if mark[0] == "^" else mark in key for key in found)

    return next((what for marks, what in _ROWS if all(map(is_there, marks))), "")
