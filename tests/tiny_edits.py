"""A random edit of a tiny model, strong enough that its images change."""

from __future__ import annotations

import torch

from erase.edit import Edit, EditInfo, TextMap
from erase.models import Model


def tiny_edit(model: Model, *, seed: int = 0, size: float = 1.0, deltas: tuple[str, ...] = (), reads: str = "") -> Edit:
    """A text map of rank 2 on every site, or on those of such `reads`, and a random change of each of `deltas`."""
    generator = torch.Generator().manual_seed(seed)
    sites = [site for site in model.sites() if reads in ("", site.reads)]
    width = sites[0].width
    up, down = torch.randn(width, 2, generator=generator), torch.randn(2, width, generator=generator)
    names = tuple(site.name for site in sites)
    changes = {name: size * torch.randn(model.weight(name).shape, generator=generator) for name in deltas}
    info = EditInfo("test", {"lamb": 0.5}, {}, model.family, model.fingerprint)
    return Edit(info, (TextMap(size * up, down, names),), changes)
