"""Prompts in which embeddings stand for some tokens, read by all CLIP encoders of a pipeline, with a gradient.

What stands at a place is the encoders' embeddings side by side: of a word, of which all have the same id, or learned
for all of them at once. With E_i the embeddings of encoder i and g_i its part of the gradient of a loss, a word v in
place of u changes the loss by the sum of g_i . (E_i v - E_i u). The family's own rule makes of what the encoders give
the condition that the network reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from erase.errors import BadModel
from erase.models.encoding import Condition, TokenSequence
from erase.models.model import Model
from erase.models.open import family_of_pipe
from erase.models.pipes import encoders_of
from erase.models.text import Absent, TextEncoder

_ATTACKS = "random_prefix, paraphrase, tina, completion or relearn"  # which need no gradient of words


def check_reader(model: Model, name: str, *, instead: str = _ATTACKS) -> None:
    """Raises BadModel, which names what needs it, for a model that reads prompts by T5, or by unlike vocabularies.

    `instead`: what can be used on it.
    """
    if others := [text for text in model.texts if not text.causal]:
        without = f", or load the pipeline without {others[0].encoder}" if others[0].optional else ""
        raise BadModel(
            f"{name} finds words by the gradient of CLIP's text encoders, and {model.family} reads prompts by T5 "
            f"({others[0].encoder}), too; use {instead}{without}."
        )
    if len(model.texts) > 1:
        first, *further = (model.source.tokenizer(text).get_vocab() for text in model.texts)
        if any(one != first for one in further):
            parts = ", ".join(text.tokenizer for text in model.texts)
            raise BadModel(
                f"{name} gives all text encoders the same words, and the vocabularies of {parts} differ; load the "
                f"same textual inversions into all of them, or none, or use {instead}."
            )


@dataclass(frozen=True)
class PromptReader:
    """The text encoders of a model as its family's table has them, frozen; `of` and `of_model` make one."""

    family: type[Model]
    encoders: tuple[TextEncoder, ...]

    @staticmethod
    def of(pipe: Any, *, max_sequence_length: int = 0, clip_skip: int = 0) -> PromptReader:
        """The encoders of a pipeline that `check_reader` lets pass, edits of them included."""
        return PromptReader(family_of_pipe(pipe), tuple(encoders_of(pipe, max_sequence_length, clip_skip)))

    @staticmethod
    def of_model(model: Model, device: torch.device, *, max_sequence_length: int = 0) -> PromptReader:
        """The encoders of a model's files, loaded anew onto a device."""
        length = max_sequence_length or model.max_sequence_length
        found = PromptReader(type(model), tuple(one.reading(length).anew() for one in model.encoders))
        for encoder in found.present:
            encoder.network.to(device)
        return found

    def __post_init__(self) -> None:
        for encoder in self.present:
            encoder.network.requires_grad_(False).eval()

    @property
    def present(self) -> tuple[TextEncoder, ...]:
        """Those that the pipeline has."""
        return tuple(one for one in self.encoders if not isinstance(one, Absent))

    @property
    def tokenizer(self) -> Any:
        """The first encoder's; the others spell words alike and may pad otherwise."""
        return self.present[0].tokenizer

    @property
    def tables(self) -> tuple[Tensor, ...]:
        """Each encoder's embeddings of the vocabulary, [words, width]."""
        return tuple(one.network.get_input_embeddings().weight.detach() for one in self.present)

    @property
    def words(self) -> int:
        """How many words all encoders know, by the same ids from 0 on."""
        return min(map(len, self.tables))

    def embeddings(self, ids: Tensor) -> Tensor:
        """The encoders' embeddings of tokens, side by side, [..., width of all]."""
        return torch.cat([table[ids.to(table.device)].float().cpu() for table in self.tables], -1)

    def read(self, ids: Tensor, tokens: Tensor | None = None, places: Tensor | None = None) -> Condition:
        """What the network is given for prompts' tokens [prompts, tokens], padded as the first encoder pads them.

        `tokens` [prompts, count, width of all] stand at `places` [prompts, count], whatever the ids are there.
        """
        start, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        if places is not None:  # an end token there would be taken for the text's end
            ids = ids.scatter(1, places, start)
        ended = (ids == end).int().cumsum(1) - (ids == end).int() > 0
        widths = [table.shape[1] for table in self.tables]
        split = iter([None] * len(widths) if tokens is None else torch.split(tokens, widths, -1))
        sides: list[TextEncoder] = []
        for encoder in self.encoders:
            if isinstance(encoder, Absent):
                sides.append(encoder)
                continue
            pad = encoder.tokenizer.pad_token_id
            own = ids.masked_fill(ended, end if pad is None else pad)
            sides.append(_Placed(encoder, own, lengths=(~ended).sum(1), tokens=next(split), places=places))
        encoding = self.family.join(sides, [""] * len(ids))
        return Condition(encoding.states, encoding.pooled)


class _Placed(TextEncoder):
    """An encoder that reads given ids, with embeddings in the place of some, all at once and with a gradient."""

    def __init__(
        self, encoder: TextEncoder, ids: Tensor, *, lengths: Tensor, tokens: Tensor | None, places: Tensor | None
    ) -> None:
        self.text, self._whole, self._given = encoder.text, encoder, (ids, lengths)
        self._soft, self._places = tokens, places

    def tokens(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return self._given

    def run_ids(self, ids: Tensor, lengths: Tensor) -> tuple[TokenSequence, Tensor]:
        def put(module: Any, inputs: Any, output: Tensor) -> Tensor:
            if self._soft is None or self._places is None:
                return output
            index = self._places.to(output.device)[..., None].expand(-1, -1, self._soft.shape[-1])
            return output.scatter(1, index, self._soft.to(output))

        hook = self._whole.network.get_input_embeddings().register_forward_hook(put)
        try:
            states, pooled = self._whole.read(ids)
        finally:
            hook.remove()
        return TokenSequence(states.float().cpu(), ids, lengths), pooled.float().cpu()
