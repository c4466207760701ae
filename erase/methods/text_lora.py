"""Text-only training: one LoRA on the weights that read the prompt, from prompts' states alone, without any image.

Our own. For each weight W that reads token states or a pooled state, an addition B A of rank r learns, over states o of
the targets' prompts, n of what these become, each at its own place, and k of what stays,

    L = mean over W of  ( mean |(W + B A) o - W n|^2 + keep_weight mean |B A k|^2 ) / mean |W (n - o)|^2.

Both terms are those of the closed forms (`uce`, Gandikota et al., WACV 2024, eq. 7), which solve the same problem
exactly, for all W by one map, in about a second: for the erasure alone take one of them. This is for who wants an
adapter of a given, small rank that people load, with all targets of a task in it, learnt at that rank and not cut to it
afterwards.

The nearest published method is CPE (Lee et al., "Concept Pinpoint Eraser for Text-to-image Diffusion Models via
Residual Attention Gate", ICLR 2025), whose loss is on keys and values of text embeddings alone, too. Differences:
- the addition is linear, so it is a LoRA; theirs is behind an attention gate that no weight can hold;
- targets go to their anchors; theirs go beyond, by a guidance;
- no adversarial embeddings, and one adapter for all targets instead of one each, chosen for each token;
- weights count equally, by what each would change; they weight layers by Lipschitz constants, keeps by 1e4 to 1e5.

Only weights that see text alone are trained: keys and values of cross-attention; where text and picture attend to each
other (SD 3, FLUX.1), the embedders of token states and pooled state. What lies behind these sees the picture, too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from erase.context import RunContext
from erase.edit import Edit, LowRank, describe
from erase.errors import BadOption
from erase.files import content_hash
from erase.methods._presets import Presets, presets
from erase.methods.closed_form.maps import sites_of
from erase.methods.closed_form.phrasings import Phrasings, Told, tell
from erase.methods.closed_form.ridge import gram
from erase.methods.closed_form.states import AT_ONCE, paired_states
from erase.methods.training.adapters import Adapters
from erase.methods.training.distributed import Machine
from erase.methods.training.trainer import Optimised, Trainer
from erase.models import Model, Reads
from erase.models.sites import Site
from erase.options import Count, NotNegative
from erase.task import Task

STATES = 32768  # of the targets, and as many of the keeps: all that 400 prompts of CLIP's length have
_mse = torch.nn.functional.mse_loss


@dataclass(frozen=True)
class TextLoRA(Optimised):
    """Options of this method, beside those of all training.

    `batch`: states of the targets in a step, and as many of what stays. `rank`: of the addition to each weight.
    `keep_weight`: more holds what stays tighter. `phrasings`: as in UCE.
    """

    # Ours; not tried on a model of full size.
    presets: ClassVar[Presets] = presets({"steps": 300, "learning_rate": 3e-3, "batch": 256, "rank": 16})

    steps: int = 300
    learning_rate: float = 3e-3
    batch: int = 256
    phrasings: Phrasings = "shared"
    rank: Count = 16
    keep_weight: NotNegative = 1.0

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        work, started = work or RunContext(), time.monotonic()
        info, device = describe(self, model, task), Machine.here().device
        names = [name for group in sites_of(model, method=self).values() for name in group]
        sites = [site for site in model.sites() if site.name in names]
        states = states_of(model, tell(model, task, phrasings=self.phrasings), work=work)
        weights = {site.name: model.weight(site.name)[:, : site.width].to(device) for site in sites}
        units = {site.name: unit_of(weights[site.name], states[site.reads]) for site in sites}
        if not all(units.values()):
            raise BadOption("text_lora: the targets' prompts read as what they become; name another anchor.")
        layers = {site.name: nn.Linear(site.width, site.rows, bias=False, device="meta") for site in sites}
        adapters = Adapters.on(layers, rank=self.rank, alpha=float(self.rank), seed=self.seed, device=device)

        def loss(step: int, generator: torch.Generator) -> Tensor:
            drawn = {reads: one.draw(self.batch, generator).to(device) for reads, one in states.items()}
            total = torch.zeros((), device=device)
            for site in sites:
                up, down = adapters.layers[site.name].up, adapters.layers[site.name].down
                lost = text_loss(weights[site.name], up, down, states=drawn[site.reads], keep_weight=self.keep_weight)
                total = total + lost / units[site.name]
            return total / len(sites)

        identity = content_hash([info.base, info.method, info.options, info.task])
        Trainer(self, adapters.parameters, identity, work, machine=Machine(device)).run(loss)
        work.tell_cost(0, time.monotonic() - started)
        return Edit(info, low_rank=tuple(_addition(site, adapters) for site in sites))


@dataclass(frozen=True)
class States:
    """States of the targets' prompts and what each becomes, [pairs, width]; those of what stays, [kept, width]."""

    old: Tensor
    new: Tensor
    kept: Tensor

    def draw(self, count: int, generator: torch.Generator) -> States:
        """So many of either, at random."""
        pairs, kept = (torch.randint(len(one), (count,), generator=generator) for one in (self.old, self.kept))
        return States(self.old[pairs], self.new[pairs], self.kept[kept])

    def to(self, device: torch.device) -> States:
        return States(self.old.to(device), self.new.to(device), self.kept.to(device))


