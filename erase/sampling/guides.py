"""How a method that changes no weight takes part in sampling: what it asks of the network, and what it makes of it."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from erase import registry
from erase.config import documents
from erase.edit import Edit
from erase.errors import BadEdit
from erase.models import Condition, Model
from erase.task import Task

# Predictions for the batch's latents under several conditions of all its rows, computed in one pass.
Ask = Callable[[Sequence[Condition]], Sequence[Tensor]]


Hook = Callable[[Any, tuple[Tensor, ...], Tensor], Tensor]  # of a layer, its inputs and its output: a new output


@dataclass(frozen=True)
class PromptBatch:
    """A batch's prompts, their conditions and what guidance starts from, row by row, and how far to follow them."""

    prompts: tuple[str, ...]
    given: Condition
    empty: Condition
    guidance: float


class GuidedBatch(Protocol):
    """The sampling of one batch."""

    def predict(self, ask: Ask, step: int) -> Tensor:
        """The prediction with which a step is made."""


class Guide(Protocol):
    """What acts on a model's sampling."""

    def attached(self, pipe: Any) -> AbstractContextManager[None]:
        """The pipeline with what the guide adds to it, until the block ends."""

    def begin(self, pipe: Any, batch: PromptBatch) -> GuidedBatch:
        """The sampling of a batch."""


@dataclass(frozen=True)
class CFG:
    """Classifier-free guidance of a batch, from any empty state."""

    batch: PromptBatch

    def predict(self, ask: Ask, step: int) -> Tensor:
        if self.batch.guidance <= 1:
            return ask([self.batch.given])[0]
        empty, prompted = ask([self.batch.empty, self.batch.given])
        return empty + self.batch.guidance * (prompted - empty)


class NoGuide:
    """Sampling as the model does it; base of what adds nothing to the pipeline."""

    def attached(self, pipe: Any) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def begin(self, pipe: Any, batch: PromptBatch) -> GuidedBatch:
        return CFG(batch)


def layer_of(pipe: Any, site: str) -> nn.Module:
    """The layer of a pipeline that a site's weight belongs to."""
    component, _, name = site.removesuffix(".weight").partition(".")
    layer: nn.Module = getattr(pipe, component).get_submodule(name)
    return layer


@contextlib.contextmanager
def hooked(hooks: Iterable[tuple[nn.Module, Hook]]) -> Iterator[None]:
    """Layers whose outputs go through hooks, until the block ends."""
    with contextlib.ExitStack() as stack:
        for layer, hook in hooks:
            stack.callback(layer.register_forward_hook(hook).remove)
        yield


def guide_of(edit: Edit | None, model: Model, *, max_sequence_length: int = 0) -> Guide:
    """What an edit does while sampling: nothing if it changes weights for all prompts alike, or at strength 0.

    `max_sequence_length`: tokens that T5 is given there, and so of what a guide reads. Raises UnknownName,
    ModelMismatch, BadEdit.
    """
    if edit is None or not (edit.guidance or edit.gated) or not edit.info.strength:
        return NoGuide()
    model = copy.copy(model)
    model.max_sequence_length = max_sequence_length
    edit.check_base(model.fingerprint)
    if edit.gated:
        edit.check(model)
        return _gated(edit, model)
    method = method_of(edit)
    if not hasattr(method, "guide"):
        raise BadEdit(f"the edit is said to act while sampling, which {edit.info.method} does not; re-create it.")
    more = {"modules": edit.modules} if edit.modules else {}
    guide: Guide = method.guide(model, Task.from_dict(edit.info.task), strength=edit.info.strength, **more)
    return guide


def _gated(edit: Edit, model: Model) -> Guide:
    owners = sorted({gate.method for gate in edit.gates})
    method: Any = registry.load("methods", owners[0])
    if len(owners) > 1 or not hasattr(method, "gated"):
        raise BadEdit(f"the edit has gates of {' and '.join(owners)}, which cannot be opened; generate with its parts.")
    gated: Guide = method.gated(model, edit.gates)
    return gated


def method_of(edit: Edit) -> Any:
    """The method that an edit names, with its options; raises UnknownName, BadEdit if it has other options."""
    method: Any = registry.load("methods", edit.info.method)
    kinds, known = typing.get_type_hints(method), [one.name for one in dataclasses.fields(method)]
    options = {}
    for key, value in edit.info.options.items():
        if key not in known:
            raise BadEdit(documents.wrong_key(key, known, where=f"the edit's options of {edit.info.method}"))
        options[key] = documents.check_value(value, kinds[key], key=f"the edit's option {key}", error=BadEdit)
    return method(**options)
