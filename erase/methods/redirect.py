"""Targets are redirected to their anchors by the map that moves a neutral prompt least and fixed states not at all.

Our own closed form. It takes from each of the others what holds its side best:
- every token from the first that differs, in several phrasings and beside several keeps, not the last word alone;
- the start token and the main directions of the empty prompt's and the keeps' states do not move, exactly;
- of what may move, the map that moves the keeps' and a prior's states least, in the sense of their second moment H:

      minimise  |(M - I) O - (N - O)|^2 + lamb tr((M - I) H (M - I)^T)   subject to (M - I) C = 0;

- `lamb` is found and not given: the largest with which the targets still come as near to their anchors as asked
  (`reach`), for both that distance and what it costs grow with it.

With Q an orthonormal basis of what C leaves, Q^T H Q = L L^T and S = L^-1 Q^T O = F diag(s) E^T, the minimum is

    M - I = (N - O) E diag(s / (s^2 + lamb)) F^T L^-1 Q^T.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from erase.edit import Edit
from erase.errors import BadOption
from erase.methods._maps import map_both
from erase.methods._options import check_options
from erase.methods._prior import load_prior
from erase.methods._ridge import Factors, gram, span
from erase.methods._states import all_grams, empty_states, fits, paired_states, prompt_pairs, templates_of, words_of
from erase.models import Model, Reads
from erase.task import Target, Task

TINY = 1e-9  # relative size below which a direction of the targets counts as held
LEAST = 1e-6  # smallest lamb, as a share of the largest s^2: below it, small differences are blown up
EMPTY = 0.999  # share of the empty prompt's energy that does not move


@dataclass(frozen=True)
class Redirect:
    """Options of this method.

    `reach`: how much of the targets' distance to their anchors goes, as a share of its square, of what one map can take
    away at all; more erases further and touches more.
    `hold`: the share of the keeps' energy that does not move at all; more keeps better and leaves less to erase by.
    `floor`: how much of the average direction every direction counts as kept; more changes less of what no keep names.
    `beside`: in how many of the keeps each target is learned too, so that they stay where both are named: in the
    prompts that name its anchor, whose place it takes, and beside keeps of one word.
    `expand`: also edits five common phrasings around each target.
    `prior`, `prior_scale`: a file of `scripts/build_prior.py`, and its weight against the keeps' second moment.
    """

    reach: float = 0.99
    hold: float = 0.5
    floor: float = 0.01
    beside: int = 12
    expand: bool = True
    prior: str = ""
    prior_scale: float = 1.0

    def __post_init__(self) -> None:
        check_options(self, positive=("floor",), not_negative=("beside", "prior_scale"), shares=("reach", "hold"))
        if not 0 < self.reach < 1:
            raise BadOption(f"redirect: reach is {self.reach}; expected more than 0 and less than 1.")

    def __call__(self, model: Model, task: Task) -> Edit:
        ours = [pair for pair in beside(task, self.beside) if fits(model, *pair)]
        prompts = [*prompt_pairs(task.targets, expand=self.expand), *ours]
        pairs = paired_states(model, list(dict.fromkeys(prompts)), "all")
        kept, empty = self.moments(model, task), empty_states(model)

        def solved(reads: Reads) -> Factors:
            states = empty[reads].double()
            directions = (main_directions(gram(states), EMPTY), main_directions(kept[reads], self.hold))
            fixed = torch.cat([states[:1], *(main.T for main in directions)])
            one = pairs[reads]
            return redirect(one.old, one.new, kept[reads], fixed=fixed, floor=self.floor, reach=self.reach)

        return map_both(self, model, task, solve=solved)

    def moments(self, model: Model, task: Task) -> dict[Reads, Tensor]:
        """The second moments of what is to stay, [width, width]: of the keeps in their phrasings, and of the prior."""
        templates = dict.fromkeys(
            template for target in task.targets for template in templates_of(target, expand=self.expand)
        )
        phrased = [text.format(keep) for text, keep in product(templates, words_of(task.keeps))]
        prompts = dict.fromkeys(["", *task.keeps, *(prompt for prompt in phrased if fits(model, prompt))])
        totals, count = all_grams(model, list(prompts))
        counts: dict[Reads, int] = {"tokens": count, "pooled": len(prompts)}
        means = {reads: total / counts[reads] for reads, total in totals.items()}
        if not self.prior:
            return means
        prior = load_prior(Path(self.prior), model).means
        return {reads: mean + self.prior_scale * prior[reads] for reads, mean in means.items()}


def beside(task: Task, count: int) -> Iterator[tuple[str, str]]:
    """Prompts that name a target among what is kept, and what they become; for each target as many as asked.

    A keep that names the target's anchor is one once its anchor is the target; a keep of one word stands beside it.
    """
    for target in task.targets:
        whole = [keep for keep in task.keeps if " " in keep and template_in(keep, target.anchor)]
        for keep, word in product(evenly(whole, count), target.words):
            yield template_in(keep, target.anchor).format(word), keep
        for keep, word in product(evenly(words_of(task.keeps), count), target.words):
            template = combined(target, keep)
            yield template.format(word), template.format(target.anchor) if target.anchor else f"a {keep}"


def template_in(prompt: str, word: str) -> str:
    """The prompt with `{}` in the word's place, or nothing if it does not name it just once."""
    places = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", prompt)] if word else []
    if len(places) != 1 or "{" in prompt or "}" in prompt:
        return ""
    start, end = places[0]
    return f"{prompt[:start]}{{}}{prompt[end:]}"


