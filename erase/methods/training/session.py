"""One training from its start to its edit: network, prompts' states, bank, trainer."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from erase.context import RunContext
from erase.edit import Edit, EditInfo, LowRank, describe
from erase.effect import Effect
from erase.errors import TrainingFailed
from erase.files import content_hash
from erase.methods.closed_form.phrasings import Phrasings, Told, tell
from erase.methods.closed_form.states import prompt_pairs
from erase.methods.training.adapters import Adapters
from erase.methods.training.bank import Bank, Plan, Trajectory, sample_bank
from erase.methods.training.denoiser import Denoiser
from erase.methods.training.layers import Layers, chosen_parameters
from erase.methods.training.trainer import Loss, Trained, Trainer, draws
from erase.models import Condition, Model, PromptReader
from erase.models.storage.weights import content_digest
from erase.task import Task

_Item = TypeVar("_Item")
_log = logging.getLogger(__name__)
CHECKED = 4  # tuples by which a training is found to have destroyed its network, or to have changed nothing


@dataclass
class Session:
    """What a trained method works with; the model is read once and one network is in memory."""

    options: Trained
    model: Model
    task: Task
    work: RunContext
    info: EditInfo
    denoiser: Denoiser
    started: float = field(default_factory=time.monotonic)
    _sampled: Bank | None = None
    _frozen: tuple[Tensor, Tensor] | None = None
    _given: dict[str, Condition] = field(default_factory=dict)
    _ids: dict[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def start(
        options: Trained, model: Model, task: Task, *, work: RunContext | None, text_encoder: bool = False
    ) -> Session:
        """A session; what the model or the task has against it is raised before the network is loaded."""
        info = describe(options, model, task)
        model.check_prompts([text for pair in prompt_pairs(task.targets) for text in pair])
        settings = {"precision": options.precision, "offload": options.offload}
        denoiser = Denoiser.of(model, text_encoder=text_encoder, size=options.size, **settings)  # type: ignore[arg-type]
        if options.gradient_checkpointing or options.offload:
            denoiser.network.enable_gradient_checkpointing()
        return Session(options, model, task, work or RunContext(), info, denoiser)

    def given(self, texts: Sequence[str]) -> Condition:
        """The texts' conditions stacked along a new batch dimension; each distinct text is encoded once."""
        self._encode(texts)
        return Condition.stack([self._given[text] for text in texts])

    @cached_property
    def reader(self) -> PromptReader:
        """The model's text encoders, on the network's device, as they read soft tokens."""
        length = self.options.max_sequence_length
        return PromptReader.of_model(self.model, self.denoiser.machine.device, max_sequence_length=length)

    def ids(self, texts: Sequence[str]) -> Tensor:
        """The texts' token ids, [texts, tokens]."""
        self._encode(texts)
        return torch.stack([self._ids[text] for text in texts])

    def _encode(self, texts: Sequence[str]) -> None:
        missing = [text for text in dict.fromkeys(texts) if text not in self._given]
        if missing:
            encoding = self.model.encode(missing, max_sequence_length=self.options.max_sequence_length)
            self._given.update(zip(missing, encoding.conditions(), strict=True))
            self._ids.update(zip(missing, encoding.ids, strict=True))

    @cached_property
    def asked(self) -> list[tuple[str, str]]:
        """Every prompt that names a target and what it becomes, in the task's own phrasings or in the shared ones."""
        return asked_pairs(self.model, self.task, phrasings=self.options.phrasings)

    def plan(self, pairs: Iterable[tuple[str, tuple[str, ...]]], *, every_one: bool = True) -> Plan:
        """The plan of a bank: `options.trajectories` for each target, over and over the prompts with further ones.

        If there are more prompts, it is longer where `every_one` is wanted, and else, and of shared phrasings, takes
        some, spread evenly.
        """
        options, listed = self.options, list(pairs)
        count = options.trajectories * len(self.task.targets)
        if every_one and options.phrasings == "own":
            return self._planned([listed[number % len(listed)] for number in range(max(count, len(listed)))])
        return self._planned(spread(listed, count))

    def plan_of(self, texts: Sequence[str], count: int) -> Plan:
        """The plan of a bank of so many trajectories of some prompts, spread evenly over them."""
        return self._planned(spread([(text, ()) for text in texts], count))

    def kept_bank(self, become: Iterable[str], count: int) -> Bank:
        """The bank of so many trajectories of what the task keeps, or of what targets become where it keeps nothing."""
        return self.bank(self.plan_of(self.task.kept or tuple(become), count))

    def _planned(self, chosen: Sequence[tuple[str, tuple[str, ...]]]) -> Plan:
        options = self.options
        trajectories = [
            Trajectory(prompt, options.seed * 1_000_003 + number, also) for number, (prompt, also) in enumerate(chosen)
        ]
        settings = {
            "guidance": 1.0 if self.denoiser.embeds_guidance else options.sampling_guidance,
            "every": options.every,
            "batch": options.sampling_batch,
        }
        return Plan(tuple(trajectories), options.sampling_steps, **settings)  # type: ignore[arg-type]

    def bank(self, plan: Plan, *, kept: bool = True) -> Bank:
        """The bank of a plan, sampled from the network as it is.

        Where `kept`, it is read from where an earlier run left it, or left there.
        """
        self._encode(plan.texts)
        given = {text: self._given[text] for text in plan.texts}
        bank = sample_bank(self.denoiser, plan, given, work=self.work if kept else RunContext(report=self.work.report))
        if self._sampled is None:
            self._sampled = bank
            self._frozen = self._looked(bank)
        return bank

    @torch.no_grad()
    def _looked(self, bank: Bank) -> tuple[Tensor, Tensor]:
        """The network's predictions for the empty prompt and for the targets' [checked, ...], as they are asked now."""
        texts = target_texts(self.task)
        drawn = bank.draw(CHECKED, draws(self.options.seed, -1))
        asked = ([""] * CHECKED, [texts[number % len(texts)] for number in range(CHECKED)])
        empty, targets = (self.denoiser.predict(drawn.inputs, drawn.times, self.given(prompts)) for prompts in asked)
        return empty, targets

    def chosen(self, layers: Layers) -> dict[str, Any]:
        """The network's weights and biases of a choice by name, in float32 and ready to be trained; raises BadModel."""
        network, component = self.denoiser.network, self.denoiser.component
        self.denoiser.keep_on_device(chosen_parameters(network, layers))
        found = chosen_parameters(network, layers)
        for name, parameter in found.items():
            if parameter.dtype != torch.float32:  # the file may know it better than the network's precision does
                parameter.data = self.model.weight(f"{component}.{name}").float().to(parameter.device)
        return found

    @contextlib.contextmanager
    def holding(self, parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Iterator[None]:
        """The network with other values of some parameters, until the block ends."""
        before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        try:
            _fill(parameters, values)
            yield
        finally:
            _fill(parameters, before)

    @torch.no_grad()
    def write(self, edit: Edit) -> None:
        """Changes the network's weights by an edit, in place."""
        keys = {name: name.removeprefix(f"{self.denoiser.component}.") for name in edit.touches}
        self.denoiser.keep_on_device(keys.values())
        values = dict(self.denoiser.network.named_parameters())
        for name, key in keys.items():
            values[key].copy_(edit.changed_tensor(name, self.model.weight(name)))

    def train(
        self,
        parameters: Mapping[str, Tensor],
        loss: Loss,
        *,
        state: Mapping[str, Tensor] | None = None,
        after: Callable[[int], None] | None = None,
        result: Callable[[], Mapping[str, Tensor]] | None = None,
    ) -> tuple[float, ...]:
        """Every step's loss, after the parameters were trained in place; raises TrainingFailed.

        `result` tells the parameters' values in the edit, where they are not those that were trained.
        """
        self._lay_out()
        identity = content_hash([self.info.base, self.info.method, self.info.options, self.info.task])
        machine = self.denoiser.machine
        trainer = Trainer(self.options, parameters, identity, self.work, state=state or {}, machine=machine)
        losses = trainer.run(loss, after=after)
        del trainer  # and its moments
        with self.holding(parameters, result()) if result else contextlib.nullcontext():
            self._check_effect(parameters)
        self.work.tell_cost(self.denoiser.evaluations, time.monotonic() - self.started)
        return losses

    def _lay_out(self) -> None:
        """Puts frozen convolutions' weights into the order in which a processor's kernels read them, value by value."""
        for weight in self.denoiser.network.parameters():
            if weight.dim() == 4 and not weight.requires_grad and not weight.is_meta:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)

    def edit(self, **changes: Any) -> Edit:
        """The edit of some changes, which knows the weights that it changes beyond those of the model's fingerprint."""
        return with_beyond(Edit(self.info, **changes), self.model)

    def deltas(self, values: Mapping[str, Tensor], *, component: str = "") -> dict[str, Tensor]:
        """What each of a component's weights, the network's if none is named, differs by from the model's own.

        Raises TrainingFailed if none does.
        """
        part = component or self.denoiser.component
        named = {f"{part}.{name}": value.detach().cpu() for name, value in values.items()}
        deltas = {name: value - self.model.weight(name).float() for name, value in named.items()}
        self.check_changed(deltas.values())
        return deltas

    def low_rank(self, adapters: Adapters) -> tuple[LowRank, ...]:
        """The trained additions; raises TrainingFailed."""
        made = adapters.low_rank(self.denoiser.component)
        self.check_changed(one.up for one in made)
        return made

    def _check_effect(self, parameters: Mapping[str, Tensor]) -> None:
        """Raises TrainingFailed if the network has lost what it predicts for the empty prompt; warns if it has in part.

        Warns if it predicts for the targets' prompts what it did before.
        """
        if self._sampled is None or self._frozen is None:
            return
        options, (empty, targets) = self.options, self._frozen
        now = self._looked(self._sampled)
        share = float((now[0] - empty).norm() / empty.norm())
        said = f"what it predicts for the empty prompt has moved by {100 * share:.0f} % of itself"
        if not share < 1:
            raise TrainingFailed(
                f"{options.name} has destroyed the model in {options.steps} steps: {said}. Try fewer steps, or a third "
                f"of learning_rate {options.learning_rate}."
            )
        moved = float((now[1] - targets).norm() / (targets - empty).norm())
        if not moved or self._trains_text_alone(parameters):
            return
        effect = Effect("predictions", moved, share)
        self.info = replace(self.info, effect=effect)
        rate = f"learning_rate {options.learning_rate}"
        advice = {
            "harmed": f"Effect at its images, and try fewer steps, or a third of {rate}.",
            "next to nothing": f"Try more steps, or 10 times {rate}{self._beside_presets()}.",
        }
        for one in effect.problems:
            _log.warning(f"{options.name} has {one.said} in {options.steps} steps: {one.text}. {advice[one.kind]}")

    def _trains_text_alone(self, parameters: Mapping[str, Tensor]) -> bool:
        """Whether all that is trained is the text encoder's, so that the network rounds otherwise at the most."""
        encoder = self.denoiser.text_encoder
        own = {id(one) for one in encoder.parameters()} if encoder is not None else set()
        return all(id(one) in own for one in parameters.values())

    def _beside_presets(self) -> str:
        """What the model's own presets are to who has set other options."""
        if self.options.name in self.model.presets:
            return f", or leave these options out: {self.model.path.name} has presets of {self.options.name}"
        return f"; {self.model.path.name} has no presets of {self.options.name} (docs/train.md)"

    def check_changed(self, changes: Iterable[Tensor]) -> None:
        """Raises TrainingFailed if all that was trained is zero."""
        if not any(bool(change.any()) for change in changes):
            raise TrainingFailed(
                f"{self.options.name} has changed no weight in {self.options.steps} steps; "
                "try a larger learning_rate, or other layers."
            )


