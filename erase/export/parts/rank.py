"""How many of a change's directions a LoRA has to keep: measured on what the layers put out for the edit's own prompts.

A text map's rank is the number of vectors that it was solved for, phrasings and keeps among them; most of its
directions move nothing that anybody asks for. Each weight's change is written as its singular directions, the largest
first, and as many are kept as bring every layer's output within `loss` of the edited one's, for every token of the
prompts of the edit's targets and keeps. Where no prompt can be encoded, and for weights that no prompt reaches, the
change itself is kept to within `loss` of its Frobenius norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from erase.edit import EditInfo
from erase.errors import EraseError
from erase.evaluate.questions import evenly
from erase.models import Model

_MOST = 64  # prompts that are looked at
_SMALL = 10.0  # an output counts as at most so many times the largest change of one: small edits keep 1 - 10 loss
_NONE = 1e-12  # of the largest singular value: below it a direction is float64's rounding


@dataclass(frozen=True)
class Factors:
    """A weight's change as `up @ down`: [rows, rank] and [rank, columns], float64."""

    up: Tensor
    down: Tensor

    @property
    def rank(self) -> int:
        return int(self.up.shape[1])

    def first(self, rank: int) -> Factors:
        """The change in its first directions alone."""
        return Factors(self.up[:, :rank], self.down[:rank])


def spectrum(factors: Factors) -> Factors:
    """The same change in its singular directions, the largest first, each shared evenly between both factors."""
    if not factors.rank:
        return factors
    if factors.rank > min(len(factors.up), factors.down.shape[1]):
        left, values, right = torch.linalg.svd(factors.up @ factors.down, full_matrices=False)
    else:
        (outer, upper), (inner, lower) = torch.linalg.qr(factors.up), torch.linalg.qr(factors.down.T)
        turned, values, back = torch.linalg.svd(upper @ lower.T, full_matrices=False)
        left, right = outer @ turned, back @ inner.T
    root = values[: int((values > _NONE * values[0]).sum())].sqrt()
    return Factors(left[:, : len(root)] * root, root[:, None] * right[: len(root)])


@dataclass(frozen=True)
class Reach:
    """The states that a model's weights read for some prompts, [width, states] by the weights' names.

    `why`: why there are none.
    """

    states: Mapping[str, Tensor]
    prompts: int = 0
    why: str = ""


def reach_of(model: Model, info: EditInfo) -> Reach:
    """The states of the prompts of an edit's targets and keeps, evenly chosen where they are many."""
    prompts = list(dict.fromkeys(prompts_of(info)))
    if not prompts:
        return Reach({}, why="the edit names no prompt")
    chosen = evenly(prompts, _MOST)
    try:
        encoding = model.encode(chosen)
    except EraseError as error:
        return Reach({}, why=str(error))
    states = {"tokens": torch.unique(encoding.states.flatten(0, 1), dim=0).T.float()}  # the start token's but once
    if encoding.pooled is not None:
        states["pooled"] = encoding.pooled.T.float()
    read = {site.name: site for site in model.sites() if site.reads in states}
    return Reach({name: states[site.reads] for name, site in read.items()}, len(chosen))


def prompts_of(info: EditInfo) -> Iterator[str]:
    """Every target's words in its prompts, and every keep, of an edit or of those it is the sum of."""
    for part in [info.task, *(one.get("task", {}) for one in info.parts)]:
        for target in part.get("targets", ()):
            for template in target.get("prompts") or ["{}"]:
                yield from (template.replace("{}", word) for word in (target["name"], *target.get("synonyms", ())))
        yield from (_name(keep) for keep in (*part.get("keeps", ()), *part.get("prompts", ())))


def _name(keep: Any) -> str:
    return str(keep["name"] if isinstance(keep, Mapping) else keep)


def rank_within(change: Factors, weight: Tensor, states: Tensor | None, *, loss: float) -> int:
    """How many directions of a change, as `spectrum` gives them, a weight needs to be within `loss`."""
    sizes, tolerated = _missed(change, weight, states)
    left = sizes.flip(0).cumsum(0).flip(0).sqrt()  # [directions, states]: what is missed from each direction on
    return int((left > loss * tolerated).any(dim=1).sum())


def missed(change: Tensor, kept: Tensor, weight: Tensor, *, states: Tensor | None) -> float:
    """The largest relative change of what a weight puts out, where `kept` takes its change's place [rows, columns].

    Of the change itself, where no states are known.
    """
    if states is None:
        norm = float(torch.linalg.vector_norm(change))
        return float(torch.linalg.vector_norm(change - kept)) / norm if norm else 0.0
    width = len(states)
    edited, wrong = weight.double().flatten(1) + change, change - kept
    outputs = torch.linalg.vector_norm(edited[:, :width].float() @ states, dim=0)
    return float((torch.linalg.vector_norm(wrong[:, :width].float() @ states, dim=0) / outputs.clamp(min=1e-30)).max())


def _missed(change: Factors, weight: Tensor, states: Tensor | None) -> tuple[Tensor, Tensor]:
    """The square of what each direction adds to each state's output, and how large the output counts, [states]."""
    sizes = torch.linalg.vector_norm(change.up, dim=0)
    if states is None:
        whole = sizes * torch.linalg.vector_norm(change.down, dim=1)
        return whole[:, None].square(), torch.linalg.vector_norm(whole)[None]
    reading = change.down[:, : len(states)].float() @ states
    added = (sizes.float()[:, None] * reading).square()
    outputs = weight.float().flatten(1)[:, : len(states)] @ states + change.up.float() @ reading
    moved = added.sum(0).max().sqrt()
    return added, torch.linalg.vector_norm(outputs, dim=0).clamp(max=_SMALL * float(moved))
