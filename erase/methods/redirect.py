"""Targets are redirected to their anchors by the map that moves a neutral prompt least and fixed states not at all.

Our own closed form. It takes from each of the others what holds its side best:
- every token from the first that differs, not the last word alone;
- the start token and the main directions of the empty prompt's and the keeps' states do not move, exactly;
- of what may move, the map that moves the keeps' and a prior's states least, in the sense of their second moment H:

      minimise  |(M - I) O - (N - O)|^2 + lamb tr((M - I) H (M - I)^T)   subject to (M - I) C = 0;

- `lamb` is found and not given. Half of the phrasings and keeps are solved for and the other half looked at, and the
  other way round; the best lamb leaves least of the targets and moves the keeps least where it was not told to. Too
  small a lamb learns its phrasings by heart and spoils others, too large a one leaves the targets where they are.

What it is told is what every closed form is told (`_phrasings`). `_spectrum` has the algebra.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from erase.edit import Edit
from erase.errors import BadOption
from erase.methods._presets import Presets
from erase.methods.closed_form.maps import map_both, spaces_of, width_of
from erase.methods.closed_form.phrasings import Phrasings, tell
from erase.methods.closed_form.ridge import Factors, gram, smaller
from erase.methods.closed_form.spectrum import Moments, best_share, complement, main_directions, spectrum
from erase.methods.closed_form.states import AT_ONCE, all_grams, empty_states, paired_states
from erase.models import Model, Reads
from erase.options import NotNegative, Options, Positive, Share, Whole
from erase.task import Task

EMPTY = 0.999  # share of the empty prompt's energy that does not move


@dataclass(frozen=True)
class Redirect(Options):
    """Options of this method.

    `balance`: how much a keep's movement counts against what is left of a target, when `lamb` is chosen; more touches
    less and erases less far.
    `hold`: the share of the keeps' energy that does not move at all; more keeps better and leaves less to erase by.
    `floor`: how much of the average direction every direction counts as kept; more changes less of what no keep names.
    `phrasings`: as in UCE.
    `contexts`: of targets' phrasings and of keeps that are told with random words in front, too, as attacks by words
    put them there; 0 for none, and 200 by `preset: hardened`.
    `prior`, `prior_scale`: a file of `scripts/build_prior.py`, and its weight against the keeps' second moment.
    """

    presets: ClassVar[Presets] = MappingProxyType({"hardened": MappingProxyType({"contexts": 200})})

    balance: Positive = 0.3
    hold: Share = 0.5
    floor: Positive = 0.01
    phrasings: Phrasings = "shared"
    prior: str = ""
    prior_scale: NotNegative = 1.0
    contexts: Whole = 0

    def __call__(self, model: Model, task: Task) -> Edit:
        told = tell(model, task, phrasings=self.phrasings, prior=self.prior, contexts=self.contexts)
        empty = empty_states(model)
        folds = [moments_of(model, list(told.pairs_of(slice(fold, None, 2)))) for fold in (0, 1)]
        kept = [mean_grams(model, ["", *told.kept[fold::2]]) for fold in (0, 1)]
        if told.prior:
            means, scale = told.prior.means, self.prior_scale
            kept = [{reads: mean + scale * means[reads] for reads, mean in half.items()} for half in kept]

        def solved(reads: Reads) -> Factors:
            return redirect(
                [fold[reads] for fold in folds],
                [fold[reads] for fold in kept],
                empty=empty[reads].double(),
                method=self,
            )

        return map_both(self, model, task, solve=solved)


def moments_of(model: Model, prompts: Sequence[tuple[str, str]]) -> dict[Reads, Moments]:
    """The moments of all states of pairs of prompts, from the first token that differs."""
    total = {reads: Moments.none(width_of(model, reads)) for reads in spaces_of(model)}
    for begin in range(0, len(prompts), AT_ONCE):  # the states of thousands of prompts need not fit into memory
        found = paired_states(model, prompts[begin : begin + AT_ONCE], "all")
        total = {reads: moments + Moments.of(found[reads].old, found[reads].new) for reads, moments in total.items()}
    return total


def mean_grams(model: Model, prompts: Sequence[str]) -> dict[Reads, Tensor]:
    """The second moments of every state of prompts, [width, width] float64."""
    totals, count = all_grams(model, prompts)
    counts: dict[Reads, int] = {"tokens": count, "pooled": len(prompts)}
    return {reads: total / counts[reads] for reads, total in totals.items()}


def redirect(folds: Sequence[Moments], kept: Sequence[Tensor], *, empty: Tensor, method: Redirect) -> Factors:
    """Factors of M - I in float64, of rank at most the width.

    `folds` and `kept` are the moments of two halves of the pairs and of the keeps [width, width], `empty` the states of
    the empty prompt [states, width]. Raises BadOption if what is fixed leaves nothing of the targets.
    """
    pairs, mean = folds[0] + folds[1], (kept[0] + kept[1]) / 2
    directions = (main_directions(gram(empty), EMPTY), main_directions(mean, method.hold))
    free = complement(torch.cat([empty[:1], *(main.T for main in directions)]))
    found = spectrum(pairs, mean, free=free, floor=method.floor)
    if found is None:
        raise BadOption("redirect: what is held leaves no direction to tell the targets by; lower hold.")
    share = best_share(folds, kept, free=free, floor=method.floor, balance=method.balance)
    return smaller(*found.factors(share))