def evenly(items: Sequence[str], count: int) -> Sequence[str]:
    """At most so many of the items, evenly chosen."""
    return items[:: max(1, -(-len(items) // count))] if count else []


def combined(target: Target, keep: str) -> str:
    """A prompt template for the target that names a keep: a style of a kept object, or an object in a kept style."""
    return f"a {keep} in {{}} style" if target.domain == "style" else f"a {{}} in {keep} style"


def main_directions(moment: Tensor, share: float) -> Tensor:
    """The fewest principal directions that hold this share of a second moment, [width, directions]."""
    sizes, directions = torch.linalg.eigh(moment)
    sizes, directions = sizes.flip(0).clamp(min=0), directions.flip(1)
    count = int((sizes.cumsum(0) < share * sizes.sum() * (1 - TINY)).sum()) + (share > 0)
    main: Tensor = directions[:, : min(count, int((sizes > TINY * sizes[0]).sum()))]
    return main


def redirect(old: Tensor, new: Tensor, kept: Tensor, *, fixed: Tensor, floor: float, reach: float) -> Factors:
    """Factors of M - I in float64, of rank at most that of the old states.

    `old` and `new` are [pairs, width], `kept` is a second moment [width, width], `fixed` [states, width]. Raises
    BadOption if the fixed states leave nothing of the targets.
    """
    old, way, kept = old.double(), (new.double() - old.double()).T, kept.double()
    free = complement(span(fixed.double())) if len(fixed) else torch.eye(old.shape[1], dtype=torch.float64)
    within = free.T @ kept @ free
    within += floor * kept.trace() / len(kept) * torch.eye(len(within), dtype=torch.float64)
    lower = torch.linalg.cholesky(within)
    left, sizes, right = torch.linalg.svd(
        torch.linalg.solve_triangular(lower, free.T @ old.T, upper=False), full_matrices=False
    )
    seen = sizes > TINY * max(1.0, float(torch.linalg.matrix_norm(old, 2)))
    if not bool(seen.any()):
        raise BadOption("redirect: what is held leaves no direction to tell the targets by; lower hold.")
    left, sizes, way = left[:, seen], sizes[seen], way @ right[seen].T
    lamb = largest_lamb(sizes, way.square().sum(0), reach=reach)
    down = torch.linalg.solve_triangular(lower.T, left, upper=True).T @ free.T
    return way * (sizes / (sizes.square() + lamb)), down


def largest_lamb(sizes: Tensor, ways: Tensor, *, reach: float) -> float:
    """The largest lamb with which the asked share of what can be moved still is, by bisection; at least `LEAST`.

    `sizes` are the singular values s, `ways` [the same] the squared lengths of N - O along each; a direction goes
    s^2 / (s^2 + lamb) of its way.
    """
    low, high = math.log(LEAST), 60.0  # of the logarithm of lamb over the largest s^2
    largest, allowed = float(sizes.max()) ** 2, (1 - reach) * float(ways.sum())
    for _ in range(100):
        middle = (low + high) / 2
        lamb = largest * math.exp(middle)
        left = float(((lamb / (sizes.square() + lamb)).square() * ways).sum())
        low, high = (middle, high) if left <= allowed else (low, middle)
    return largest * math.exp(low)


def complement(basis: Tensor) -> Tensor:
    """An orthonormal basis of all that is orthogonal to a basis [width, rank], [width, width - rank]."""
    whole: Tensor = torch.linalg.qr(basis, mode="complete")[0]
    return whole[:, basis.shape[1] :]
