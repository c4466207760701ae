"""SPEED: an edit within the null space of the keeps, with the start token and the empty prompt as exact constraints.

Paper: Li et al., "SPEED: Scalable, Precise, and Efficient Concept Erasure for Diffusion Models", ICLR 2026.
Official code: SPEED (Apache-2.0). With C_t = mean o o^T, C_a = mean n o^T, P the projector on the directions in which
the keeps' second moment is below a threshold, M = (C_t P + s I)^-1 and K the constrained states, it computes

    W' - W = W (C_a - C_t) P (I - M K (K^T P M K)^-1 K^T P) M,

the keeps being those that a plain ridge edit E = W (C_a - C_t)(I + C_t)^-1 moves at least as far as the average, and
copies of these with noise along the direction that W sees least, if E moves them further than that. It is solved in a
basis F V of the free directions, where P = F F^T and F^T C_t F = V diag(l) V^T: there P M is diag(1 / (l + s)).
Differences:
- keeps are chosen for all layers at once by default (`keeps: shared`), by the sum of squares over the layers, so that
  one map serves all; `layer` is the paper, whose layers differ;
- s is found by default: C_t is a mean, so that with many targets a fixed s outweighs each of them (with s = 1, eight
  targets of `emoji` at once keep two thirds of the distance to their anchors);
- all states of a prompt are edited by default, and then a keep's are its own tokens and its last padding;
- copies are measured against the keeps' mean, officially against that of the copies of the same 128 keeps;
- a prior may be added to the keeps' second moment;
- the threshold is a share of the average direction's moment, about 1 in CLIP and far less in T5;
- the inverse in the constraint is a pseudo-inverse, for P can cancel a constraint; the official `lamb` on its
  diagonal, 0 by default, is left out;
- keys and values are edited, where officially values alone are by default;
- targets and keeps come in the phrasings that all closed forms share (`phrasings`); officially they are bare names, and
  the states that are edited those of their last tokens, or all but the start token for nudity;
- an empty anchor is the empty prompt, state by state; officially its start token stands for the last one;
- without a keep every direction is free; officially the empty prompt's padding is the keep.

`preset: paper` has the official options; it takes all states where `tokens: all` is given beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from erase.edit import Edit, describe
from erase.errors import BadOption
from erase.methods.closed_form.maps import Weights, leading, map_both, sites_of, square, width_of
from erase.methods.closed_form.phrasings import Phrasings, tell
from erase.methods.closed_form.ridge import Factors, gram, smaller
from erase.methods.closed_form.states import Pairs, empty_states, last_states, own_states, paired_states
from erase.models import Model, Reads
from erase.options import Count, NotNegative, Options, Positive, Share, Whole
from erase.task import Task

LEAST = 1e-3  # smallest s that is found, as a share of the largest size: below it, small differences are blown up


@dataclass(frozen=True)
class SPEED(Options):
    """Options of SPEED.

    `threshold`: directions in which the keeps' second moment is below this share of the average may change; more
    erases further.
    `retain_scale`: s, of which more changes less of everything; 0 takes the largest that meets `reach`.
    `reach`: how much of the targets' distance to their anchors goes, as a share of its square, of what the free
    directions allow at all.
    `keeps`: which keeps count: `all`, or those that an edit would move most, over all layers (`shared`) or in each
    (`layer`).
    `augment`: how many noisy copies there are of each keep that counts so; 0 for none.
    `centres`: by how many states the empty prompt's padding is held exactly.
    `tokens`: which token states are edited (`last`, `aligned`, `all`); officially `last`, and all for nudity.
    `weights`: what is edited: `values`, `keys` or `both`.
    `phrasings`: as in UCE.
    `prior`, `prior_scale`: a file of `scripts/build_prior.py`, and its weight against the keeps' second moment, to
    which it is added before the free directions are looked for; where it leaves too few, raise the threshold.
    """

    paper: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"retain_scale": 1.0, "keeps": "layer", "tokens": "last", "weights": "values", "phrasings": "own"}
    )

    threshold: Positive = 0.1
    retain_scale: NotNegative = 0.0
    reach: Share = 0.95
    keeps: Literal["all", "shared", "layer"] = "shared"
    augment: Whole = 10
    centres: Count = 3
    tokens: Literal["last", "aligned", "all"] = "all"
    weights: Weights = "both"
    phrasings: Phrasings = "shared"
    prior: str = ""
    prior_scale: NotNegative = 1.0

    def __call__(self, model: Model, task: Task) -> Edit:
        told = tell(model, task, phrasings=self.phrasings, prior=self.prior)
        pairs = paired_states(model, told.pairs, self.tokens)
        keeps = (last_states if self.tokens == "last" else own_states)(model, told.kept)
        empty, sites = empty_states(model), sites_of(model, method=self, weights=self.weights)
        general = told.prior.means if told.prior else {}

        def solved(reads: Reads, *, seen: Tensor | None) -> Factors:
            states = empty[reads].double()
            fixed = torch.cat([states[:1], centres(states[1:], self.centres)]) if reads == "tokens" else states
            moment = kept_moment(keeps[reads].double(), pairs[reads], seen=seen, augment=self.augment)
            if reads in general:
                moment = moment + self.prior_scale * general[reads]
            return self.erase(pairs[reads], moment, fixed=fixed)

        if self.keeps == "layer":
            deltas = {}
            for reads, name in ((reads, name) for reads, names in sites.items() for name in names):
                weight, columns = leading(model, name, width_of(model, reads)), model.weight(name).shape[1]
                up, down = solved(reads, seen=gram(weight))
                change = ((weight @ up) @ down).float()
                deltas[name] = torch.nn.functional.pad(change, (0, columns - change.shape[1]))
            return Edit(describe(self, model, task), deltas=deltas)

        def shared(reads: Reads) -> Factors:
            return solved(reads, seen=square(model, sites[reads]) if self.keeps == "shared" else None)

        return map_both(self, model, task, solve=shared, weights=self.weights)

    def erase(self, pairs: Pairs, moment: Tensor, *, fixed: Tensor) -> Factors:
        """The map in factors, float64; raises BadOption if the keeps leave no direction to edit.

        `moment` is the keeps' second moment [width, width], `fixed` what must not move [states, width].
        """
        basis = free_directions(moment, self.threshold)
        if not basis.shape[1]:
            raise BadOption(f"speed: no direction has a keep moment below {self.threshold}; raise the threshold.")
        old, way = pairs.old.double(), (pairs.new.double() - pairs.old.double()).T / len(pairs.old)
        sizes, turned = torch.linalg.eigh(gram(old @ basis) / len(old))
        basis = basis @ turned
        space = Space(sizes.clamp(min=0), old @ basis, way, fixed @ basis)
        scale = self.retain_scale or space.largest_scale(self.reach)
        if len(old) < basis.shape[1]:
            return smaller(way, space.responses(scale) @ basis.T)
        return space.change(scale), basis.T


@dataclass(frozen=True)
class Space:
    """The problem in the basis F V: the sizes l, old states, (N - O)^T / n, and the constrained states."""

    sizes: Tensor
    old: Tensor
    way: Tensor
    fixed: Tensor

    def responses(self, scale: float) -> Tensor:
        """O P (I - M K (K^T P M K)^-1 K^T P) M, [pairs, directions], with s = `scale`."""
        return self._constrained(self.old, scale)

    def change(self, scale: float) -> Tensor:
        """The map's factor, [width, directions]."""
        return self._constrained(self._moved, scale)

    def _constrained(self, rows: Tensor, scale: float) -> Tensor:
        weighed = rows / (self.sizes + scale)
        held = self.fixed / (self.sizes + scale)
        inner = torch.linalg.pinv(held @ self.fixed.T, rtol=1e-12)
        found: Tensor = weighed - (weighed @ self.fixed.T) @ inner @ held
        return found

    @cached_property
    def _moved(self) -> Tensor:
        return self.way @ self.old

    def left(self, scale: float) -> float:
        """The mean squared distance of the old states from their anchors after the edit."""
        change, moved = self.change(scale), self._moved
        gone = 2 * (change * moved).sum() - (change.square() * self.sizes).sum()
        return float(self.way.square().sum() * self.way.shape[1] - gone)

    def largest_scale(self, reach: float) -> float:
        """The largest s with which the asked share of what can be moved at all still is, by bisection."""
        largest = max(float(self.sizes[-1]), 1e-12)
        low, high = math.log(LEAST * largest), math.log(largest / LEAST)
        whole, least = float(self.way.square().sum() * self.way.shape[1]), self.left(math.exp(low))
        for _ in range(40):
            middle = (low + high) / 2
            near = self.left(math.exp(middle)) <= least + (1 - reach) * (whole - least)
            low, high = (middle, high) if near else (low, middle)
        return math.exp(low)


