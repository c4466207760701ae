"""Unified Concept Editing: cross-attention keys and values in closed form.

Paper: Gandikota et al., "Unified Concept Editing in Diffusion Models", WACV 2024, eq. 7.
Official code: unified-concept-editing (MIT). Differences from it:
- one matrix for all layers instead of one inverse a layer (`_ridge`), in float64 instead of float32; with the technique
  `tensor` the layers differ, but share that inverse;
- the start token and the empty prompt do not move (`protect`); officially they are a soft keep, or nothing at all;
- a target's prompts and synonyms are edited together, from any of three choices of tokens (`last` is today's official
  code, `aligned` the first one);
- targets and keeps come in the phrasings that all closed forms share (`phrasings`); officially in the user's own, and
  five more of each if asked;
- an empty anchor is the empty prompt, state by state, where the official code takes its start token for every word;
- every state of a keep is kept by default, as in the first official code; today's keeps its last word token alone,
  which is `keep_tokens: last` and much faster for thousands of keeps.

`preset: paper` is today's official code but for the first and the fifth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from erase.context import RunContext
from erase.edit import Edit, describe
from erase.errors import BadOption
from erase.methods.closed_form.debias import Wanted, debias
from erase.methods.closed_form.maps import map_both, sites_of
from erase.methods.closed_form.phrasings import Phrasings, Told, tell
from erase.methods.closed_form.prior import KeepTokens, held
from erase.methods.closed_form.ridge import Factors, gram, responses, solve
from erase.methods.closed_form.states import Pairs, empty_states, paired_states
from erase.models import Model, Reads
from erase.options import Count, NotNegative, Options, Positive, Share
from erase.task import Task


@dataclass(frozen=True)
class UCE(Options):
    """Options of UCE.

    `erase_scale`: more pulls the targets closer to their anchors.
    `preserve_scale`: more holds the keeps tighter, against the targets.
    `lamb`: more changes less of everything.
    `tokens`: which token states are edited (`last`, `aligned`, `all`); more of them erase further and touch more.
    `keep_tokens`: which of a keep's states are kept: `all`, padding included, or that of its `last` word token.
    `protect`: the start token and the empty prompt are held exactly (`exact`), as keeps (`kept`) or not (`none`).
    `technique`: a target's outputs become the anchor's (`replace`), or these without the part that lies along the
    target's own (`tensor`), which goes further where the two resemble each other.
    `mode`: targets become their anchors (`erase`) or the empty prompt, whatever their anchors (`moderate`); or their
    images come to show `attributes` in given `ratios`, equal ones where none are given (`debias`).
    `phrasings`: `shared` by all closed forms, the task's own, the common ones of the kind and those among the keeps, or
    the task's `own` alone.
    `prior`: a file of `scripts/build_prior.py`. `prior_scale`: as how many kept states it counts.
    `attributes`: of `debias`, what is counted. `ratios`: the share that each is to have; equal ones if left out.
    `rounds`: how often `debias` looks at most. `images`: at how many of each prompt. `tolerance`: by how much a ratio
    may be off, which takes many images to see. `step`: how strongly it answers what it sees.
    `clip`: the folder of the CLIP by which `debias` labels images; that of the model's own judge where none is given.
    `clip_template`: the text by which it recognises an attribute, which stands for {}.
    """

    # Today's official code, with its defaults.
    paper: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"tokens": "last", "keep_tokens": "last", "protect": "none", "phrasings": "own"}
    )

    erase_scale: Positive = 1.0
    preserve_scale: NotNegative = 1.0
    lamb: Positive = 0.5
    tokens: Literal["last", "aligned", "all"] = "all"
    keep_tokens: KeepTokens = "all"
    protect: Literal["exact", "kept", "none"] = "exact"
    technique: Literal["replace", "tensor"] = "replace"
    mode: Literal["erase", "moderate", "debias"] = "erase"
    phrasings: Phrasings = "shared"
    prior: str = ""
    prior_scale: NotNegative = 1000.0
    attributes: tuple[str, ...] = ()
    ratios: tuple[float, ...] = ()
    rounds: Count = 30
    images: Count = 10
    tolerance: Share = 0.05
    step: Positive = 1.0
    clip: str = ""
    clip_template: str = "{}"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode == "debias" or self.attributes or self.ratios:
            self._check_attributes()

    def _check_attributes(self) -> None:
        if self.mode != "debias" or len(set(self.attributes)) < 2 or len(set(self.attributes)) < len(self.attributes):
            raise BadOption(
                f"uce: attributes are {', '.join(self.attributes) or 'none'} and mode is {self.mode}; expected two or "
                "more different ones, and mode debias."
            )
        given = self.ratios
        if given and (len(given) != len(self.attributes) or min(given) < 0 or abs(sum(given) - 1) > 1e-6):
            raise BadOption(f"uce: ratios are {list(given)}; expected one from 0 to 1 for each attribute, 1 in all.")
        if self.clip_template.count("{}") != 1:
            raise BadOption(f'uce: clip_template is "{self.clip_template}"; expected one {{}} for the attribute.')

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        if self.mode == "debias":
            return self.debias(model, task, work=work or RunContext())
        told = tell(model, self.aims(task), phrasings=self.phrasings, prior=self.prior)
        return self.solver(model, task, told=told)(paired_states(model, told.pairs, self.tokens))

    def aims(self, task: Task) -> Task:
        """The task with what its targets become in this mode."""
        if self.mode != "moderate":
            return task
        return Task([replace(target, anchor="") for target in task.targets], task.keeps, task.prompts)

    def debias(self, model: Model, task: Task, *, work: RunContext) -> Edit:
        """The edit that brings the attributes to their ratios; raises BadOption where nobody makes images."""
        if work.observe is None:
            raise BadOption("uce: mode debias looks at images, which nobody makes here; give `work` one to `observe`.")
        count = len(self.attributes)
        shares = torch.tensor(self.ratios or [1 / count] * count, dtype=torch.float64)
        look = partial(work.observe, images=self.images, clip=self.clip, template=self.clip_template)
        wanted = Wanted(self.attributes, shares, self.rounds, self.tolerance, self.step)
        wanted.check_images(self.images * min(len(target.prompts) or 1 for target in task.targets))
        return debias(
            model,
            task,
            wanted,
            tokens=self.tokens,
            solve=self.solver(model, task, told=tell(model, task, phrasings=self.phrasings, prior=self.prior)),
            look=look,
            work=work,
        )

    def solver(self, model: Model, task: Task, *, told: Told) -> Callable[[Mapping[Reads, Pairs]], Edit]:
        """What makes an edit of pairs of states, all else being solved once."""
        empty = empty_states(model)
        kept = held(
            model,
            told.kept,
            preserve_scale=self.preserve_scale,
            prior=told.prior,
            prior_scale=self.prior_scale,
            keep_tokens=self.keep_tokens,
        )
        if self.protect == "kept":
            kept = {reads: moment + self.preserve_scale * gram(empty[reads]) for reads, moment in kept.items()}
        fixed = empty if self.protect == "exact" else {}

        def edit_of(pairs: Mapping[Reads, Pairs]) -> Edit:
            if self.technique == "tensor":
                return Edit(describe(self, model, task), deltas=self.deltas(model, pairs, kept, fixed=fixed))

            def solved(reads: Reads) -> Factors:
                one, scale = pairs[reads], self.erase_scale
                return solve(one.old, one.new, kept[reads], erase_scale=scale, lamb=self.lamb, exact=fixed.get(reads))

            return map_both(self, model, task, solve=solved)

        return edit_of

    def deltas(
        self, model: Model, pairs: Mapping[Reads, Pairs], kept: Mapping[Reads, Tensor], *, fixed: Mapping[Reads, Tensor]
    ) -> dict[str, Tensor]:
        """What each weight changes by under the technique `tensor`, float32 [rows, columns]."""
        found = {}
        for reads, names in sites_of(model, method=self).items():
            one, scale = pairs[reads], self.erase_scale
            down = responses(one.old, kept[reads], erase_scale=scale, lamb=self.lamb, exact=fixed.get(reads))
            for name in names:
                weight = model.weight(name)
                change = (scale * removed(weight[:, : down.shape[1]], one) @ down).float()
                found[name] = torch.nn.functional.pad(change, (0, weight.shape[1] - down.shape[1]))
        return found


def removed(weight: Tensor, pairs: Pairs) -> Tensor:
    """By how much the outputs of each old state are to change under the technique `tensor`, float64 [rows, pairs].

    With u = W O / |W O| over all states of one prompt, the new outputs are W N - <u, W N> u.
    """
    before, after = weight.double() @ pairs.old.double().T, weight.double() @ pairs.new.double().T
    prompts = int(pairs.prompt.max()) + 1
    shared, size = (
        torch.zeros(prompts, dtype=torch.float64).index_add(0, pairs.prompt, (before * other).sum(0))
        for other in (after, before)
    )
    return after - before * (1 + shared / size)[pairs.prompt]
