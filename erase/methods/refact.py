"""ReFACT: a fact of the text encoder is rewritten by an edit of one of its layers, of rank one for each target.

Paper: Arad, Orgad, Belinkov, "ReFACT: Updating Text-to-Image Models by Editing the Text Encoder", NAACL 2024, eq. 2-4.
Official code: ReFACT (no licence). In it, k is the mean input of `mlp.fc2` of a layer at a target's last token over
several phrasings, C the second moment of such inputs over a corpus, d what has to be added to the layer's output there,
and

    W' = W + d u^T / (k^T u),    u = C^-1 k.

d is found by Adam on the frozen text encoder: with d added, the phrasing's pooled state comes nearer to that of the
anchor's phrasing than to those of the target's and of the keeps'. Differences from the official code:
- of its algorithms the one by text (`contrastive_text`, distances), as in the commands of its page; the default of its
  script compares with images of both, at a larger learning rate;
- it ends once the anchor is likely enough (0.99), here all steps are taken; its term that holds other prompts' scores,
  off by default, is left out, and keeps are told apart instead;
- k and d are means over the phrasings that all closed forms share (`phrasings`), sixteen of them at most; officially d
  is found in the user's prompt and nine fixed phrasings of pictures, and k^T u takes the k of that prompt;
- only the layers behind the edited one are run in the search, on the tokens up to the prompts' ends, all words at once;
- several targets are solved together, D (K^T C^-1 K)^-1 K^T C^-1, which meets all of them and for one is the above;
- the pooled state before its projection, which diffusion models have no weights of;
- C comes from the keeps and the anchors in their phrasings, plus that of a prior, plus `floor` times its average on the
  diagonal; officially from a corpus;
- several targets at once; officially one after the other, each on the text encoder that those before have edited;
- in float64 but for the text encoder itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from erase.edit import Edit, describe
from erase.methods.closed_form.contextual_templates import Phrasing, evenly
from erase.methods.closed_form.encoder_probe import EncoderProbe, Rest
from erase.methods.closed_form.phrasings import Phrasings, asked_for, tell
from erase.methods.closed_form.states import put
from erase.models import Model
from erase.options import Count, NotNegative, Options, Positive
from erase.task import Target, Task

TEMPLATES = 16  # of a target's phrasings, evenly chosen: k and d are means over them, and d is searched for in each
NEGATIVES = 8  # keeps that the loss is told to stay away from


@dataclass(frozen=True)
class ReFACT(Options):
    """Options of ReFACT.

    `layer`: which layer is edited, counted from 0; -1 is three quarters of the way up, but never the last.
    `steps`, `learning_rate`: of the search for what to add; more goes nearer to the anchor.
    `radius`: how long that may be, in lengths of the layer's own output.
    `decay`: more keeps it shorter.
    `floor`: how much of the average direction every direction counts as kept; more spreads the edit less.
    `phrasings`: as in UCE.
    `prior`, `prior_scale`: a file of `scripts/build_prior.py --layer`, and its weight against the second moment of the
    keeps and anchors.
    """

    # Its search is that of the commands on the official page already.
    paper: ClassVar[Mapping[str, Any]] = MappingProxyType({"phrasings": "own"})

    layer: int = -1
    steps: Count = 100
    learning_rate: Positive = 0.05
    radius: Positive = 4.0
    decay: NotNegative = 0.01
    floor: Positive = 0.01
    phrasings: Phrasings = "shared"
    prior: str = ""
    prior_scale: NotNegative = 1.0

    def __call__(self, model: Model, task: Task) -> Edit:
        tower = EncoderProbe.of(model, self.layer)
        told = tell(model, task, phrasings=self.phrasings, prior=self.prior)
        general = told.prior.read_by(tower.weight_name) if told.prior else None
        info = describe(self, model, task)
        words = [(word, target, evenly(among, TEMPLATES)) for target, among in told.asked for word in target.words]
        keys, additions = self.facts(tower, words, keeps=[keep.name for keep in task.keeps])
        corpus = tower.inputs([*told.kept, *(becomes for _, among in told.asked for _, becomes in among)])
        moment = corpus.T @ corpus / len(corpus)
        if general is not None:
            moment += self.prior_scale * general
        moment += self.floor * moment.trace() / len(moment) * torch.eye(len(moment), dtype=torch.float64)
        delta = insert(keys, additions, moment)
        return Edit(info, deltas={f"text_encoder.{tower.weight_name}": delta.float()})

    def facts(
        self, tower: EncoderProbe, words: Sequence[tuple[str, Target, Sequence[Phrasing]]], *, keeps: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Each word's key k [facts, inner width], and what is to be added to the layer's output, d [facts, width].

        All words are searched for at once, float64.
        """
        found = [phrased(tower, word, among, target=target, keeps=keeps) for word, target, among in words]
        prompts = [prompt for one in found for prompt in one.prompts]
        places = torch.cat([one.places for one in found])
        owners = torch.tensor([number for number, one in enumerate(found) for _ in one.prompts])
        inputs, outputs = tower.at(prompts, places)
        keys, means = (
            torch.stack([values[owners == number].double().mean(0) for number in range(len(found))])
            for values in (inputs, outputs)
        )
        added = self.search(tower.rest(prompts, places), found, owners=owners, sizes=means.norm(dim=1).float())
        return keys, added.double()

    def search(self, rest: Rest, found: Sequence[Phrased], *, owners: Tensor, sizes: Tensor) -> Tensor:
        """What is to be added for each word, [facts, width], by Adam; the words' losses have nothing in common."""
        most = max(one.choices.shape[1] for one in found)
        choices = torch.cat(
            [torch.nn.functional.pad(one.choices, (0, 0, 0, most - one.choices.shape[1])) for one in found]
        )
        there = torch.arange(most) < torch.tensor([one.choices.shape[1] for one in found])[owners, None]
        nothing = 1e-6 * choices.square().sum(-1)  # at first the word is where it was, and rounding has no direction
        share = 1.0 / torch.bincount(owners)[owners]
        added = torch.zeros(len(found), rest.states.shape[-1], requires_grad=True)
        adam = torch.optim.Adam([added], lr=self.learning_rate)
        for _ in range(self.steps):
            pooled = rest.pooled(added[owners])
            logits = -((pooled[:, None] - choices).square().sum(-1) + nothing).sqrt()
            logits = logits.masked_fill(~there, -torch.inf)
            wrong = torch.nn.functional.cross_entropy(logits, torch.zeros_like(owners), reduction="none")
            long = (added.square().sum(1) + 1e-12).sqrt() / sizes.square()
            adam.zero_grad()
            ((wrong * share).sum() + self.decay * long.sum()).backward()  # type: ignore[no-untyped-call]
            adam.step()
            with torch.no_grad():
                added.mul_((self.radius * sizes / added.norm(dim=1).clamp(min=1e-12)).clamp(max=1.0)[:, None])
        return added.detach()


