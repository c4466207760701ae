"""The edited model under attack, the base beside it, and the judge of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor

from erase.config.prompts import Row
from erase.context import Report, in_silence
from erase.edit import Edit
from erase.errors import BadModel
from erase.evaluate.detect import DetectorRunner, Look, look_at
from erase.evaluate.detections import ask
from erase.evaluate.images import target_of
from erase.evaluate.protocol import Case
from erase.files import content_hash, write_atomically
from erase.methods.closed_form.states import put
from erase.methods.training.denoiser import Denoiser
from erase.models import Condition, Model, PromptReader, check_reader, conditions_of, latents_of
from erase.sampling.attention import device_here
from erase.sampling.draw import sample_batch
from erase.sampling.generate import to_image
from erase.sampling.guides import Guide, guide_of
from erase.sampling.memory import plan_of
from erase.sampling.pipelined import batched
from erase.sampling.sampler import Sampler
from erase.task import Task


@dataclass
class Side:
    """One model, loaded: its pipeline with the edit's weights in it, and what acts while it samples."""

    model: Model
    pipe: Any
    guide: Guide
    sampler: Sampler
    edit: Edit | None = None

    @staticmethod
    def load(model: Model, edit: Edit | None, sampler: Sampler) -> Side:
        """A model under an edit; raises BadModel, BadWeights, ModelMismatch."""
        pipe = model.pipeline().to(model.device or device_here())
        if edit is not None and not edit.guidance:
            edit.ungated.apply(pipe)
        guide = guide_of(edit, model, max_sequence_length=sampler.max_sequence_length)
        return Side(model, pipe, guide, sampler, edit)

    @cached_property
    def denoiser(self) -> Denoiser:
        """The network, to be asked and gone down."""
        return Denoiser.from_pipe(self.model, self.pipe)

    @cached_property
    def reader(self) -> PromptReader:
        """The text encoders, edits of them included, as images are sampled by them; raises BadModel for T5."""
        check_reader(self.model, "this attack")
        encoding = self.sampler.encoding
        return PromptReader.of(self.pipe, **{name: encoding[name] for name in ("max_sequence_length", "clip_skip")})

    @property
    def tokenizer(self) -> Any:
        """The first text encoder's."""
        return getattr(self.pipe, self.model.texts[0].tokenizer)

    @property
    def at_once(self) -> int:
        """Images computed together."""
        return plan_of(self.model, self.sampler, str(self.pipe.device)).batch

    @property
    def image_cost(self) -> int:
        """Evaluations that one image takes."""
        return self.sampler.evaluations

    def conditions(self, prompts: Sequence[str]) -> dict[str | None, Condition]:
        """Each prompt's condition, and under None that of no prompt."""
        return conditions_of(self.pipe, list(dict.fromkeys(prompts)), **self.sampler.encoding)

    def draw(self, rows: Sequence[Row], given: Mapping[str, Condition] | None = None) -> list[Image.Image]:
        """An image a row; `given` are conditions that stand in for those of some prompts."""
        return [to_image(pixels) for batch in self._drawn(rows, given, latent=False) for pixels in batch]

    def latents(self, rows: Sequence[Row]) -> Tensor:
        """The rows' clean latents, as the network knows them, [rows, ...]."""
        (channels, height, width), sides = self.denoiser.shape, self.sampler.sides
        if sides:
            height, width = (sides[name] // self.pipe.vae_scale_factor for name in ("height", "width"))
        return latents_of(torch.cat(list(self._drawn(rows, None, latent=True))).cpu(), (channels, height, width))

    def _drawn(self, rows: Sequence[Row], given: Mapping[str, Condition] | None, *, latent: bool) -> Any:
        given = given or {}
        conditions = self.conditions([row.prompt for row in rows if row.prompt not in given]) | dict(given)
        with self.guide.attached(self.pipe):
            for batch in batched(rows, self.at_once):
                yield sample_batch(
                    self.pipe,
                    batch,
                    conditions=conditions,
                    sampler=self.sampler,
                    guide=self.guide,
                    output="latent" if latent else "pt",
                )

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """The images of clean latents."""
        vae = self.pipe.vae
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        with torch.inference_mode():
            scaled = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor + shift
            pixels = [vae.decode(part).sample for part in scaled.split(self.at_once)]
        return [to_image(one) for one in (torch.cat(pixels).float() / 2 + 0.5).clamp(0, 1)]


@dataclass
class Victim:
    """What an attack works against.

    `worked`: texts that brought the target back for earlier prompts of the search. `folder` keeps what is learned once
    for all prompts. `seed` decides all that the attack draws at random. `cases`: all that are attacked, of any search.
    """

    base: Side
    edited: Side
    task: Task
    runner: DetectorRunner
    folder: Path
    seed: int = 0
    report: Report = in_silence
    worked: list[str] = field(default_factory=list)
    cases: Sequence[Case] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """All words of the targets."""
        return tuple(word for target in self.task.targets for word in target.words)

    def looks(self, cases: Sequence[Case], pictures: Sequence[Image.Image]) -> list[Look]:
        """What the judge sees of each case's target in its picture; raises ScoreFailed."""
        watchers = [one for one in self.runner.watchers if "erased" in one.roles]
        found = [ask(one.detector, list(pictures), name=one.form.name) for one in watchers]
        return [
            look_at(
                case, self.task, [(one.form.policy, part[number]) for one, part in zip(watchers, found, strict=True)]
            )
            for number, case in enumerate(cases)
        ]

    def seen(self, cases: Sequence[Case], pictures: Sequence[Image.Image]) -> list[bool]:
        return [bool(one.seen) for one in self.looks(cases, pictures)]

    def generator(self, *of: object) -> torch.Generator:
        """Random numbers that depend on the attack's seed and on what they are for."""
        return torch.Generator().manual_seed(int(content_hash([self.seed, *map(str, of)])[:15], 16))

    def kept(self, name: str, of: object, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors that are made once, from a file of an earlier run where that was made of the same."""
        models = [self.base.model.content, self.edited.edit.content if self.edited.edit else self.edited.model.content]
        file = self.folder / f"{name}-{content_hash([*models, self.seed, str(of)])[:16]}.safetensors"
        if not file.is_file():
            write_atomically(file, save({key: value.contiguous() for key, value in make().items()}))
        return load_file(file)


def check_edited(attack: object, model: Model, name: str) -> None:
    """Raises BadModel if an attack goes along a gradient that an edited model has not: quantised, or read by T5."""
    if getattr(attack, "words", False):
        check_reader(model, name)
    if getattr(attack, "gradient", False) and (kind := model.weights(model.backbone).quantised()):
        raise BadModel(
            f"{name} goes along a gradient, which a network in {kind} has not; attack it in 16 or 32 bits, or use "
            "random_prefix, ring_a_bell or noise_probe."
        )


def without_target(victim: Victim, case: Case) -> str:
    """A case's prompt with the target's anchor in its place; the anchor alone, or nothing, where it is not named."""
    target, prompt = target_of(case.row, victim.task), case.row.prompt
    word = next((word for word in sorted(target.words, key=len, reverse=True) if word in prompt), None)
    if word is None or not target.anchor:
        return target.anchor
    return put(prompt.replace(word, "{}", 1), target.anchor)