def kept_moment(keeps: Tensor, pairs: Pairs, *, seen: Tensor | None, augment: int) -> Tensor:
    """The second moment of the keeps that count, [width, width]; of all of them where nothing tells (`seen` None).

    `seen` is W^T W, of one weight or summed over several.
    """
    if seen is None or not len(keeps):
        return gram(keeps) / max(1, len(keeps))
    distances = moved_by(keeps, pairs, seen=seen)
    bound, chosen = distances.mean(), keeps[distances >= distances.mean()]
    total, count = gram(chosen), len(chosen)
    unseen = torch.linalg.eigh(seen)[1][:, 0]
    generator = torch.Generator().manual_seed(0)
    for _ in range(augment):
        near = chosen + torch.randn(len(chosen), 1, generator=generator, dtype=torch.float64) * unseen
        near = near[moved_by(near, pairs, seen=seen) > bound]
        total, count = total + gram(near), count + len(near)
    return total / count


def moved_by(keeps: Tensor, pairs: Pairs, *, seen: Tensor) -> Tensor:
    """How far a plain ridge edit moves the outputs of each keep, [kept]."""
    old, new = pairs.old.double(), pairs.new.double()
    count = len(old)
    change = torch.linalg.solve(torch.eye(old.shape[1], dtype=torch.float64) + gram(old) / count, keeps.T)
    moved = ((new - old).T @ old) @ change / count
    distances: Tensor = (moved * (seen @ moved)).sum(0).clamp(min=0).sqrt()
    return distances


def free_directions(moment: Tensor, threshold: float) -> Tensor:
    """The principal directions in which a moment is below a share of its average, [width, directions]."""
    sizes, directions = torch.linalg.eigh(moment)
    free: Tensor = directions[:, sizes < threshold * sizes.mean()] if bool(moment.any()) else directions
    return free


def centres(states: Tensor, count: int) -> Tensor:
    """Centres of a k-means over states [states, width], [at most count, width], begun from states far apart."""
    chosen = [0]
    while len(chosen) < min(count, len(states)):
        chosen.append(int(torch.cdist(states, states[chosen]).amin(1).argmax()))
    found = states[chosen]
    for _ in range(50):
        nearest = torch.cdist(states, found).argmin(1)
        found = torch.stack(
            [states[nearest == number].mean(0) for number in range(len(found)) if bool((nearest == number).any())]
        )
    return found