def spread(items: Sequence[_Item], count: int) -> list[_Item]:
    """So many of the items, evenly chosen; over and over if there are fewer."""
    stride = max(len(items) / count, 1.0)
    return [items[int(number * stride) % len(items)] for number in range(count)]


def with_beyond(edit: Edit, model: Model) -> Edit:
    """The edit with hashes of the weights that it changes beyond those of the model's fingerprint."""
    backbone = f"{model.backbone}."
    outside = [name for name in edit.touches if name.startswith(backbone)]
    outside = [name for name in outside if not model.is_site(name.removeprefix(backbone))]
    beyond = {name: content_digest([(name, model.weight(name))]) for name in outside}
    return replace(edit, info=replace(edit.info, beyond=beyond))


def asked_pairs(model: Model, task: Task, *, phrasings: Phrasings) -> list[tuple[str, str]]:
    """Every prompt that names a target and what it becomes, targets in turn, in the task's or in shared phrasings."""
    if phrasings == "own":
        return target_pairs(task)
    return _in_turn([Told((one,), ()).pairs for one in tell(model, task).asked])


def target_pairs(task: Task) -> list[tuple[str, str]]:
    """Every prompt that names a target and what it becomes, the anchor's or the empty prompt; targets in turn."""
    return _in_turn([list(prompt_pairs([target])) for target in task.targets])


def askers(pairs: Sequence[tuple[str, str]]) -> Mapping[str, list[str]]:
    """Each anchor's prompt with the targets' prompts that become it."""
    found: dict[str, list[str]] = {}
    for target, anchor in pairs:
        found.setdefault(anchor, []).append(target)
    return found


def one_of(texts: Sequence[_Item], generator: torch.Generator) -> _Item:
    return texts[int(torch.randint(len(texts), (1,), generator=generator))]


def target_texts(task: Task) -> list[str]:
    """Every prompt that names a target: its templates with each of its words, targets in turn."""
    return [old for old, _ in target_pairs(task)]


@torch.no_grad()
def _fill(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])


def _in_turn(lists: Sequence[Sequence[_Item]]) -> list[_Item]:
    longest = max(len(one) for one in lists)
    return [one[number] for number in range(longest) for one in lists if number < len(one)]
