"""Which weights a closed form changes, and the edit that its map of the prompt's states makes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from erase.edit import Edit, TextMap, describe
from erase.methods._options import name_of
from erase.methods._ridge import Factors, gram
from erase.models import Model
from erase.models._sites import Role
from erase.task import Task

Weights = Literal["keys", "values", "both"]
_ROLES: Mapping[Weights, Role | None] = MappingProxyType({"keys": "key", "values": "value", "both": None})


def token_sites(model: Model, *, method: object, weights: Weights = "both") -> tuple[str, ...]:
    """Names of the weights that read the prompt's token states; raises CannotEdit if none has the wanted role."""
    role = _ROLES[weights]
    return tuple(site.name for site in model.sites_that_read("tokens", method=name_of(method), role=role))


def width_of(model: Model) -> int:
    """The width of the prompt's token states; 0 where no weight reads them."""
    return next((site.width for site in model.sites() if site.reads == "tokens"), 0)


def square(model: Model, sites: tuple[str, ...]) -> Tensor:
    """The sum of W^T W over weights in float64, [width, width]: how much all of them together see of a direction."""
    total = torch.zeros(width_of(model), width_of(model), dtype=torch.float64)
    for name in sites:
        total += gram(model.weight(name))
    return total


def map_edit(method: Any, model: Model, task: Task, *, factors: Factors, weights: Weights = "both") -> Edit:
    """The edit that writes one map of the token states, M - I in factors, into all these weights."""
    up, down = factors
    text_map = TextMap(
        up.float().contiguous(), down.float().contiguous(), token_sites(model, method=method, weights=weights)
    )
    return Edit(describe(method, model, task), (text_map,))
