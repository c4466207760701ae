"""Receler: a small eraser behind each cross-attention layer, trained against soft tokens that bring the concept back.

Paper: Huang et al., "Receler: Reliable Concept Erasing of Text-to-Image Diffusion Models via Lightweight Erasers", ECCV
2024. Behind layer l, which writes o, an eraser of two matrices adds what it makes of it,

    o + U_l GELU(D_l o),

and nothing else changes. With m the mask of the places that attend to the concept's words,

    L = | e_s(x_t, c*) - (e_0 - eta (e_p - e_0)) |^2  +  locality mean_l | U_l GELU(D_l o) (1 - m) |^2

where c* is the prompt with soft tokens behind its words, which before each step go down | e_s(x_t, c*) - e_p |^2.
Official code: jasper0314-huang/Receler (MIT). Differences from it:
- x_t, e_0 and e_p come from a bank that is sampled once by the frozen network; there an x_t is sampled for each step;
- soft tokens stand in the place of the prompt's states behind its last word, which they begin as, and so in every model
  of cross-attention; `attack_steps` of Adam move them, without the decay of 0.1 that is there;
- the attention of all layers is averaged, as large as the latent, scaled to reach from 0 to 1 and cut at `threshold`;
  there that of the layers of 16 by 16 places is;
- erasers have no biases; several targets share them, each with all its prompts and synonyms;
- if `anchored`, the aim begins at the same prompt with the target's anchor, as in ESD.
A GELU between two matrices is no change of a weight: no LoRA, checkpoint or other tool can hold it. The edit keeps the
erasers, and puts them behind their layers while images are made here; every export refuses it in one line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from erase.context import RunContext
from erase.edit import Edit
from erase.errors import BadEdit
from erase.methods._presets import SAMPLED, Presets, presets
from erase.methods.advunlearn import strongest
from erase.methods.esd import esd_target
from erase.methods.fmn import attention_inputs, attention_to, check_cross_attention, words_in
from erase.methods.training.bank import PROMPTED, Drawn
from erase.methods.training.session import Session
from erase.methods.training.trainer import Trained
from erase.models import Condition, Model
from erase.options import Count, NotNegative, Positive, Share, Whole
from erase.sampling.guides import CFG, Guide, GuidedBatch, Hook, PromptBatch, hooked, layer_of
from erase.task import Task

_mse = torch.nn.functional.mse_loss


@dataclass(frozen=True)
class Receler(Trained):
    """Options of Receler, beside those of all training.

    `eta`, `anchored` as in ESD. `rank`: width of the erasers; more can erase more. `locality`: more keeps erasers still
    where the concept is not, `threshold`: from which share of the largest attention on it is. `attack_steps`,
    `attack_rate`, `soft`: more, larger steps over more soft tokens attack harder.
    """

    # The official code's, for everything.
    presets: ClassVar[Presets] = presets(
        {**SAMPLED, "steps": 500, "learning_rate": 3e-4, "batch": 1, "eta": 1.0, "rank": 128, "locality": 0.1}
        | {"threshold": 0.1, "attack_steps": 50, "attack_rate": 0.1, "soft": 16}
    )

    learning_rate: float = 3e-4
    eta: NotNegative = 1.0
    anchored: bool = False
    rank: Count = 128
    locality: NotNegative = 0.1
    threshold: Share = 0.1
    attack_steps: Whole = 50
    attack_rate: Positive = 0.1
    soft: Count = 16

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        session = Session.start(self, model, task, work=work)
        network = session.denoiser.network
        check_cross_attention(self, session)
        bank = session.bank(session.plan((text, (anchor,) if self.anchored else ()) for text, anchor in session.asked))
        erasers = Erasers.on(network, rank=self.rank, seed=self.seed, device=session.denoiser.machine.device)
        prompts = {text: self._prompt(session, task, text) for text, _ in session.asked}

        def loss(step: int, generator: torch.Generator) -> Tensor:
            drawn = bank.draw(self.batch, generator)
            asked = [prompts[text] for text in drawn.prompts]
            found = self._attack(session, drawn, asked)
            with attention_inputs(network) as seen:
                predicted = session.denoiser.predict(drawn.inputs, drawn.times, found)
            chosen = torch.stack([one.words for one in asked])
            attention = [attention_to(*one, chosen=chosen).detach() for one in seen.values()]
            mask = mask_of(attention, drawn.inputs.shape[-2:], threshold=self.threshold)
            erased = _mse(predicted, esd_target(drawn.predictions, eta=self.eta))
            return erased + self.locality * locality_loss(list(erasers.added.values()), mask).to(erased)

        with erasers.attached():
            session.train(erasers.parameters, loss)
        session.check_changed(erasers.up.values())
        component = session.denoiser.component
        modules = {f"{component}.{name}": value.detach().cpu() for name, value in erasers.parameters.items()}
        return session.edit(guidance=True, modules=modules)

    def guide(self, model: Model, task: Task, *, strength: float, modules: Mapping[str, Tensor]) -> Guide:
        """What puts an edit's erasers behind their layers; raises BadEdit where they do not fit the model's."""
        names = {name.rpartition(".")[0] for name in modules}
        for name in sorted(names):
            down, up = (modules.get(f"{name}.{side}") for side in ("down", "up"))
            part, _, layer = name.partition(".")
            weights, key = model.weights(part) if part == model.backbone else None, f"{layer}.to_out.0.weight"
            width = weights.shape(key)[0] if weights is not None and weights.has(key) else None
            if down is None or up is None or down.dim() != 2 or down.shape[1] != width or down.mT.shape != up.shape:
                raise BadEdit(f"the edit's eraser behind {name} does not fit this model; re-create the edit.")
        return ErasersOn(modules, tuple(sorted(names)), strength)

    def _prompt(self, session: Session, task: Task, text: str) -> Prompt:
        encoding, found = words_in(session, task, text)
        return Prompt(encoding.conditions()[0], torch.tensor(found), int(encoding.parts[0].lengths[0]) - 1)

    def _attack(self, session: Session, drawn: Drawn, asked: Sequence[Prompt]) -> Condition:
        """The prompts with the soft tokens that bring the concept back best."""
        given = Condition.stack([one.given for one in asked])
        behind = torch.stack([one.behind(self.soft) for one in asked])[..., None].expand(-1, -1, given.states.shape[-1])

        def with_soft(tokens: Tensor) -> Condition:
            return replace(given, states=given.states.scatter(1, behind, tokens.to(given.states)))

        def far(tokens: Tensor) -> Tensor:
            predicted = session.denoiser.predict(drawn.inputs, drawn.times, with_soft(tokens))
            return _mse(predicted, drawn.predictions[PROMPTED])

        start = given.states.gather(1, behind)
        whole = session.denoiser.machine.summed
        return with_soft(strongest(far, start, steps=self.attack_steps, rate=self.attack_rate, whole=whole))


@dataclass(frozen=True)
class Prompt:
    """A prompt's condition, which of its tokens are the concept's words [tokens], and how many stand before its end."""

    given: Condition
    words: Tensor
    length: int

    def behind(self, count: int) -> Tensor:
        """The places of so many tokens behind the last word, or the last ones where fewer are left."""
        first = min(self.length, len(self.words) - min(count, len(self.words) - 1))
        return torch.arange(first, first + count).clamp(max=len(self.words) - 1)


@dataclass
class Erasers:
    """The erasers of a network's cross-attention layers, by name, and what each has added last."""

    layers: Mapping[str, nn.Module]
    down: Mapping[str, Tensor]
    up: Mapping[str, Tensor]
    added: dict[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def on(network: nn.Module, *, rank: int, seed: int, device: torch.device) -> Erasers:
        """Erasers that change nothing yet: `down` at random, uniform of variance 1 / (3 width), `up` at zero."""
        generator = torch.Generator().manual_seed(seed)
        layers: dict[str, Any] = {name: layer for name, layer in network.named_modules() if name.endswith(".attn2")}
        widths = {name: int(layer.to_out[0].weight.shape[0]) for name, layer in layers.items()}
        down = {
            name: ((torch.rand(rank, width, generator=generator) * 2 - 1) / math.sqrt(width)).to(device)
            for name, width in widths.items()
        }
        up = {name: torch.zeros(width, rank, device=device) for name, width in widths.items()}
        for value in (*down.values(), *up.values()):
            value.requires_grad_(True)
        return Erasers(layers, down, up)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """All that is trained, by name."""
        sides = (("down", self.down), ("up", self.up))
        return {f"{name}.{side}": values[name] for name in self.layers for side, values in sides}

    def attached(self) -> AbstractContextManager[None]:
        """The network with the erasers, until the block ends."""
        return hooked((layer, self._hook(name)) for name, layer in self.layers.items())

    def _hook(self, name: str) -> Hook:
        def add(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            self.added[name] = erased_by(output, down=self.down[name], up=self.up[name])
            return output + self.added[name]

        return add


@dataclass(frozen=True)
class ErasersOn:
    """An edit's erasers, which act on whatever a pipeline draws."""

    modules: Mapping[str, Tensor]
    names: tuple[str, ...]
    strength: float

    def attached(self, pipe: Any) -> AbstractContextManager[None]:
        """The pipeline with the erasers, until the block ends."""
        return hooked((layer_of(pipe, name), self._hook(name)) for name in self.names)

    def _hook(self, name: str) -> Hook:
        def add(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            down, up = (self.modules[f"{name}.{side}"].to(output) for side in ("down", "up"))
            return output + self.strength * erased_by(output, down=down, up=up)

        return add

    def begin(self, pipe: Any, batch: PromptBatch) -> GuidedBatch:
        return CFG(batch)


def erased_by(output: Tensor, *, down: Tensor, up: Tensor) -> Tensor:
    """What an eraser adds to a layer's output [batch, places, width]; `down` is [rank, width], `up` [width, rank]."""
    inner = nn.functional.gelu(nn.functional.linear(output, down))
    return nn.functional.linear(inner, up)


def mask_of(attention: Sequence[Tensor], size: Sequence[int], *, threshold: float) -> Tensor:
    """The places of latents where layers attend to the concept, [batch, 1, height, width] of 0 and 1.

    `attention` [batch, heads, places, tokens] of each layer, zero elsewhere than at the concept's tokens.
    """
    total = torch.zeros(1)
    for one in attention:
        flat = one.sum(3).mean(1)
        high, wide = sides(flat.shape[1], size)
        total = total.to(flat) + nn.functional.interpolate(
            flat.view(len(flat), 1, high, wide), tuple(size), mode="bilinear"
        )
    low, most = (pick(total, dim=(2, 3), keepdim=True) for pick in (torch.amin, torch.amax))
    scaled = (total - low) / (most - low).clamp(min=torch.finfo(total.dtype).tiny)
    return (scaled >= threshold).to(total)


def locality_loss(added: Sequence[Tensor], mask: Tensor) -> Tensor:
    """The mean over layers of the mean square of what erasers add [batch, places, width] outside the mask."""
    losses = []
    for one in added:
        high, wide = sides(one.shape[1], mask.shape[-2:])
        outside = 1 - nn.functional.interpolate(mask, (high, wide), mode="area").flatten(1)
        losses.append((one * outside[..., None].to(one)).square().mean())
    return torch.stack(losses).mean()


def sides(count: int, size: Sequence[int]) -> tuple[int, int]:
    """Height and width of so many places, in the proportion of a latent's."""
    high = max(1, round(math.sqrt(count * size[0] / size[1])))
    return high, count // high
