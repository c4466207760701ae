"""Which weights of a network are trained: named choices, each a pattern over its layers' names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

from torch import nn

from erase.errors import BadModel, BadOption

Layers = Literal["x", "x-strict", "u", "selfattn", "all"]
LAYERS: tuple[Layers, ...] = get_args(Layers)
BLOCKS = "Transformer2DModel"  # diffusers' class of the blocks that read the prompt
_PATTERNS: Mapping[Layers, re.Pattern[str]] = MappingProxyType(
    {
        "x": re.compile(r".*\battn2\b.*"),
        "x-strict": re.compile(r".*\battn2\.to_[kv]"),
        "u": re.compile(r"(?!.*\battn2\b).*"),
        "selfattn": re.compile(r".*\battn1\b.*"),
        "all": re.compile(r".*"),
    }
)


def check_layers(method: str, layers: str) -> None:
    """Raises BadOption for a choice that does not exist."""
    if layers not in LAYERS:
        raise BadOption(f'{method}: layers is "{layers}"; expected one of {", ".join(LAYERS)}.')


def chosen_modules(network: nn.Module, layers: Layers, *, within: str = "") -> dict[str, nn.Linear | nn.Conv2d]:
    """The linear and convolutional layers of a choice by name, all below a module of class `within` where given.

    Raises BadModel if the network has none of them.
    """
    outer = [name for name, module in network.named_modules() if type(module).__name__ == within]
    found = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and _PATTERNS[layers].fullmatch(name)
        and (not within or any(name.startswith(f"{one}.") for one in outer))
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
