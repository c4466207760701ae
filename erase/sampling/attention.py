"""Where and how images are computed: device, precision, and torch's own attention or that of xformers."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from erase.errors import BadOption, MissingExtra

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "float16", "bfloat16")
BACKENDS = ("sdpa", "xformers")


def check_attention(backend: str) -> None:
    """Raises BadOption for an unknown backend or one that nothing here can run, MissingExtra."""
    if backend not in BACKENDS:
        raise BadOption(f'attention "{backend}" does not exist; expected one of {", ".join(BACKENDS)}.')
    if backend == "sdpa":
        return
    import torch

    if not torch.cuda.is_available():
        raise BadOption('attention "xformers" needs a CUDA device and none is here; give sdpa, which runs everywhere.')
    if importlib.util.find_spec("xformers") is None:
        raise MissingExtra('attention "xformers" needs the package xformers: `pip install xformers`, or give sdpa.')


def device_here(environment: Mapping[str, str] | None = None) -> str:
    """Where this process computes: the card that its launcher's LOCAL_RANK counts to, `cuda` if it was not launched.

    `mps` on a Mac, `cpu` if there is no card or CUDA_VISIBLE_DEVICES hides it. More processes than cards share them in
    turn. Raises BadOption for what is no number.
    """
    import torch

    variables = os.environ if environment is None else environment
    if not torch.cuda.is_available():
        return "mps" if torch.backends.mps.is_available() and variables.get("CUDA_VISIBLE_DEVICES") != "" else "cpu"
    said = variables.get("LOCAL_RANK")
    if said is None:
        return "cuda"
    if not said.isdigit():
        raise BadOption(f'LOCAL_RANK is "{said}"; expected a whole number, as torchrun sets it.')
    return f"cuda:{int(said) % torch.cuda.device_count()}"


def dtype_here(name: str) -> torch.dtype:
    """The dtype of a name; `auto` is bfloat16 on a card that computes in it, float16 on others, float32 elsewhere.

    Raises BadOption.
    """
    import torch

    if name not in DTYPES:
        raise BadOption(f'dtype is "{name}"; expected one of {", ".join(DTYPES)}.')
    if name == "auto":
        if not device_here().startswith("cuda"):
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    named: torch.dtype = getattr(torch, name)
    return named


def use_attention(pipe: Any, backend: str) -> None:
    """Sets a pipeline's attention; raises BadOption, MissingExtra.

    Not by `set_attention_backend`, which changes nothing in a UNet (its processors know no backend).
    """
    check_attention(backend)
    if backend == "xformers":
        if pipe.device.type != "cuda":
            raise BadOption(f'attention "xformers" runs on CUDA only, the model is on {pipe.device}; give sdpa.')
        pipe.enable_xformers_memory_efficient_attention()
