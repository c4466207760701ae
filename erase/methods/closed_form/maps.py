"""Which weights a closed form changes, and the edit that its map of the prompt's states makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from erase.edit import Edit, TextMap, describe
from erase.methods.closed_form.ridge import Factors, gram
from erase.models import Model, Reads
from erase.models.sites import Role
from erase.registry import name_of
from erase.task import Task

Weights = Literal["keys", "values", "both"]
_ROLES: Mapping[Weights, Role | None] = MappingProxyType({"keys": "key", "values": "value", "both": None})


def sites_of(model: Model, *, method: object, weights: Weights = "both") -> dict[Reads, tuple[str, ...]]:
    """Names of the weights that an edit changes: those that read tokens, and those that read a pooled state.

    The latter belong to neither keys nor values, so they stay where only one of these is edited. Raises CannotEdit if
    none has the wanted role.
    """
    pooled = tuple(site.name for site in model.sites() if site.reads == "pooled" and weights == "both")
    tokens = model.sites_that_read("tokens", method=name_of(method), role=_ROLES[weights])
    found: dict[Reads, tuple[str, ...]] = {"tokens": tuple(site.name for site in tokens)}
    return found | ({"pooled": pooled} if pooled else {})


def spaces_of(model: Model) -> tuple[Reads, ...]:
    """What of a prompt the model's weights read directly: its token states and, in some families, a pooled state."""
    return ("tokens", "pooled") if width_of(model, "pooled") else ("tokens",)


def width_of(model: Model, reads: Reads = "tokens") -> int:
    """The width of the prompt's states; 0 where no weight reads them."""
    return next((site.width for site in model.sites() if site.reads == reads), 0)


def leading(model: Model, name: str, width: int) -> Tensor:
    """The columns of a weight that read the prompt, the first ones, float64 [rows, width]."""
    return model.weight(name)[:, :width].double()


def square(model: Model, sites: tuple[str, ...]) -> Tensor:
    """The sum of W^T W over weights in float64, [width, width]: how much all of them together see of a direction."""
    width = next(site.width for site in model.sites() if site.name == sites[0])
    return sum((gram(leading(model, name, width)) for name in sites), torch.zeros(width, width, dtype=torch.float64))


def map_edit(
    method: Any,
    model: Model,
    task: Task,
    *,
    factors: Factors,
    pooled: Factors | None = None,
    weights: Weights = "both",
) -> Edit:
    """The edit that writes one map of the token states, M - I in factors, into all weights that read them.

    `pooled` is another map, for those that read a pooled state.
    """
    sites = sites_of(model, method=method, weights=weights)
    maps: dict[Reads, Factors | None] = {"tokens": factors, "pooled": pooled}
    text_maps = tuple(
        TextMap(found[0].float().contiguous(), found[1].float().contiguous(), sites[reads])
        for reads, found in maps.items()
        if found is not None and reads in sites
    )
    return Edit(describe(method, model, task), text_maps)


def map_both(
    method: Any, model: Model, task: Task, *, solve: Callable[[Reads], Factors], weights: Weights = "both"
) -> Edit:
    """The edit of the maps that a method solves for each kind of states that the model's weights read."""
    found = {reads: solve(reads) for reads in sites_of(model, method=method, weights=weights)}
    return map_edit(method, model, task, factors=found["tokens"], pooled=found.get("pooled"), weights=weights)
