"""Which weights a closed form changes, and the edit that its map of the prompt's states makes."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from erase.edit import Edit, TextMap, describe
from erase.errors import BadOption
from erase.methods._ridge import Factors, gram
from erase.models import Model
from erase.task import Task

Weights = Literal["keys", "values", "both"]


def token_sites(model: Model, weights: Weights = "both") -> tuple[str, ...]:
    """Names of the weights that read the prompt's token states; raises BadOption if none has the wanted role."""
    tokens = [site for site in model.sites() if site.reads == "tokens"]
    found = tuple(site.name for site in tokens if weights in ("both", f"{site.role}s"))
    if not found:
        roles = ", ".join(sorted({site.role for site in tokens}))
        raise BadOption(f"a {model.family} model has no {weights} to edit; its weights are of role {roles}: use both.")
    return found


def width_of(model: Model) -> int:
    """The width of the prompt's token states."""
    return next(site.columns for site in model.sites() if site.reads == "tokens")


def square(model: Model, sites: tuple[str, ...]) -> Tensor:
    """The sum of W^T W over weights in float64, [width, width]: how much all of them together see of a direction."""
    total = torch.zeros(width_of(model), width_of(model), dtype=torch.float64)
    for name in sites:
        total += gram(model.weight(name))
    return total


def map_edit(method: Any, model: Model, task: Task, *, factors: Factors, weights: Weights = "both") -> Edit:
    """The edit that writes one map of the token states, M - I in factors, into all these weights."""
    up, down = factors
    text_map = TextMap(up.float().contiguous(), down.float().contiguous(), token_sites(model, weights))
    return Edit(describe(method, model, task), (text_map,))
