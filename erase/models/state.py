"""Whether a loaded pipeline's weights are the plain ones that an edit is made for."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import Module

from erase.errors import BadModel, BadWeights

_PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")


def check_plain(pipe: Any) -> None:
    """Raises BadModel if layers were fused, a LoRA is loaded, or weights are quantised: an edit would miss its mark."""
    for part in _PARTS:
        module = getattr(pipe, part, None)
        if isinstance(module, Module):
            _check_layers(part, module)
            for name, parameter in module.named_parameters():
                check_unquantised(f"{part}.{name}", parameter)


def dequantised(value: Tensor) -> Tensor:
    """A tensor of eight floating bits in 32, which hold its values; any other as it is."""
    return value.float() if value.is_floating_point() and value.element_size() < 2 else value


def check_unquantised(name: str, value: Tensor) -> None:
    """Raises BadWeights if a tensor is stored in fewer bits than an edit can be written in."""
    if not value.is_floating_point() or value.element_size() < 2:
        kind = str(value.dtype).removeprefix("torch.")
        raise BadWeights(f"{name} is stored as {kind}, so quantised; edit the model in float32, float16 or bfloat16.")


def _check_layers(part: str, module: Module) -> None:
    for name, layer in module.named_modules():
        if _is_fused(layer):
            raise BadModel(
                f"the {part} has fused projections ({name}), so its own are not used; "
                "call `unfuse_qkv_projections()` before the edit."
            )
        if hasattr(layer, "base_layer"):
            raise BadModel(
                f"the {part} has a LoRA loaded ({name}); call `unload_lora_weights()` before the edit, or fuse it, "
                "save the model and make the edit on that."
            )


def _is_fused(layer: Module) -> bool:
    """Whether an attention layer computes with joined projections instead of its own.

    A UNet's layers keep their mark when they are taken apart again; there the processor tells.
    """
    from diffusers.models.attention_processor import Attention

    if isinstance(layer, Attention):
        return type(layer.processor).__name__.startswith("Fused")
    return bool(getattr(layer, "fused_projections", False))
