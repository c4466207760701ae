"""How much memory sampling takes, told by a model's own sizes: how many images fit at once, what is offloaded.

Weights are counted exactly. What an image takes beside them is estimated from the networks' widths and the size of the
picture; where that was too little, batches are halved when memory runs out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from erase.models import Model, settings_in
from erase.sampling.sampler import Sampler

GIB = 2**30
MOST = 32  # images at once
SMALL = GIB  # weights up to which a model on the CPU computes MOST images at once, always that many
LEFT = 0.9  # share of the free memory that is counted on
# Tensors of a network's width at its finest grid that are there at once, and of a decoder's second width at full size.
UNET, TRANSFORMER, DECODER = 40, 20, 5


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
    height, width_px = (sampler.sides.get(side, native) for side in ("height", "width"))
    latents = height * width_px // scale**2
    if "block_out_channels" in network:
        row = UNET * latents * int(network["block_out_channels"][0])
    else:
        squares = int(network.get("patch_size") or 1) if "sample_size" in network else 2
        tokens = latents // squares**2 + (sampler.max_sequence_length or 512)
        row = TRANSFORMER * tokens * int(network["num_attention_heads"]) * int(network["attention_head_dim"])
    scale_of = sampler.true_guidance if model.true_cfg else sampler.guidance
    passes = 2 if scale_of > 1 and not model.true_cfg else 1  # FLUX makes its two predictions one after the other
    channels = int(decoder["block_out_channels"][min(1, len(decoder["block_out_channels"]) - 1)])
    pixels = height * width_px
    sizes = {part: _bytes(model, part, width) for part in (model.backbone, "vae", *model.text_components)}
    encoders = tuple(sizes[part] for part in model.text_components)
    return Needs(
        sizes[model.backbone], sizes["vae"], encoders, passes * row * width, DECODER * channels * pixels * width, pixels
    )


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
