"""A text encoder that is trained, and soft tokens put in front of a prompt's words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from erase.errors import BadModel
from erase.models import Model

COMPONENT = "text_encoder"
_TRAINED = re.compile(r"(encoder\.layers\.|final_layer_norm\.).*")


@dataclass(frozen=True)
class TextEncoder:
    """A pipeline's text encoder; all but its embeddings can be trained."""

    module: Any

    @staticmethod
    def check(model: Model) -> None:
        """Raises BadModel for a model that has not one text encoder alone."""
        if model.text_components != (COMPONENT,):
            parts = ", ".join(model.text_components)
            raise BadModel(
                f"{model.family} reads prompts by {parts}; expected one text encoder, as Stable Diffusion has."
            )

    @staticmethod
    def of(module: Any) -> TextEncoder:
        """A loaded text encoder, frozen."""
        return TextEncoder(module.requires_grad_(False).eval())

    def parameters(self) -> dict[str, Any]:
        """What is trained, by the names that a model's weights have: every layer and the last norm."""
        named = {name.removeprefix("text_model."): value for name, value in self.module.named_parameters()}
        chosen = {name: value for name, value in named.items() if _TRAINED.fullmatch(name)}
        if not chosen:
            raise BadModel(f"a {type(self.module).__name__} has no layers that could be trained.")
        return {name: value.requires_grad_(True) for name, value in chosen.items()}

    def states(self, ids: Tensor, prefix: Tensor | None = None) -> Tensor:
        """The states of prompts' tokens [prompts, tokens], with soft tokens [prompts, count, width] after the start."""
        ids = ids.to(self.module.device)
        if prefix is None:
            plain: Tensor = self.module(ids).last_hidden_state
            return plain

        def insert(module: Any, inputs: Any, output: Tensor) -> Tensor:
            whole: Tensor = torch.cat([output[:, :1], prefix, output[:, 1:]], 1)
            return whole[:, : ids.shape[1]]

        hook = self.module.get_input_embeddings().register_forward_hook(insert)
        try:
            longer: Tensor = self.module(ids).last_hidden_state
        finally:
            hook.remove()
        return longer

    def words(self, prompts: int, count: int, generator: torch.Generator) -> Tensor:
        """Embeddings of random words of the vocabulary, [prompts, count, width]."""
        table = self.module.get_input_embeddings().weight
        drawn: Tensor = table[torch.randint(len(table), (prompts, count), generator=generator).to(table.device)]
        return drawn.detach()
