"""Loaded pipelines, whatever their family: their conditions, predictions, weights and fingerprint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from erase.models.encoding import Condition, TokenSequence
from erase.models.families.flux import unpacked
from erase.models.identity import identity_keys
from erase.models.open import family_of_pipe
from erase.models.storage.weights import weights_digest
from erase.models.text import Absent, Text, TextEncoder


def conditions_of(
    pipe: Any, prompts: Sequence[str], *, negative: str = "", max_sequence_length: int = 0, clip_skip: int = 0
) -> dict[str | None, Condition]:
    """The condition of each prompt, and under None of what guidance starts from, by the pipeline's own text encoders.

    That is the negative prompt where there is one, else no prompt at all; no layer is skipped for it, as in the
    pipelines. `max_sequence_length`: tokens that T5 is given; 0 for the pipeline's own number. Prompts are encoded one
    by one, so that no neighbour rounds a prompt's states. Raises BadOption.
    """
    family = family_of_pipe(pipe)
    plain, skipping = (encoders_of(pipe, max_sequence_length, skip) for skip in (0, clip_skip))
    start = family.join(plain, [negative]).conditions()[0] if negative else family.unconditional(pipe, plain)
    conditions: dict[str | None, Condition] = {None: start}
    for prompt in prompts:
        conditions[prompt] = family.join(skipping, [prompt]).conditions()[0]
    return conditions


def encoders_of(pipe: Any, max_sequence_length: int, clip_skip: int) -> list[TextEncoder]:
    """A loaded pipeline's text encoders, an edit that was applied to them included."""
    family, encoders = family_of_pipe(pipe), []
    for text in family.texts:
        if text.causal:
            text = replace(text, skip=clip_skip)
        elif max_sequence_length:
            text = replace(text, length=max_sequence_length)
        absent = getattr(pipe, text.encoder) is None
        width = getattr(pipe, family.backbone).config.joint_attention_dim if absent else 0
        encoders.append(Absent(text, width) if absent else TextEncoder(text, _Loaded(pipe)))
    return encoders


def masked_ends(pipe: Any, prompt: str, part: int) -> Tensor:
    """The state at a prompt's end with each of its words' tokens masked in turn, [words' tokens, width].

    Of one part of the family's encoding; masked is a token whose id is 0.
    """
    family, encoders = family_of_pipe(pipe), encoders_of(pipe, 0, 0)
    own = family.join(encoders, [prompt]).parts[part]
    words = max(0, int(own.lengths[0]) - 1 - own.starts)
    sides = [_Masked(one, own.causal, words) for one in encoders]
    return family.join(sides, [prompt]).parts[part].states[:, own.starts + words]


class _Masked(TextEncoder):
    """An encoder that reads a prompt once for each of so many tokens, which it masks if it is of a kind."""

    def __init__(self, encoder: TextEncoder, causal: bool, words: int) -> None:
        self.text, self._whole, self._words = encoder.text, encoder, words
        self._masks = encoder.text.causal == causal

    def tokens(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        ids, lengths = (one[:1].repeat_interleave(self._words, 0) for one in self._whole.tokens(prompts))
        if self._masks:
            rows = torch.arange(self._words)
            ids[rows, rows + int(self.text.causal)] = 0
        return ids, lengths

    def run_ids(self, ids: Tensor, lengths: Tensor) -> tuple[TokenSequence, Tensor]:
        return self._whole.run_ids(ids, lengths)


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


def latents_of(drawn: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Latents of a shape as networks are asked with them, of those that a pipeline gives out: FLUX.1's are tokens."""
    return unpacked(drawn, shape) if drawn.dim() == 3 else drawn


def parameters_of(pipe: Any) -> dict[str, Tensor]:
    """A loaded pipeline's weights that an edit may change, under the names that edits give them."""
    family = family_of_pipe(pipe)
    named = {f"{family.backbone}.{key}": value for key, value in getattr(pipe, family.backbone).named_parameters()}
    for text in (one for one in family.texts if getattr(pipe, one.encoder) is not None):
        values = dict(getattr(pipe, text.encoder).named_parameters())
        named |= {f"{text.encoder}.{name}": values[key] for name, key in identity_keys(values).items()}
    return named


def fingerprint_of(pipe: Any) -> str:
    """A loaded pipeline's fingerprint, equal to that of the model it was loaded from at full precision."""
    return weights_digest(identity_of(pipe))


def identity_of(pipe: Any) -> Iterator[tuple[str, Tensor]]:
    """Names and values that make up a loaded pipeline's identity, sorted by name."""
    family = family_of_pipe(pipe)
    for name, value in sorted(parameters_of(pipe).items()):
        component, _, key = name.partition(".")
        if component != family.backbone or family.is_site(key):
            yield name, value.data
