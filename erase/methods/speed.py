"""SPEED: an edit within the null space of the keeps, with the start token and the empty prompt as exact constraints.

Paper: Li et al., "SPEED: Scalable, Precise, and Efficient Concept Erasure for Diffusion Models", ICLR 2026.
Official code: SPEED (Apache-2.0). With C_t = mean o o^T, C_a = mean n o^T, P the projector on the directions in which
the keeps' second moment is below a threshold, M = (C_t P + s I)^-1 and K the constrained states, it computes

    W' - W = W (C_a - C_t) P (I - M K (K^T P M K)^-1 K^T P) M,

the keeps being those that a plain ridge edit W (C_a - C_t)(I + C_t)^-1 moves at least as far as the average.
Differences:
- that selection is made for all layers at once by default (`keeps: shared`), by the sum of squares over the layers, so
  that one map serves all; `layer` is the paper, whose layers differ;
- keeps are not augmented by noise; the inverse in the constraint is a pseudo-inverse, for P can cancel a constraint;
- keys and values are edited, where officially values alone are by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from erase.edit import Edit, describe
from erase.errors import BadOption
from erase.methods._maps import Weights, leading, map_both, sites_of, square, width_of
from erase.methods._options import check_options
from erase.methods._ridge import Factors, gram, smaller
from erase.methods._states import Pairs, empty_states, last_states, paired_states, prompt_pairs
from erase.models import Model, Reads
from erase.task import Task


@dataclass(frozen=True)
class SPEED:
    """Options of SPEED.

    `threshold`: directions in which the keeps' second moment is below it may change; more erases further.
    `retain_scale`: more changes less of everything.
    `keeps`: which keeps count: `all`, or those that an edit would move most, over all layers (`shared`) or in each
    (`layer`).
    `centres`: by how many states the empty prompt's padding is held exactly.
    `tokens`: which token states are edited (`last`, `aligned`, `all`); officially `last`, and `all` for nudity.
    `weights`: what is edited: `values`, `keys` or `both`.
    `expand`: also edits five common phrasings around each target.
    """

    threshold: float = 0.1
    retain_scale: float = 1.0
    keeps: Literal["all", "shared", "layer"] = "shared"
    centres: int = 3
    tokens: Literal["last", "aligned", "all"] = "last"
    weights: Weights = "both"
    expand: bool = False

    def __post_init__(self) -> None:
        check_options(self, positive=("threshold", "retain_scale"), counts=("centres",))

    def __call__(self, model: Model, task: Task) -> Edit:
        pairs = paired_states(model, list(prompt_pairs(task.targets, expand=self.expand)), self.tokens)
        keeps, empty = last_states(model, task.keeps), empty_states(model)
        sites = sites_of(model, method=self, weights=self.weights)

        def solved(reads: Reads, *, seen: Tensor | None) -> Factors:
            kept, states = keeps[reads].double(), empty[reads].double()
            fixed = torch.cat([states[:1], centres(states[1:], self.centres)]) if reads == "tokens" else states
            return self.erase(
                pairs[reads], kept if seen is None else influential(kept, pairs[reads], seen=seen), fixed=fixed
            )

        if self.keeps == "layer":
            deltas = {}
            for reads, name in ((reads, name) for reads, names in sites.items() for name in names):
                width, columns = width_of(model, reads), model.weight(name).shape[1]
                weight = leading(model, name, width)
                up, down = solved(reads, seen=gram(weight))
                change = ((weight @ up) @ down).float()
                deltas[name] = torch.nn.functional.pad(change, (0, columns - width))
            return Edit(describe(self, model, task), deltas=deltas)

        def shared(reads: Reads) -> Factors:
            return solved(reads, seen=square(model, sites[reads]) if self.keeps == "shared" else None)

        return map_both(self, model, task, solve=shared, weights=self.weights)

    def erase(self, pairs: Pairs, keeps: Tensor, *, fixed: Tensor) -> Factors:
        """The map in factors, float64; raises BadOption if the keeps leave no direction to edit."""
        free = null_space(keeps, self.threshold)
        if not bool(free.any()):
            raise BadOption(f"speed: no direction has a keep moment below {self.threshold}; raise the threshold.")
        old, new = pairs.old.double(), pairs.new.double()
        inverse = torch.linalg.inv(
            gram(old) / len(old) @ free + self.retain_scale * torch.eye(len(free), dtype=torch.float64)
        )
        constraint = torch.linalg.pinv(fixed @ free @ inverse @ fixed.T, rtol=1e-12)
        down = old @ free
        down = (down - down @ inverse @ fixed.T @ constraint @ fixed @ free) @ inverse
        return smaller((new - old).T / len(old), down)


def influential(keeps: Tensor, pairs: Pairs, *, seen: Tensor) -> Tensor:
    """The keeps [kept, width] whose outputs a plain ridge edit moves at least as far as the average.

    `seen` is W^T W, of one weight or summed over several.
    """
    if not len(keeps):
        return keeps
    old, new = pairs.old.double(), pairs.new.double()
    count = len(old)
    change = torch.linalg.solve(torch.eye(old.shape[1], dtype=torch.float64) + gram(old) / count, keeps.T)
    moved = (new - old).T @ (old @ change) / count
    distances = (moved * (seen @ moved)).sum(0).clamp(min=0).sqrt()
    return keeps[distances >= distances.mean()]


def null_space(keeps: Tensor, threshold: float) -> Tensor:
    """The projector on directions in which the keeps' second moment is below a threshold, [width, width]."""
    width = keeps.shape[1]
    if not len(keeps):
        return torch.eye(width, dtype=torch.float64)
    sizes, directions = torch.linalg.eigh(gram(keeps) / len(keeps))
    free = directions[:, sizes < threshold]
    projector: Tensor = free @ free.T
    return projector


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
