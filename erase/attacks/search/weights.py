"""What attacks on the weights have in common: other values for a while, and a network that is trained further."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from erase.attacks.search.attack import Access, Changes, Setting, TriedSettings
from erase.attacks.search.victim import Side, Victim
from erase.attacks.seed_search import SeedSearch
from erase.evaluate.protocol import Case
from erase.methods.training.adapters import Adapters
from erase.methods.training.layers import Layers, chosen_modules, chosen_parameters
from erase.methods.training.pictures import Noised, diffusion_loss
from erase.models import Condition

Loss = Callable[[torch.Generator], Tensor]


class WeightAttack(TriedSettings):
    """An attack that changes the weights and asks with the plain prompts.

    Its control is as many judged images of other seeds, with the weights as they were.
    """

    changes: ClassVar[Changes] = "weights"
    access: ClassVar[Access] = "weights"
    shared: ClassVar[bool] = True

    @property
    def control(self) -> Any:
        return SeedSearch()

    def weights(self, victim: Victim, setting: Setting) -> Mapping[str, Tensor]:
        """New values of some of the edited pipeline's weights, by name with the component in front."""
        raise NotImplementedError

    def asked(self, victim: Victim, case: Case) -> str:
        """The prompt that a case is asked with."""
        return case.row.prompt

    def images(
        self, victim: Victim, cases: Sequence[Case], setting: Setting, *, seeds: Sequence[int]
    ) -> list[Image.Image]:
        prompts = [self.asked(victim, case) for case in cases]
        rows = [
            replace(case.row, prompt=text, seed=seed) for case, text, seed in zip(cases, prompts, seeds, strict=True)
        ]
        with replaced_weights(victim.edited.pipe, self.weights(victim, setting)):
            return victim.edited.draw(rows)


def matrices(side: Side) -> dict[str, Tensor]:
    """The matrices and kernels of a pipeline's network, by name with the component in front."""
    name, network = side.denoiser.component, side.denoiser.network
    return {f"{name}.{key}": value.detach() for key, value in network.named_parameters() if value.dim() > 1}


@contextlib.contextmanager
def replaced_weights(pipe: Any, values: Mapping[str, Tensor]) -> Iterator[None]:
    """A pipeline with other values of some weights, until the block ends."""
    named = {name: getattr(pipe, name.partition(".")[0]).get_parameter(name.partition(".")[2]) for name in values}
    before = {name: weight.data.clone() for name, weight in named.items()}
    try:
        for name, value in values.items():
            named[name].data.copy_(value)
        yield
    finally:
        for name, value in before.items():
            named[name].data.copy_(value)


@dataclass(frozen=True)
class Tuning:
    """How a network is trained further: AdamW; `rank` of a LoRA, or 0 for the weights themselves, of some layers."""

    steps: int
    rate: float
    rank: int = 0
    layers: Layers = "all"

    def values(
        self, side: Side, loss: Loss, *, generator: torch.Generator, progress: Callable[[int, int], None]
    ) -> dict[str, Tensor]:
        """The values of the trained weights by name; the network itself is left as it was."""
        network, component = side.denoiser.network, side.denoiser.component
        if self.rank:
            modules = chosen_modules(network, self.layers, blocks=True)
            device, seed = side.denoiser.machine.device, generator.initial_seed() % 2**31
            adapters = Adapters.on(modules, rank=self.rank, alpha=self.rank, seed=seed, device=device)
            with adapters.attached():
                self._train(adapters.parameters, loss, generator=generator, progress=progress)
            named = {one.site: one for one in adapters.low_rank(component)}
            before = {name: network.get_parameter(name.removeprefix(f"{component}.")).data.cpu() for name in named}
            return {name: (before[name].double() + one.delta(before[name])).float() for name, one in named.items()}
        parameters = chosen_parameters(network, self.layers)
        kept = {name: value.detach().clone() for name, value in parameters.items()}
        try:
            self._train(parameters, loss, generator=generator, progress=progress)
            return {f"{component}.{name}": value.detach().cpu().clone() for name, value in parameters.items()}
        finally:
            for name, parameter in parameters.items():
                parameter.requires_grad_(False).data.copy_(kept[name])

    def _train(
        self,
        parameters: Mapping[str, Tensor],
        loss: Loss,
        *,
        generator: torch.Generator,
        progress: Callable[[int, int], None],
    ) -> None:
        optimizer = torch.optim.AdamW(list(parameters.values()), lr=self.rate, weight_decay=1e-2)
        for step in range(self.steps):
            optimizer.zero_grad()
            loss(generator).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
            optimizer.step()
            progress(step + 1, self.steps)


def picture_loss(side: Side, clean: Tensor, prompts: Sequence[str], *, batch: int) -> Loss:
    """The loss of a diffusion model on pictures under their prompts, a batch drawn each time."""
    conditions = side.conditions(prompts)

    def loss(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(clean), (batch,), generator=generator)
        noised = Noised.of(side.denoiser, clean[chosen], generator)
        given = Condition.stack([conditions[prompts[number]] for number in chosen.tolist()])
        return diffusion_loss(side.denoiser.predict(noised.inputs, noised.times, given), noised.truth)

    return loss
