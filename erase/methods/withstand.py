"""Erasure that withstands learned words, our own: the network is trained against them on the target's own pictures.

A closed form moves the states of the words that it was told. Soft tokens that are learned against it by
`concept_inversion` find other states from which the network still draws the target; only the network can forget that.
This method starts from the closed form (`redirect`, told random contexts) and trains the network on noisy pictures x_n
of the target, of every level, under three kinds of states, as many of each; a and n are the anchor's and the target's
prompt, and eps is what the network would predict if it knew the noise:

- hunted: soft tokens stand in the place of the target's name, or in front of the prompt as words do that attack it. A
  standing pool of them is searched while the network learns: at each step one takes a step of Adam down
  | e_s(x_n, v) - eps |^2, and starts anew after its life;
- mixed: s n + (1 - s) a + g (k - k') with s in 0.2 ... 1.3, g normal of 0.5, and prompts k, k' that stay: what soft
  tokens reach lies between the target's and the anchor's states and beside them;
- plain: n as the closed form moves it, or a.

With the frozen network e and s = 1 for what is hunted, 0 for what is plain, f the latents of what stays,

    L = | e_s(x_n) - (e(x_n, a) + eta s (e(x_n, a) - e(x_n, n))) |^2  +  keep_weight | e_s(x_f, f) - e(x_f, f) |^2

so that the less a state is the anchor's the further it is pushed beyond: sampling multiplies by its guidance what is
left of the target. Pictures that were finished and made noisy anew are what an inversion learns from; trained on the
latents that sampling visits instead, the network did not withstand it. What stays are the keeps' trajectories and the
anchors', under their own prompts, the keeps' also under the empty one, which guidance goes from, and the anchors' also
under their targets'. Of a model of several text encoders soft tokens are the embeddings of all, side by side,
n, a, k and k' are its token states and its pooled state, and the closed form has a map of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from erase.changes import TextMap
from erase.context import RunContext
from erase.edit import Edit
from erase.methods._presets import Presets, presets
from erase.methods.redirect import Redirect
from erase.methods.training.average import Average
from erase.methods.training.bank import EMPTY, PROMPTED, Bank
from erase.methods.training.inversion import place
from erase.methods.training.layers import Layers
from erase.methods.training.pictures import Noised
from erase.methods.training.session import Session, askers, one_of
from erase.methods.training.trainer import Trained, draws
from erase.models import Condition, Model, PromptReader, Reads, check_reader
from erase.options import Count, Decay, NotNegative, Positive, Whole
from erase.task import Task

_mse = torch.nn.functional.mse_loss
_BETAS = (0.9, 0.999)
AT_ONCE = 32  # pictures that the frozen network is asked for together


@dataclass(frozen=True)
class Withstand(Trained):
    """Options of this method, beside those of all training; a `batch` is of the target's latents, a third of each kind.

    `eta`: more pushes what is not the anchor's further beyond it. `pictures`: noisy ones of the targets, of which
    batches are drawn. `keep_weight`: more holds what stays tighter, `keep_batch` latents of it in a step, half of them
    from `keep_trajectories` of the bank. `pool`: soft tokens that are searched side by side for each target, each of
    `tokens`, by steps of `search_rate`, anew after `life` of them. `contexts`: of `redirect`, which it starts from.
    `decay`: of the moving average that becomes the edit, 0 for the last step's weights. `layers` as in ESD.
    """

    # Ours, a slower rate than the embedded model's for models of full size; not tried on one.
    presets: ClassVar[Presets] = presets(
        {"steps": 1000, "learning_rate": 1e-5, "batch": 6, "eta": 1.0, "keep_weight": 8.0, "keep_batch": 6}
        | {"pool": 4, "tokens": 2, "search_rate": 5e-3, "life": 200, "decay": 0.99}
        | {"layers": "all"}
    )

    steps: Count = 500
    learning_rate: float = 2e-4
    batch: Count = 12
    trajectories: Count = 32
    eta: NotNegative = 1.0
    keep_weight: NotNegative = 8.0
    keep_batch: Count = 12
    keep_trajectories: Count = 64
    pictures: Count = 1024
    pool: Count = 4
    tokens: Count = 2
    search_rate: Positive = 0.02
    life: Count = 100
    contexts: Whole = 200
    decay: Decay = 0.99
    layers: Layers = "all"

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        check_reader(model, self.name, instead="redirect or distil")
        session = Session.start(self, model, task, work=work)
        becomes, maps = dict(session.asked), Redirect(contexts=self.contexts)(model, task).text_maps
        lesson = Lesson(
            self,
            session,
            Pictures.of(session, becomes, self.pictures),
            session.kept_bank(becomes.values(), self.keep_trajectories),
            session.bank(session.plan((anchor, ()) for anchor in becomes.values())),
            becomes,
            Moves.by(maps, model),
        )
        parameters = session.chosen(self.layers)
        average = Average.of(parameters, self.decay)
        state = lesson.pool.state | average.state
        session.train(
            parameters, lesson, state=state, after=lambda step: average.follow(), result=lambda: average.values
        )
        deltas = session.deltas(average.values)
        for one in maps:  # what was trained reads moved states, too: (W + D) M
            for site in deltas.keys() & one.sites:
                deltas[site] = deltas[site] + one.delta(deltas[site]).float()
        return session.edit(text_maps=maps, deltas=deltas)


@dataclass(frozen=True)
class Moves:
    """How a closed form moves what a network is given of prompts: a matrix for each kind of states that it changes."""

    matrices: Mapping[Reads, Tensor]

    @staticmethod
    def by(maps: Sequence[TextMap], model: Model) -> Moves:
        """The moves of an edit's maps, in float32."""
        reads = {site.name: site.reads for site in model.sites()}
        return Moves({reads[one.sites[0]]: one.matrix().float() for one in maps})

    def __call__(self, given: Condition) -> Condition:
        states = given.states @ self.matrices["tokens"].T
        return Condition(states, None if given.pooled is None else given.pooled @ self.matrices["pooled"].T)


