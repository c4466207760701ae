"""A frozen CLIP text encoder with one layer's output projection open to see and to add to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from erase.errors import BadOption, CannotEdit
from erase.methods.closed_form.states import fits, put
from erase.models import Model
from erase.models.identity import canonical


class EncoderProbe:
    """The text encoder of a model and its layer's `mlp.fc2`; nothing of it is changed or trained."""

    def __init__(self, model: Model, encoder: Any, layer: int) -> None:
        self._model, self._encoder = model, encoder.eval().requires_grad_(False)
        found = [name for name, _ in encoder.named_modules() if name.endswith(f".layers.{layer}.mlp.fc2")]
        self._name, self._module = found[0], encoder.get_submodule(found[0])

    @classmethod
    def of(cls, model: Model, layer: int) -> EncoderProbe:
        """The tower of a model with one CLIP text encoder; `layer` -1 is three quarters of the way up.

        Raises CannotEdit for a model with others, BadOption for a layer that it lacks or its last.
        """
        if [text.kind for text in model.texts] != ["CLIPTextModel"]:
            raise CannotEdit(f"refact edits models with one CLIP text encoder; a {model.family} model has others.")
        encoder = model.source.text_encoder(model.texts[0])
        layers = int(encoder.config.num_hidden_layers)
        chosen = min(layers * 3 // 4, layers - 2) if layer == -1 else layer
        # What the last layer adds at a word's own token reaches no other token.
        if not 0 <= chosen <= layers - 2:
            raise BadOption(f"refact: layer is {layer}; expected -1 or a number from 0 to {layers - 2}.")
        return cls(model, encoder, chosen)

    @property
    def weight_name(self) -> str:
        return canonical(f"{self._name}.weight")

    def inputs(self, prompts: Sequence[str]) -> Tensor:
        """What the layer's projection reads over every token up to each prompt's end, [tokens, inner width] float64."""
        encoding = self._model.encode(list(dict.fromkeys(prompts)), padding=False)
        seen = self._watch(encoding.ids[:, : int(encoding.lengths.max())].clone())[0]
        inside = torch.arange(seen.shape[1]) < encoding.lengths[:, None]
        return seen[inside].double()

    def at(self, prompts: Sequence[str], places: Tensor) -> tuple[Tensor, Tensor]:
        """The projection's inputs and outputs at one token of each prompt, [prompts, ...] each."""
        seen, given = self._watch(self.ids(prompts))
        rows = torch.arange(len(places))
        return seen[rows, places], given[rows, places]

    def pooled(self, prompts: Sequence[str]) -> Tensor:
        """The prompts' pooled states, [prompts, width]."""
        with torch.no_grad():
            return self._run(self.ids(prompts))

    def rest(self, prompts: Sequence[str], places: Tensor) -> Rest:
        """What is left to compute of the prompts' pooled states behind the layer, with room at one token of each."""
        encoding = self._model.encode(prompts, padding=False)
        ids = encoding.ids[:, : int(encoding.lengths.max())].clone()  # what comes behind the end changes nothing
        stack, number = self._name.removesuffix(".mlp.fc2").rsplit(".", 1)
        seen: list[Any] = []
        layer = self._encoder.get_submodule(f"{stack}.{number}")
        handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            with torch.no_grad():
                self._run(ids)
        finally:
            handle.remove()
        states = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
        here = torch.nn.functional.one_hot(places, ids.shape[1]).float()[..., None]
        return Rest(self._encoder, stack, int(number), ids, states, here)

    def fitting(self, templates: Sequence[str], words: Sequence[str]) -> list[str]:
        """The templates that are short enough with each of these words."""
        return [text for text in templates if fits(self._model, *(put(text, word) for word in words))]

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """The prompts' token ids up to the end of the longest, [prompts, tokens]."""
        encoding = self._model.encode(prompts, padding=False)
        return encoding.ids[:, : int(encoding.lengths.max())].clone()

    def last_places(self, prompts: Sequence[str], word: str) -> Tensor:
        """The position of the word's last token in each prompt, [prompts]."""
        ids, lengths = (getattr(self._model.encode([word], padding=False), name)[0] for name in ("ids", "lengths"))
        wanted = ids[1 : int(lengths) - 1].tolist()
        return torch.tensor([_last_end(row.tolist(), wanted) for row in self.ids(prompts)])

    def _run(self, ids: Tensor) -> Tensor:
        pooled: Tensor = self._encoder(ids).pooler_output
        return pooled

    def _watch(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        kept: list[tuple[Tensor, Tensor]] = []

        def see(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
            kept.append((inputs[0], output))

        with torch.no_grad(), self._hooked(see):
            self._run(ids)
        return kept[0]

    @contextmanager
    def _hooked(self, hook: Callable[..., Any]) -> Iterator[None]:
        handle = self._module.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


@dataclass(frozen=True)
class Rest:
    """The layers behind one, with the states [prompts, tokens, width] that come out of it.

    `here` [prompts, tokens, 1] is 1 where something may be added.
    """

    encoder: Any
    stack: str
    number: int
    ids: Tensor
    states: Tensor
    here: Tensor

    def pooled(self, added: Tensor) -> Tensor:
        """The pooled states if `added` [width], or [prompts, width], is added to the layer's output at these places."""
        parent = self.encoder.get_submodule(self.stack.rpartition(".")[0])
        table = self.encoder.get_input_embeddings()
        embeddings = next(one for one in self.encoder.modules() if table in one.children())
        whole, begun = parent.layers, self.states + self.here * (added if added.dim() == 1 else added[:, None])
        handle = embeddings.register_forward_hook(lambda module, inputs, output: begun)
        parent.layers = whole[self.number + 1 :]
        try:
            pooled: Tensor = self.encoder(self.ids).pooler_output
        finally:
            parent.layers = whole
            handle.remove()
        return pooled


def _last_end(ids: list[int], wanted: list[int]) -> int:
    """Where the last occurrence of some tokens ends."""
    starts = range(len(ids) - len(wanted), -1, -1)
    return next(start + len(wanted) - 1 for start in starts if ids[start : start + len(wanted)] == wanted)
