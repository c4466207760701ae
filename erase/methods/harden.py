"""A closed form that attacks itself: what still brings a target back is searched for and folded into its equations.

Our own, against attacks on the prompt. `redirect` sends the states of a target's phrasings to the anchor's; an attacker
asks with others. So

1. phrasings and keeps are told with random words in front, too (`contexts`): attacks by text put words there;
2. the edit is put into the network, and soft tokens that bring the target's pictures back are learned against it by
   concept inversion, from several starts, as an attacker would:  v = argmin E |e'(z_t, t, T(p with v)) - eps|^2;
3. the states T(p with v) of the target's prompts join the old states, those with the anchor's embeddings in their
   place the new ones, and the edit is solved anew from the original weights, with the same keeps held as before;

steps 2 and 3 so many `rounds`. The last edit is the result: a map of what reads the text, as `redirect`'s is, with
nothing trained in it. RECE folds back a state that its equations derive for the weights alone; these are found in the
network as a whole. What changes the noise or the weights goes around it as around every edit of what reads the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from erase.context import RunContext
from erase.edit import Edit
from erase.methods._options import check_options
from erase.methods._presets import Presets
from erase.methods.closed_form.contextual_templates import Phrasing
from erase.methods.closed_form.maps import map_edit
from erase.methods.closed_form.phrasings import Told, tell
from erase.methods.closed_form.spectrum import Moments
from erase.methods.closed_form.states import empty_states
from erase.methods.redirect import Redirect, mean_grams, moments_of, redirect
from erase.methods.training.bank import Plan, Trajectory, sample_bank
from erase.methods.training.denoiser import Denoiser
from erase.methods.training.inversion import Examples, learn_tokens, place
from erase.methods.training.session import spread
from erase.methods.training.text import TextEncoder
from erase.models import Model
from erase.task import Target, Task

PROMPTS = 24  # in which what was found is folded back


@dataclass(frozen=True)
class Harden(Redirect):
    """Options of this method, beside those of redirect.

    `rounds`: of search and solution; more finds more and takes longer. `starts`: searches in a round, for each target;
    `tokens`, `steps`, `batch`, `rate`: of each, as in concept inversion. `weight`: of a state that was found against
    one of the phrasings; more holds harder and takes more along.
    `pictures`: of each target, from which it is searched; `sampling_steps`, `sampling_guidance`: of each of them.
    """

    presets: ClassVar[Presets] = MappingProxyType({})

    contexts: int = 200
    rounds: int = 2
    starts: int = 2
    tokens: int = 2
    steps: int = 80
    batch: int = 8
    rate: float = 0.02
    weight: float = 0.1
    pictures: int = 16
    sampling_steps: int = 15
    sampling_guidance: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("starts", "tokens", "steps", "batch", "pictures", "sampling_steps")
        check_options(self, positive=("rate", "weight"), not_negative=("rounds",), counts=counts)

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        TextEncoder.check(model)
        work = work or RunContext()
        told = tell(model, task, phrasings=self.phrasings, prior=self.prior, contexts=self.contexts)
        empty = empty_states(model)["tokens"]
        search = _Search(self, model, Denoiser.of(model, text_encoder=True), work)
        folds = [moments_of(model, list(told.pairs_of(slice(fold, None, 2))))["tokens"] for fold in (0, 1)]
        kept = [mean_grams(model, ["", *told.kept[fold::2]])["tokens"] for fold in (0, 1)]

        def solved() -> Edit:
            return map_edit(self, model, task, factors=redirect(folds, kept, empty=empty.double(), method=self))

        asked = {target.name: asked_texts(target, phrasings) for target, phrasings in told.asked}
        pictures = {name: search.pictures(texts) for name, texts in asked.items()}
        edit = solved()
        for number in range(self.rounds):
            search.put(edit)
            for target, start in product(task.targets, range(self.starts)):
                tokens = search.tokens(target, *pictures[target.name], seed=self.seed + number * self.starts + start)
                folds[start % 2] += search.moments(target, asked[target.name], tokens)
            edit = solved()
        return edit


@dataclass(frozen=True)
class _Search:
    """The search for what brings a target back, against a network with the edit's weights in it."""

    options: Harden
    model: Model
    denoiser: Denoiser
    work: RunContext

    @cached_property
    def encoder(self) -> TextEncoder:
        return TextEncoder.of(self.denoiser.text_encoder)

    @cached_property
    def tokenizer(self) -> Any:
        return self.model.source.tokenizer(self.model.texts[0])

    def pictures(self, texts: Sequence[str]) -> tuple[Tensor, list[str]]:
        """Clean latents of some prompts by the unedited network, [pictures, ...], and their prompts."""
        options, first = self.options, self.options.seed * 1_000_003
        chosen = spread(texts, options.pictures)
        trajectories = tuple(Trajectory(text, first + number) for number, text in enumerate(chosen))
        plan = Plan(trajectories, options.sampling_steps, options.sampling_guidance)
        given = dict(zip(plan.texts, self.model.encode(plan.texts).conditions(), strict=True))
        return sample_bank(self.denoiser, plan, given, work=self.work).clean, chosen

    @torch.no_grad()
    def put(self, edit: Edit) -> None:
        """Writes an edit's weights into the network."""
        values = dict(self.denoiser.network.named_parameters())
        for name in edit.touches:
            value = edit.changed_tensor(name, self.model.weight(name))
            values[name.removeprefix(f"{self.denoiser.component}.")].copy_(value)

    def tokens(self, target: Target, clean: Tensor, prompts: Sequence[str], *, seed: int) -> Tensor:
        """Soft tokens that bring the target's pictures, from random words, [tokens, width]."""
        options = self.options
        return learn_tokens(
            self.denoiser,
            self.encoder,
            Examples(clean, place(self.tokenizer, prompts, target.words, count=options.tokens)),
            start=self.encoder.words(1, options.tokens, torch.Generator().manual_seed(seed))[0],
            steps=options.steps,
            batch=options.batch,
            rate=options.rate,
            seed=seed,
            progress=lambda done, total: self.work.report(f"search for {target.name}", done, total, unit="steps"),
        )

    @torch.no_grad()
    def moments(self, target: Target, texts: Sequence[str], tokens: Tensor) -> Moments:
        """Those of the target's prompts with soft tokens in its place, and with what they become, from there on."""
        soft = place(self.tokenizer, spread(texts, PROMPTS), target.words, count=len(tokens))
        count = len(soft.ids)
        old = self.encoder.states_with(soft.ids, tokens.expand(count, -1, -1), soft.places)
        if target.anchor:
            ids = self.tokenizer(target.anchor, add_special_tokens=False)["input_ids"]
            anchor = self.encoder.table[torch.tensor(spread(ids, len(tokens)))]
            new = self.encoder.states_with(soft.ids, anchor.expand(count, -1, -1), soft.places)
        else:
            new = self.encoder.states(place(self.tokenizer, [""], [], count=0).ids).expand_as(old)
        later = torch.arange(old.shape[1])[None] >= soft.places[:, :1]
        return Moments.of(old[later], new[later]).times(self.options.weight)


def asked_texts(target: Target, phrasings: Sequence[Phrasing]) -> list[str]:
    """Every prompt that a target is told in."""
    return [old for old, _ in Told(((target, tuple(phrasings)),), ()).pairs]