def states_of(model: Model, told: Told, *, work: RunContext) -> Mapping[Reads, States]:
    """The states of all prompts, `STATES` at random where they are more; the empty prompt stays, too."""
    pairs, kept = told.pairs, ["", *told.kept]
    found: dict[Reads, list[tuple[Tensor, Tensor]]] = {"tokens": [], "pooled": []}
    held: dict[Reads, list[Tensor]] = {"tokens": [], "pooled": []}
    for begin in range(0, len(pairs), AT_ONCE):
        work.report("states", begin, len(pairs) + len(kept), unit="prompts")
        chunk = pairs[begin : begin + AT_ONCE]
        for reads, some in paired_states(model, chunk, "all").items():
            chosen = _chosen(len(some.old), STATES * len(chunk) // len(pairs), seed=begin)
            found[reads].append((some.old[chosen], some.new[chosen]))
    for begin in range(0, len(kept), AT_ONCE):
        work.report("states", len(pairs) + begin, len(pairs) + len(kept), unit="prompts")
        texts = kept[begin : begin + AT_ONCE]
        encoding = model.encode(texts)
        states = encoding.states.flatten(0, 1)
        held["tokens"].append(states[_chosen(len(states), STATES * len(texts) // len(kept), seed=begin)])
        held["pooled"] += [] if encoding.pooled is None else [encoding.pooled]
    return {
        reads: States(torch.cat([old for old, _ in some]), torch.cat([new for _, new in some]), torch.cat(held[reads]))
        for reads, some in found.items()
        if some
    }


def text_loss(weight: Tensor, up: Tensor, down: Tensor, *, states: States, keep_weight: float) -> Tensor:
    """How far one weight and its addition are from what is wanted, as mean squares of what they put out."""
    aim = (states.new - states.old) @ weight.to(states.old.dtype).T
    return _mse(states.old @ down.T @ up.T, aim) + keep_weight * (states.kept @ down.T @ up.T).square().mean()


def unit_of(weight: Tensor, states: States) -> float:
    """The mean square of what a weight's outputs for the targets have to change by."""
    values = weight.double().cpu()
    return float((values @ gram(states.new - states.old) * values).sum()) / (max(len(states.old), 1) * len(values))


def _addition(site: Site, adapters: Adapters) -> LowRank:
    """What was learnt for a weight, in its shape: columns that read no text add nothing."""
    up, down = (part.detach().cpu() for part in (adapters.layers[site.name].up, adapters.layers[site.name].down))
    return LowRank(up, nn.functional.pad(down, (0, site.others)), site.name)


def _chosen(count: int, most: int, *, seed: int) -> Tensor:
    """The numbers of all rows, or of so many at random, in order."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: max(most, 1)].sort().values
