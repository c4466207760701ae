"""Where and how images are computed: on CUDA if it is there, with torch's own attention or that of xformers."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

from erase.errors import BadOption, MissingExtra

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

    `cpu` if there is no card. More processes than cards share them in turn. Raises BadOption for what is no number.
    """
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    said = (os.environ if environment is None else environment).get("LOCAL_RANK")
    if said is None:
        return "cuda"
    if not said.isdigit():
        raise BadOption(f'LOCAL_RANK is "{said}"; expected a whole number, as torchrun sets it.')
    return f"cuda:{int(said) % torch.cuda.device_count()}"


def use_attention(pipe: Any, backend: str) -> None:
    """Sets a pipeline's attention; raises BadOption, MissingExtra.

    Not by `set_attention_backend`, which changes nothing in a UNet (its processors know no backend).
    """
    check_attention(backend)
    if backend == "xformers":
        if pipe.device.type != "cuda":
            raise BadOption(f'attention "xformers" runs on CUDA only, the model is on {pipe.device}; give sdpa.')
        pipe.enable_xformers_memory_efficient_attention()
