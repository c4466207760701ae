"""Which weights of many have the largest gradients, and training of those alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

_INFINITE = 0x7F800000  # the bits of float32's infinity: those of numbers from 0 on are in the numbers' own order


def salient(sizes: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Masks of the share of all values that are largest in size, by name; what is 0 is in none.

    Values as large as the smallest of them are in, too. Nothing is sorted or put together: their bits are bisected, in
    31 counts of all values.
    """
    bits = {name: value.detach().abs().float().contiguous().view(torch.int32) for name, value in sizes.items()}
    wanted = round(share * sum(value.numel() for value in bits.values()))
    low, high = 1, _INFINITE + 1
    while high - low > 1:
        middle = (low + high) // 2
        enough = sum(int((value >= middle).sum()) for value in bits.values()) >= wanted
        low, high = (middle, high) if enough else (low, middle)
    return {name: value >= low for name, value in bits.items()}


@contextlib.contextmanager
def masked(parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Gradients of parameters are zero outside their masks, until the block ends."""
    with contextlib.ExitStack() as stack:
        for name, parameter in parameters.items():
            mask = masks[name].to(parameter.device)
            handle: Any = parameter.register_hook(lambda gradient, mask=mask: gradient * mask)  # type: ignore[no-untyped-call]
            stack.callback(handle.remove)
        yield
