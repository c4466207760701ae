"""Which weights of a network are trained: named choices, each a pattern over its layers' names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from torch import nn

from erase.errors import BadModel

Layers = Literal["x", "x-strict", "text", "qk", "u", "selfattn", "all"]
BLOCKS = "Transformer2DModel"  # diffusers' class of the blocks that read the prompt
_JOINT_BLOCK = re.compile(r"(single_)?transformer_blocks\.\d+\..*")
_PATTERNS: Mapping[Layers, re.Pattern[str]] = MappingProxyType(
    {
        "x": re.compile(r".*\battn2\b.*"),
        "x-strict": re.compile(r".*\battn2\.to_[kv]"),
        "text": re.compile(r".*\battn2\.to_[kv]|add_embedding\.linear_[12]"),
        "qk": re.compile(r".*\battn2\.to_[qk]"),
        "u": re.compile(r"(?!.*\battn2\b).*"),
        "selfattn": re.compile(r".*\battn1\b.*"),
        "all": re.compile(r".*"),
    }
)
# Where text and image attend to each other (SD 3, FLUX), what the text is projected by stands for cross-attention; an
# `attn2` of SD 3.5 is the image's own.
_JOINT_PATTERNS: Mapping[Layers, re.Pattern[str]] = MappingProxyType(
    {
        "x": re.compile(r".*\battn\.(add_[qkv]_proj|to_add_out)"),
        "x-strict": re.compile(r".*\battn\.add_[kv]_proj"),
        "text": re.compile(r".*\battn\.add_[kv]_proj|context_embedder|time_text_embed\.text_embedder\.linear_[12]"),
        "qk": re.compile(r"transformer_blocks\.\d+\.attn\.(to_[qk]|add_[qk]_proj)"),
        "u": re.compile(r"(?!.*\battn\.(add_[qkv]_proj|to_add_out)).*"),
        "selfattn": re.compile(r".*\battn2?\.to_(q|k|v|out\.0)"),
        "all": re.compile(r".*"),
    }
)


def chosen_modules(network: nn.Module, layers: Layers, *, blocks: bool = False) -> dict[str, nn.Linear | nn.Conv2d]:
    """The linear and convolutional layers of a choice by name, all in transformer blocks if `blocks`, but for `text`.

    Raises BadModel if the network has none of them.
    """
    is_joint = hasattr(network, "context_embedder")
    pattern = (_JOINT_PATTERNS if is_joint else _PATTERNS)[layers]
    outer = [f"{name}." for name, module in network.named_modules() if type(module).__name__ == BLOCKS]
    found = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and pattern.fullmatch(name)
        and (
            not blocks
            or layers == "text"
            or name.startswith(tuple(outer))
            or (is_joint and _JOINT_BLOCK.fullmatch(name))
        )
    }
    if not found:
        raise BadModel(f'layers "{layers}" names no layer of this {type(network).__name__}; choose other layers.')
    return found


def chosen_parameters(network: nn.Module, layers: Layers) -> dict[str, Any]:
    """Weights and biases of a choice by name, ready to be trained; raises BadModel if there are none."""
    modules = chosen_modules(network, layers)
    return {
        f"{name}.{key}": parameter.requires_grad_(True)
        for name, module in modules.items()
        for key, parameter in module.named_parameters(recurse=False)
    }