@dataclass(frozen=True)
class Phrased:
    """A word's prompts, the place of its last token in each, and the pooled states that each may come near to.

    `choices` are [prompts, names, width]: of the anchor, of the word itself, of some keeps.
    """

    prompts: list[str]
    places: Tensor
    choices: Tensor


def phrased(
    tower: EncoderProbe, word: str, among: Sequence[Phrasing], *, target: Target, keeps: Sequence[str]
) -> Phrased:
    """The word in some phrasings, as far as they are short enough with each of the keeps in its place."""
    others = (word, *keeps[:NEGATIVES])
    short = tower.fitting([template for template, _ in among], others)
    chosen = [one for one in among if one[0] in short]
    prompts = [asked_for(target, template, word) for template, _ in chosen]
    names = [[becomes for _, becomes in chosen], *([put(text, name) for text, _ in chosen] for name in others)]
    choices = torch.stack([tower.pooled(texts) for texts in names], 1)
    return Phrased(prompts, tower.last_places(prompts, word), choices)


def insert(keys: Tensor, additions: Tensor, moment: Tensor) -> Tensor:
    """What a weight changes by so that each key's output gains its addition, float64 [width, inner width].

    `keys` are [facts, inner width], `additions` [facts, width], `moment` is C; of all such changes it is the one that
    moves the outputs of C's inputs least.
    """
    directions = torch.linalg.solve(moment.double(), keys.double().T)
    change: Tensor = additions.double().T @ torch.linalg.solve(keys.double() @ directions, directions.T)
    return change
