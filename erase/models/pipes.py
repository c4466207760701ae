"""Loaded pipelines, whatever their family: their conditions, predictions, weights and fingerprint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from erase.models.encoding import Condition
from erase.models.model import identity_keys
from erase.models.open import family_of_pipe
from erase.models.storage.weights import weights_digest
from erase.models.text import Text, TextEncoder


def conditions_of(pipe: Any, prompts: Sequence[str]) -> dict[str | None, Condition]:
    """The condition of each prompt, and under None of no prompt at all, by the pipeline's own text encoders.

    One by one, so that no neighbour rounds a prompt's states.
    """
    family, loaded = family_of_pipe(pipe), _Loaded(pipe)
    encoders = [TextEncoder(text, loaded) for text in family.texts]
    conditions: dict[str | None, Condition] = {None: family.unconditional(pipe, encoders)}
    for prompt in prompts:
        conditions[prompt] = family.join(encoders, [prompt]).conditions()[0]
    return conditions


class _Loaded:
    """The tokenizers and text encoders of a loaded pipeline, an edit that was applied to them included."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def tokenizer(self, text: Text) -> Any:
        return getattr(self._pipe, text.tokenizer)

    def text_encoder(self, text: Text) -> Any:
        return getattr(self._pipe, text.encoder)


def predict(pipe: Any, latents: Tensor, time: Tensor, *, condition: Condition) -> Tensor:
    """A loaded pipeline's prediction for latents at a time under a condition, whatever its family."""
    return family_of_pipe(pipe).predict(pipe, latents, time, condition=condition)


def parameters_of(pipe: Any) -> dict[str, Tensor]:
    """A loaded pipeline's weights that an edit may change, under the names that edits give them."""
    family = family_of_pipe(pipe)
    named = {f"{family.backbone}.{key}": value for key, value in getattr(pipe, family.backbone).named_parameters()}
    for text in family.texts:
        values = dict(getattr(pipe, text.encoder).named_parameters())
        named |= {f"{text.encoder}.{name}": values[key] for name, key in identity_keys(values).items()}
    return named


def fingerprint_of(pipe: Any) -> str:
    """A loaded pipeline's fingerprint, equal to that of the model it was loaded from at full precision."""
    return weights_digest(sorted(_identity_of(pipe), key=lambda pair: pair[0]))


def _identity_of(pipe: Any) -> Iterator[tuple[str, Tensor]]:
    family = family_of_pipe(pipe)
    for name, value in parameters_of(pipe).items():
        component, _, key = name.partition(".")
        if component != family.backbone or family.is_site(key):
            yield name, value.data
