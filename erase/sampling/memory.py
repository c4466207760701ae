"""How much memory sampling takes, told by a model's own sizes: how many images fit at once, what is offloaded.

Weights are counted exactly. What an image takes beside them is estimated from the networks' widths and the size of the
picture; where that was too little, batches are halved when memory runs out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from erase.models import Model, settings_in
from erase.sampling.sampler import Sampler

GIB = 2**30
MOST = 32  # images at once
SMALL = GIB  # weights up to which a model on the CPU computes MOST images at once, always that many
LEFT = 0.9  # share of the free memory that is counted on
# Tensors that are there at once at most, as tests/sampling/test_live_memory.py counts on networks of published size: of
# a UNet's width at its finest grid, where that attends and where not; of a transformer's width, with single blocks and
# without; of a decoder's second width at full size. ROOM is for what kernels and the allocator take beside.
UNET, UNET_APART, SINGLE, DUAL, DECODER = 26, 16, 17.5, 12.5, 3
ROOM = 1.2


@dataclass(frozen=True)
class Needs:
    """Bytes that a model takes: the weights of its networks, one image in sampling, one in decoding; pixels of one."""

    backbone: int
    decoder: int
    encoders: tuple[int, ...]
    image: int
    decoding: int
    pixels: int

    def peak(self, images: int, *, offload: str = "none") -> int:
        """The most that is there at once, for so many images."""
        working = max(images * self.image, self.decoding)
        if offload == "layers":
            return working
        if offload == "model":
            return max(self.backbone + images * self.image, self.decoder + self.decoding, *self.encoders)
        return max(self.backbone + self.decoder + working, *self.encoders)


@dataclass(frozen=True)
class Plan:
    """How a model is sampled on a device: images at once, whether always so many, what is offloaded, and why.

    `pixels`: of one image.
    """

    batch: int
    filled: bool
    offload: str
    pixels: int
    why: str


def needs_of(model: Model, sampler: Sampler) -> Needs:
    """What a model takes at the sampler's size and guidance, in its own dtype."""
    width = torch.finfo(model.torch_dtype).bits // 8
    with model.source.settings() as folder:
        network, decoder = (settings_in(folder / part / "config.json") for part in (model.backbone, "vae"))
    scale = 2 ** (len(decoder["block_out_channels"]) - 1)
    native = int(network.get("sample_size") or 128) * scale
    height, across = (sampler.sides.get(side, native) for side in ("height", "width"))
    pixels = height * across
    row = image_bytes(network, pixels // scale**2, words=sampler.max_sequence_length or 512) * width
    # FLUX makes the two predictions of its guidance one after the other, all others side by side.
    passes = 2 if sampler.guidance > 1 and not model.true_cfg else 1
    sizes = {part: _bytes(model, part, width) for part in (model.backbone, "vae", *model.text_components)}
    encoders = tuple(sizes[part] for part in model.text_components)
    decoding = decoded_bytes(decoder, pixels) * width
    return Needs(sizes[model.backbone], sizes["vae"], encoders, int(passes * row), decoding, pixels)


def image_bytes(network: Mapping[str, Any], latents: int, *, words: int = 512) -> int:
    """Numbers that a network holds at once at most for one prediction, by its settings; `words`: tokens of text."""
    if "block_out_channels" in network:
        attends = "Cross" in network["down_block_types"][0]
        return int(ROOM * (UNET if attends else UNET_APART) * latents * network["block_out_channels"][0])
    tokens = latents // (int(network["patch_size"]) if "sample_size" in network else 2) ** 2 + words
    width = int(network["num_attention_heads"]) * int(network["attention_head_dim"])
    return int(ROOM * (SINGLE if "num_single_layers" in network else DUAL) * tokens * width)


def decoded_bytes(decoder: Mapping[str, Any], pixels: int) -> int:
    """Numbers that a decoder holds at once at most for one picture."""
    channels = decoder["block_out_channels"][:2][-1]
    return int(ROOM * DECODER * channels * pixels)


def plan_of(model: Model, sampler: Sampler, device: str) -> Plan:
    """How a model is sampled on a device: as asked, and where nothing was asked by what fits there."""
    needs, free = needs_of(model, sampler), free_on(device)
    kind = device.partition(":")[0]
    offload = sampler.offload
    if offload == "auto":
        fits = (one for one in ("none", "model") if kind != "cuda" or needs.peak(1, offload=one) <= LEFT * free)
        offload = next(fits, "layers")
    if sampler.batch != "auto":
        return Plan(
            int(sampler.batch), True, offload, needs.pixels, _why(needs, free, int(sampler.batch), offload=offload)
        )
    weights = needs.backbone + needs.decoder + sum(needs.encoders)
    if kind == "cpu" and weights <= SMALL:
        return Plan(MOST, True, offload, needs.pixels, "a small model on the CPU")
    fitting = [n for n in (32, 16, 8, 4, 2) if needs.peak(n, offload=offload) <= LEFT * free]
    batch = (fitting or [1])[0]
    return Plan(batch, False, offload, needs.pixels, _why(needs, free, batch, offload=offload))


def free_on(device: str) -> int:
    """Free bytes on a device."""
    kind = device.partition(":")[0]
    if kind == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if kind == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return memory_here()


def memory_here() -> int:
    """Bytes that the system can give without swapping; unknown is taken for 8 GiB."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        lines = dict(line.split(":", 1) for line in text.splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 8 * GIB


def _bytes(model: Model, part: str, width: int) -> int:
    return sum(prod(place.shape) for place in model.weights(part).places.values()) * width


def _why(needs: Needs, free: int, batch: int, *, offload: str) -> str:
    weights = (needs.backbone + needs.decoder + sum(needs.encoders)) / GIB
    peak = needs.peak(batch, offload=offload) / GIB
    kept = {"none": "all on the device", "model": "one network at a time", "layers": "one layer at a time"}[offload]
    return f"{free / GIB:.1f} GiB free, {weights:.1f} GiB of weights, {kept}: about {peak:.1f} GiB for {batch} at once"