@dataclass(frozen=True)
class Pictures:
    """Noisy pictures of the targets, the prompt of each, and the frozen network's predictions for the anchor's prompt.

    `beyond`: by how much these differ from its predictions for the target's own.
    """

    noised: Noised
    prompts: Sequence[str]
    anchor: Tensor
    beyond: Tensor

    @staticmethod
    @torch.no_grad()
    def of(session: Session, becomes: Mapping[str, str], count: int) -> Pictures:
        """So many of the bank's finished pictures, each with noise of its own, asked of the network as it is."""
        bank = session.bank(session.plan((target, ()) for target in becomes))
        generator = draws(session.options.seed, -3)
        clean, prompts = bank.draw_clean(count, generator)
        noised = Noised.of(session.denoiser, clean, generator)
        asked = []
        for texts in ([becomes[text] for text in prompts], prompts):
            parts = []
            for start in range(0, count, AT_ONCE):
                part = slice(start, start + AT_ONCE)
                given = session.given(texts[part])
                parts.append(session.denoiser.predict(noised.inputs[part], noised.times[part], given))
                session.work.report("predictions", min(start + AT_ONCE, count), count, unit="pictures")
            asked.append(torch.cat(parts))
        return Pictures(noised, prompts, asked[0], asked[0] - asked[1])


class Pool:
    """Soft tokens [size, count, width] that are searched while a network learns, and Adam's moments of each."""

    def __init__(self, options: Withstand, reader: PromptReader, names: Sequence[Sequence[int]]) -> None:
        self.options, self.reader, self.names = options, reader, names
        generator = draws(options.seed, -2)
        size = options.pool * len(names)
        tokens = torch.stack([self._fresh(number, generator) for number in range(size)])
        taken = torch.zeros(size)
        self.state = {"pool": tokens, "means": tokens * 0, "squares": tokens * 0, "taken": taken}

    def _fresh(self, number: int, generator: torch.Generator) -> Tensor:
        """The target's name, or no word of it in three of ten, filled with random words."""
        more = torch.randint(self.reader.words, (self.options.tokens,), generator=generator).tolist()
        named = float(torch.rand((), generator=generator)) < 0.7
        ids = [*(self.names[number % len(self.names)] if named else ()), *more]
        return self.reader.embeddings(torch.tensor(ids[: self.options.tokens]))

    def descend(self, number: int, slope: Tensor, generator: torch.Generator) -> None:
        """One step of Adam of one of them, which starts anew at its life's end."""
        tokens, means, squares, taken = self.state.values()
        taken[number] += 1
        means[number].lerp_(slope, 1 - _BETAS[0])
        squares[number].lerp_(slope.square(), 1 - _BETAS[1])
        mean, square = (
            moment[number] / (1 - beta ** taken[number]) for moment, beta in zip((means, squares), _BETAS, strict=True)
        )
        tokens[number] -= self.options.search_rate * mean / (square.sqrt() + 1e-8)
        if taken[number] >= self.options.life:
            tokens[number] = self._fresh(number, generator)
            means[number], squares[number], taken[number] = 0, 0, 0


