"""Single-file checkpoints with every tensor of a published model, in bfloat16, of random weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from erase.export.parts.writing import Entry, write_tensors
from erase.models.storage.ldm import TEXTS, slots
from erase.models.storage.published import settings_of, shapes_of


@dataclass(frozen=True)
class Shape:
    """The settings of a family's parts that a single file holds, and whether its published file tells its hash."""

    family: str
    parts: dict[str, dict[str, Any]]
    hashed: bool = False

    @staticmethod
    def published(family: str, *, hashed: bool = False) -> Shape:
        """That of the family's published model."""
        parts = ("unet", "vae", *TEXTS[family])
        return Shape(family, {part: settings_of(family, part) for part in parts}, hashed)

    def narrow(self) -> Shape:
        """The same with an eighth of the UNet's channels and three layers a text encoder."""
        channels = [count // 8 for count in self.parts["unet"]["block_out_channels"]]
        unet = self.parts["unet"] | {"block_out_channels": channels, "norm_num_groups": 8}
        texts = {part: self.parts[part] | {"num_hidden_layers": 3} for part in TEXTS[self.family]}
        return replace(self, parts=self.parts | {"unet": unet} | texts)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, by its name in an edit."""
        return {
            f"{part}.{key}": shape for part, config in self.parts.items() for key, shape in shapes_of(config).items()
        }


SHAPES = {
    "sd1": Shape.published("stable-diffusion"),
    "sdxl": Shape.published("stable-diffusion-xl", hashed=True),
}


def write_checkpoint(shape: Shape, path: Path) -> tuple[list[int], int]:
    """Writes the family's single file; gives the rows of every weight that reads the prompt, and their width."""
    tensors = shape.tensors()
    where = slots(tensors, shape.family)
    noise = (0.02 * torch.randn(2**22, generator=torch.Generator().manual_seed(6))).bfloat16()
    grouped: dict[str, list[Tensor]] = {}
    entries = {}
    for name in sorted(tensors, key=lambda name: where[name].third or 0):
        grouped.setdefault(where[name].key, []).append(torch.empty(tensors[name], device="meta"))
    for number, (key, parts) in enumerate(sorted(grouped.items())):
        stored = where[next(name for name in tensors if where[name].key == key)].stored(torch.cat(parts))
        size = tuple(stored.shape)
        entries[key] = Entry(torch.bfloat16, size, partial(filled, noise, size, start=977 * number, mean=is_norm(key)))
    # The published file of SDXL tells the hash of its tensors, which an edited one tells again; that of 1.5 does not.
    write_tensors(path, entries, metadata={}, hashed=shape.hashed)
    sites = [shape for name, shape in tensors.items() if ".attn2.to_k." in name or ".attn2.to_v." in name]
    return [rows for rows, _ in sites], sites[0][1]


def is_norm(key: str) -> bool:
    """Whether a tensor scales what a norm gives, so that ones are what it begins with."""
    return key.endswith(".weight") and ("norm" in key or ".ln_" in key)


def filled(noise: Tensor, shape: tuple[int, ...], *, start: int, mean: bool) -> Tensor:
    """Noise of a shape, taken round and round from a start."""
    count = torch.Size(shape).numel()
    turns = -(-(count + start) // len(noise))
    return noise.repeat(turns)[start : start + count].view(shape) + float(mean)
