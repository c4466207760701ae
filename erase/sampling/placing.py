"""Where a pipeline's networks are while images are made: all on the device, or offloaded by diffusers' hooks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from erase.errors import BadOption, OutOfMemory
from erase.models import family_of_pipe

FINE = 512 * 512  # pixels from which on pictures are decoded one by one


def check_offload(device: str, how: str) -> None:
    """Raises BadOption for offloading that a device cannot do."""
    if how == "model" and device.partition(":")[0] == "cpu":
        raise BadOption("offload: model needs a card to load networks to, and none is here; leave it out.")


def offload(pipe: Any, device: str, how: str) -> None:
    """Lets networks or layers wait beside a device for their turn, by diffusers' hooks; raises BadOption."""
    check_offload(device, how)
    if how == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif how == "layers":
        pipe.enable_group_offload(torch.device(device), offload_type="leaf_level")


@contextlib.contextmanager
def encoding(pipe: Any, device: str, how: str) -> Iterator[None]:
    """The pipeline with its text encoders alone on a device, until the block ends; then they leave it."""
    if how != "none" or device == "cpu":
        yield
        return
    family = family_of_pipe(pipe)
    for part in (getattr(pipe, name) for name in (family.backbone, "vae")):
        if part.device.type != "cpu":  # where images of other prompts were made before
            part.to("cpu")
    encoders = [getattr(pipe, text.encoder) for text in family.texts]
    for encoder in filter(None, encoders):
        encoder.to(device)
    try:
        yield
    finally:
        for encoder in filter(None, encoders):
            encoder.to("cpu")
        free_cache(device)


def place(pipe: Any, device: str, how: str, *, pixels: int) -> None:
    """Moves network and decoder to a device, unless they are offloaded; large pictures are decoded one by one."""
    if how == "none":
        for name in (family_of_pipe(pipe).backbone, "vae"):
            getattr(pipe, name).to(device)
    if pixels >= FINE:
        pipe.vae.enable_slicing()


def free_cache(device: str) -> None:
    """Gives back what torch holds of a card's memory and does not use."""
    kind = device.partition(":")[0]
    if kind in ("cuda", "mps"):
        getattr(torch, kind).empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device has no memory left; each back end says it in its own way."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)
    )


def does_not_fit(device: str, why: str) -> OutOfMemory:
    """What is said where not even one image fits."""
    return OutOfMemory(
        f"one image does not fit on {device} ({why}); give a smaller --size, --offload layers, or another device."
    )