@dataclass
class Lesson:
    """The loss of a step: pictures of the targets, banks of the keeps and of the anchors, the moves, and the pool."""

    options: Withstand
    session: Session
    forget: Pictures
    kept: Bank
    anchored: Bank
    becomes: Mapping[str, str]
    moves: Moves

    def __post_init__(self) -> None:
        session, self.reader = self.session, self.session.reader
        self.tokenizer: Any = self.reader.tokenizer
        targets = session.task.targets
        names = [self.tokenizer(one.name, add_special_tokens=False)["input_ids"] for one in targets]
        self.pool = Pool(self.options, self.reader, names)
        owners = [session.task.named_by(one) or targets[0] for one in self.forget.prompts]
        self.rows = [torch.tensor([row for row, one in enumerate(owners) if one == target]) for target in targets]
        self.stays = session.task.kept or tuple(self.becomes.values())
        self.asking = askers(session.asked)

    def __call__(self, step: int, generator: torch.Generator) -> Tensor:
        options = self.options
        number = int(torch.randint(len(self.pool.state["taken"]), (1,), generator=generator))
        tokens = self.pool.state["pool"][number].clone().requires_grad_(True)
        rows = self._rows(number, generator)
        noised, texts = self.forget.noised, [self.forget.prompts[row] for row in rows.tolist()]
        given, shares = self._given(texts, number, tokens, generator=generator)
        held = self._held(generator)
        predicted = self.session.denoiser.predict(
            torch.cat([noised.inputs[rows], held[0]]),
            torch.cat([noised.times[rows], held[1]]),
            Condition.cat([given, self.moves(self.session.given(held[2]))]),
        )
        known = noised.truth[rows[: self._third]]
        (slope,) = torch.autograd.grad(_mse(predicted[: self._third], known), [tokens], retain_graph=True)
        self.pool.descend(number, self.session.denoiser.machine.summed(slope).cpu(), generator)
        far = options.eta * torch.tensor(shares).reshape(-1, *[1] * (known.dim() - 1))
        aim = self.forget.anchor[rows] + far * self.forget.beyond[rows]
        return _mse(predicted[: len(aim)], aim) + options.keep_weight * _mse(predicted[len(aim) :], held[3])

    @property
    def _third(self) -> int:
        return -(-self.options.batch // 3)

    def _rows(self, number: int, generator: torch.Generator) -> Tensor:
        """Pictures of a batch: those under soft tokens are of the target that these are searched for."""
        own = self.rows[number % len(self.rows)]
        hunted = own[torch.randint(len(own), (self._third,), generator=generator)]
        count = self.options.batch - self._third
        others = torch.randint(len(self.forget.prompts), (count,), generator=generator)
        return torch.cat([hunted, others])

    def _in_front(self, number: int) -> bool:
        """Whether soft tokens stand in front of the prompt, as attacks by words have theirs, and not for the name."""
        return number // len(self.rows) % 2 == 1

    def _given(
        self, texts: Sequence[str], number: int, tokens: Tensor, *, generator: torch.Generator
    ) -> tuple[Condition, list[float]]:
        """The conditions of a batch, and how far each is from its anchor's."""
        hunted, mixed = texts[: self._third], texts[self._third : 2 * self._third]
        words = [word for target in self.session.task.targets for word in target.words]
        places = place(self.tokenizer, hunted, () if self._in_front(number) else words, count=len(tokens))
        found = self.reader.read(places.ids, tokens.expand(len(hunted), -1, -1), places.places)
        given, shares = [self.moves(found)], [1.0] * len(hunted)
        for text in mixed:
            both = [one_of(self.stays, generator) for _ in range(2)]
            shares.append(0.2 + 1.1 * float(torch.rand((), generator=generator)))
            aside = 0.5 * float(torch.randn((), generator=generator))
            four = [self.session.given([one]) for one in (text, self.becomes[text], *both)]
            given.append(Condition.each(partial(_mixed, share=shares[-1], aside=aside), *four))
        plain = [one_of([text, self.becomes[text]], generator) for text in texts[2 * self._third :]]
        if plain:
            given.append(self.moves(self.session.given(plain)))
        return Condition.cat(given), shares + [0.0] * len(plain)

    def _held(self, generator: torch.Generator) -> tuple[Tensor, Tensor, list[str], Tensor]:
        """Latents of what stays, their times, the prompts that are asked for, and what was predicted for them."""
        half = -(-self.options.keep_batch // 2)
        kept, anchored = self.kept.draw(half, generator), self.anchored.draw(half, generator)
        empty = float(torch.rand((), generator=generator)) < 0.25
        asked = ["" if empty else text for text in kept.prompts]
        asked += [one_of([text, *self.asking[text]], generator) for text in anchored.prompts]
        predictions = torch.cat([kept.predictions[EMPTY if empty else PROMPTED], anchored.predictions[PROMPTED]])
        inputs, times = torch.cat([kept.inputs, anchored.inputs]), torch.cat([kept.times, anchored.times])
        return inputs, times, asked, predictions


def _mixed(*states: Tensor, share: float, aside: float) -> Tensor:
    """A share of the way from an anchor's states, the second, to its target's, and aside by how two others differ."""
    old, new, one, other = states
    return new + share * (old - new) + aside * (one - other)
