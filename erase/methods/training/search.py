"""What soft tokens bring targets back with in a network: found target by target, and read as conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from erase.methods.training.bank import Bank
from erase.methods.training.inversion import Examples, learn_tokens, place
from erase.methods.training.session import Session
from erase.models import Condition
from erase.task import Target

Found = Mapping[str, Sequence[Tensor]]  # each target's soft tokens, in the order in which they were found
Conditions = Mapping[str, Sequence[Condition]]  # each prompt's own condition, then those with its soft tokens


@dataclass(frozen=True)
class Learning:
    """How soft tokens are learned: how many stand for a name, and the steps, batch and rate of it."""

    tokens: int
    steps: int
    batch: int
    rate: float


@dataclass
class Inverter:
    """A session's text encoders, by which soft tokens are learned from the bank's pictures and read in its prompts."""

    session: Session
    bank: Bank
    learning: Learning

    def __post_init__(self) -> None:
        self.reader = self.session.reader

    def target_of(self, prompt: str) -> Target:
        """The target that a bank's prompt names."""
        return self.session.task.named_by(prompt) or self.session.task.targets[0]

    def start(self, words: str) -> Tensor:
        """The embeddings of some words, over and over to the count of soft tokens, [count, width]."""
        ids = self.reader.tokenizer(words, add_special_tokens=False)["input_ids"]
        chosen = [ids[number % len(ids)] for number in range(self.learning.tokens)]
        return self.reader.embeddings(torch.tensor(chosen))

    def learned(
        self,
        target: Target,
        start: Tensor,
        *,
        seed: int,
        said: str,
        beside: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Soft tokens [count, width] that bring a target back in the network as it is, from the bank's pictures.

        `beside`: a loss of the tokens alone that is added.
        """
        session, learning = self.session, self.learning
        rows = [row for row, one in enumerate(self.bank.plan.trajectories) if self.target_of(one.prompt) == target]
        prompts = [self.bank.plan.trajectories[row].prompt for row in rows]
        places = place(self.reader.tokenizer, prompts, target.words, count=learning.tokens)
        with torch.enable_grad():
            return learn_tokens(
                session.denoiser,
                self.reader,
                Examples(self.bank.clean[rows], places),
                start=start,
                steps=learning.steps,
                batch=learning.batch,
                rate=learning.rate,
                seed=seed,
                whole=session.denoiser.machine.summed,
                beside=beside,
                progress=lambda done, total: session.work.report(said, done, total, unit="steps"),
            )

    @torch.no_grad()
    def condition(self, prompt: str, tokens: Tensor) -> Condition:
        """A prompt's condition with soft tokens in the place of the target that it names."""
        places = place(self.reader.tokenizer, [prompt], self.target_of(prompt).words, count=len(tokens))
        return self.reader.read(places.ids, tokens[None], places.places).row(0)

    def conditions(self, found: Found) -> Conditions:
        """Each of the bank's prompts with its own condition and one for each of its target's soft tokens."""
        prompts = dict.fromkeys(one.prompt for one in self.bank.plan.trajectories)
        own = {text: self.session.given([text]).row(0) for text in prompts}
        return {
            text: [own[text], *(self.condition(text, tokens) for tokens in found[self.target_of(text).name])]
            for text in prompts
        }
