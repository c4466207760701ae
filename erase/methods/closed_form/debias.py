"""UCE's debiasing: how often a concept shows each of some attributes is brought to given shares, in a feedback loop.

Paper: Gandikota et al., "Unified Concept Editing in Diffusion Models", WACV 2024, section 4.2; official code as in
`uce`. In each round images of the concept are made and labelled, and with the share wanted of attribute k less that
seen, s_k, the concept's states o become o + sum_k S_k a_k, of the attributes' states a_k and S_k the sum of all s_k so
far, always from the original weights. Official code sums them up by changing a tensor in place; its `step_size`, which
is never used there, is that sum's factor here. The round that came nearest to what is wanted is taken, not the last.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from erase.context import RunContext
from erase.edit import Edit
from erase.methods.closed_form.maps import spaces_of
from erase.methods.closed_form.states import Pairs, Tokens, prompt_pairs
from erase.models import Model, Reads
from erase.task import Target, Task

_log = logging.getLogger(__name__)
Solver = Callable[[dict[Reads, Pairs]], Edit]
Look = Callable[..., list[list[float]]]  # of an edit and prompts, with `labels`


@dataclass(frozen=True)
class Wanted:
    """Which attributes are to be seen how often, how it is looked, and when it is enough.

    `shares` [attributes] sum to 1. `tolerance`: the largest difference of a share that counts as reached.
    """

    attributes: tuple[str, ...]
    shares: Tensor
    rounds: int
    tolerance: float
    step: float

    def images_for_tolerance(self) -> int:
        """How many images of a concept tell a share to within the tolerance: two standard errors of it."""
        variance = float((self.shares * (1 - self.shares)).max())
        return math.ceil(4 * variance / self.tolerance**2) if self.tolerance else 0

    def check_images(self, count: int) -> None:
        """Says so if chance alone moves shares in so many images of a concept by more than the tolerance."""
        if count < (enough := self.images_for_tolerance()):
            _log.warning(
                "%d images of a concept tell its shares to within %.2f, and tolerance is %.2f; for that, look at %d.",
                count,
                2 * float((self.shares * (1 - self.shares)).max().sqrt()) / math.sqrt(count),
                self.tolerance,
                enough,
            )


def debias(
    model: Model, task: Task, wanted: Wanted, *, tokens: Tokens, solve: Solver, look: Look, work: RunContext
) -> Edit:
    """The edit whose images came nearest to the shares, which its record tells, before and after.

    `solve` makes an edit of pairs of states, `look` tells the shares of the attributes in images of prompts.
    """
    prompts = [[old for old, _ in prompt_pairs([replace(target, synonyms=())])] for target in task.targets]
    flat = [prompt for one in prompts for prompt in one]
    owners = torch.tensor([number for number, one in enumerate(prompts) for _ in one])

    def seen(edit: Edit | None) -> Tensor:
        found = torch.tensor(look(edit, flat, labels=wanted.attributes), dtype=torch.float64)
        return torch.stack([found[owners == number].mean(0) for number in range(len(prompts))])

    first = now = seen(None)
    history, total = [now], torch.zeros_like(now)
    pairs = [attributed(model, target, wanted.attributes, tokens=tokens) for target in task.targets]
    best: tuple[float, Tensor, Edit | None] = (distance(now, wanted), now, None)
    for number in range(wanted.rounds):
        if best[0] <= wanted.tolerance and best[2] is not None:
            break
        work.report("debiasing", number, wanted.rounds, unit="rounds", note=f"largest difference {best[0]:.2f}")
        away = wanted.shares - now
        reached = away.abs().amax(1, keepdim=True) < wanted.tolerance
        total = total + wanted.step * away * ~reached
        edit = solve(joined([moved(one, factors) for one, factors in zip(pairs, total, strict=True)]))
        now = seen(edit)
        history.append(now)
        if best[2] is None or distance(now, wanted) < best[0]:
            best = (distance(now, wanted), now, edit)
    work.report("debiasing", wanted.rounds, wanted.rounds, unit="rounds", note=f"largest difference {best[0]:.2f}")
    _, after, chosen = best
    if chosen is None:  # no round was asked for
        chosen = solve(joined([moved(one, factors) for one, factors in zip(pairs, total, strict=True)]))
    return replace(chosen, info=replace(chosen.info, record=record_of(wanted, first, after, rounds=len(history) - 1)))


def distance(shares: Tensor, wanted: Wanted) -> float:
    """The largest difference of any concept's share of an attribute from that wanted."""
    return float((shares - wanted.shares).abs().max())


def record_of(wanted: Wanted, before: Tensor, after: Tensor, *, rounds: int) -> dict[str, Any]:
    """What the edit says of its attributes: shares [targets][attributes] before and after, in the targets' order."""
    return {
        "attributes": list(wanted.attributes),
        "wanted": _rounded(wanted.shares),
        "before": [_rounded(row) for row in before],
        "after": [_rounded(row) for row in after],
        "rounds": rounds,
    }


@dataclass(frozen=True)
class Attributed:
    """A target's old states [pairs, width], and beside each the attributes' [attributes, pairs, width]."""

    old: Tensor
    attributes: Tensor


def attributed(model: Model, target: Target, attributes: Sequence[str], *, tokens: Tokens) -> dict[Reads, Attributed]:
    """The states of the target's prompts and words that are edited, and the attributes' at the same places.

    Places are counted from the last word: `last` takes that alone, `aligned` and `all` all up to the end.
    """
    prompts = [old for old, _ in prompt_pairs([target])]
    encoding = model.encode([*prompts, *attributes])
    found: dict[Reads, Attributed] = {}
    olds, others = [], []
    for part in encoding.parts:
        length, count = part.ids.shape[1], len(prompts)
        marks = part.last[count:]
        for row in range(count):
            last = int(part.last[row])
            places = torch.arange(last, last + 1 if tokens == "last" else length)
            olds.append(part.states[row, places])
            beside = (places[None] - last + marks[:, None]).clamp(max=length - 1)
            others.append(part.states[torch.arange(count, count + len(attributes))[:, None], beside])
    found["tokens"] = Attributed(torch.cat(olds), torch.cat(others, 1))
    if "pooled" in spaces_of(model) and encoding.pooled is not None:
        old, new = encoding.pooled[: len(prompts)], encoding.pooled[len(prompts) :]
        found["pooled"] = Attributed(old, new[:, None].expand(-1, len(prompts), -1))
    return found


def moved(found: dict[Reads, Attributed], factors: Tensor) -> dict[Reads, Pairs]:
    """The pairs o and o + sum_k S_k a_k, S [attributes]."""
    pairs: dict[Reads, Pairs] = {}
    for reads, one in found.items():
        new = one.old.double() + torch.einsum("k,kpw->pw", factors.double(), one.attributes.double())
        pairs[reads] = Pairs(one.old, new, torch.zeros(len(new), dtype=torch.long))
    return pairs


def joined(parts: Sequence[dict[Reads, Pairs]]) -> dict[Reads, Pairs]:
    """The pairs of several targets as one, each target's prompts being counted as one."""
    found: dict[Reads, Pairs] = {}
    for reads in parts[0]:
        each = [part[reads] for part in parts]
        numbers = torch.cat([one.prompt + number for number, one in enumerate(each)])
        found[reads] = Pairs(torch.cat([one.old for one in each]), torch.cat([one.new for one in each]), numbers)
    return found


def _rounded(shares: Tensor) -> list[float]:
    return [round(float(share), 4) for share in shares]
