"""A tokenizer with its text encoder, both loaded when they are first used."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count, takewhile
from types import MappingProxyType
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from erase.config.declared import names_minor
from erase.errors import BadOption, BadWeights
from erase.models.encoding import TokenSequence
from erase.models.storage.weights import Tensors

_AT_ONCE = 64 * 77  # tokens
_LARGE = 4  # so many fewer for encoders whose penultimate states are read, for those are the large ones
_WHOLE = re.compile(r"^▁|</w>$")  # a piece that is a word's beginning for T5, or its end for CLIP
_LAYER = re.compile(r"(text_model\.)?encoder\.layers\.\d+")  # of a CLIP text encoder
Kind = Literal["CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"]
_POOLED: Mapping[Kind, str] = MappingProxyType(
    {"CLIPTextModel": "pooler_output", "CLIPTextModelWithProjection": "text_embeds"}
)


@dataclass(frozen=True)
class Text:
    """A row of a family's table of text encoders: in which folders it lies and of which class it is.

    `states`: which of its token states the family reads. `length`: tokens it is given, where that is not the
    tokenizer's own. `whole`: a prompt that does not fit is refused; else its beginning is read. `inversions`: the
    family's pipeline writes out textual inversions of several vectors. `optional`: a model may come without it, and
    reads zeros in place of its states. `skip`: layers of CLIP that are left out at its end.
    """

    encoder: str
    tokenizer: str
    kind: Kind
    states: Literal["last", "penultimate"] = "last"
    length: int | None = None
    whole: bool = True
    inversions: bool = True
    optional: bool = False
    skip: int = 0

    @property
    def causal(self) -> bool:
        return self.kind != "T5EncoderModel"


def plain_words(tokenizer: Any) -> dict[str, int]:
    """Words of plain letters that a tokenizer has as one piece, with their ids; none that names a minor."""
    pieces = tokenizer.get_vocab().items()
    whole = {piece.removesuffix("</w>").removeprefix("▁"): number for piece, number in pieces if _WHOLE.search(piece)}
    return {word: one for word, one in whole.items() if word.isascii() and word.isalpha() and not names_minor(word)}


class Texts(Protocol):
    """Where tokenizers and text encoders come from: a model's files, or a loaded pipeline."""

    def tokenizer(self, text: Text) -> Any:
        """The tokenizer that belongs to a text encoder; raises BadModel."""

    def text_encoder(self, text: Text) -> Any:
        """The text encoder, ready to run; raises BadModel, BadWeights."""


class TextEncoder:
    """Token ids and states of prompts by one text encoder of a model."""

    padding = True  # whether states behind a prompt's own tokens are computed

    def __init__(self, text: Text, texts: Texts) -> None:
        self.text, self._texts = text, texts

    def reading(self, tokens: int) -> TextEncoder:
        """The encoder that reads so many tokens where it may, as T5 may; itself for 0, and where it may not."""
        if self.text.causal or not tokens:
            return self
        other = copy.copy(self)
        other.text = replace(self.text, length=tokens)
        return other

    def unpadded(self) -> TextEncoder:
        """The encoder, by the same network, that computes a prompt's own tokens alone and gives NaN behind them.

        Itself where a state depends on what comes behind it, as T5's do, or the pooled one is read there.
        """
        if not self.text.causal or self._tokenizer.pad_token_id > self._tokenizer.eos_token_id:
            return self
        _ = self._encoder  # loaded before the copy, which shares it
        other = copy.copy(self)
        other.padding = False
        return other

    @property
    def max_tokens(self) -> int:
        return self.text.length or int(self._tokenizer.model_max_length)

    def count(self, prompt: str) -> int:
        """Tokens of a prompt, those added in front and behind included, before anything is cut off."""
        return len(self._tokenizer(self._written_out(prompt), verbose=False)["input_ids"])

    def is_cut(self, prompt: str) -> bool:
        """Whether a prompt has more tokens than the encoder reads."""
        return self.count(prompt) > self.max_tokens

    def knows(self, word: str) -> bool:
        """Whether a word has a token of its own, beside those that are added and those for unknown signs."""
        return not set(self._tokenizer(word, verbose=False)["input_ids"]) <= set(self._tokenizer.all_special_ids)

    def run(self, prompts: Sequence[str]) -> tuple[TokenSequence, Tensor]:
        """The prompts' tokens with their states, and the pooled states, of no width where the encoder has none.

        What is longer than the encoder reads is cut, as the families' pipelines cut it.
        """
        return self.run_ids(*self.tokens(prompts))

    def tokens(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The prompts' tokens, filled up to the most that the encoder reads, and how many are their own."""
        texts = [self._written_out(prompt) for prompt in prompts]
        tokens = self._tokenizer(
            texts, padding="max_length", max_length=self.max_tokens, truncation=True, return_tensors="pt"
        )
        return tokens["input_ids"], tokens["attention_mask"].sum(1)

    def run_ids(self, ids: Tensor, lengths: Tensor) -> tuple[TokenSequence, Tensor]:
        """The states of tokens, so many of each row its own."""
        causal = self.text.causal
        at_once = _AT_ONCE // (1 if self.text.states == "last" else _LARGE)
        if self.padding or not len(ids):
            parts = [self._states(part) for part in torch.split(ids, max(1, at_once // self.max_tokens))]
            states, pooled = (torch.cat(found) for found in zip(*parts, strict=True))
            return TokenSequence(states, ids, lengths, starts=int(causal), causal=causal), pooled
        found, order = [], []
        for length in sorted(set(lengths.tolist())):
            for rows in torch.split((lengths == length).nonzero()[:, 0], max(1, at_once // length)):
                states, pooled = self._states(ids[rows, :length])
                found.append((nn.functional.pad(states, (0, 0, 0, ids.shape[1] - length), value=torch.nan), pooled))
                order.append(rows)
        back = torch.cat(order).argsort()
        states, pooled = (torch.cat(each)[back] for each in zip(*found, strict=True))
        return TokenSequence(states, ids, lengths, starts=int(causal), causal=causal), pooled

    def _written_out(self, prompt: str) -> str:
        """The prompt with all the tokens of each textual inversion that has several vectors.

        As diffusers' `TextualInversionLoaderMixin.maybe_convert_prompt` does it, which the pipelines call.
        """
        if not self._inversions:
            return prompt
        for token in dict.fromkeys(self._tokenizer.tokenize(prompt)):
            prompt = prompt.replace(token, self._inversions.get(token, token))
        return prompt

    @cached_property
    def _inversions(self) -> dict[str, str]:
        """What stands for each textual inversion of several vectors: its token, then `token_1`, `token_2` and so on."""
        added = self._tokenizer.added_tokens_encoder if self.text.inversions else {}
        several = {}
        for token in (token for token in added if f"{token}_1" in added):
            further = takewhile(added.__contains__, (f"{token}_{number}" for number in count(1)))
            several[token] = " ".join([token, *further])
        return several

    @torch.no_grad()
    def _states(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token states and pooled states in float32, on the CPU."""
        states, pooled = self.read(ids)
        return states.float().cpu(), pooled.float().cpu()

    def read(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token states and pooled states as the network gives them, with its gradient where one is kept."""
        back = self.text.skip + (self.text.states == "penultimate")  # how many layers before the end are read
        with _reading_before(self._encoder, back) as seen:
            output = self._encoder(ids.to(self._encoder.device))
        states = seen[-1] if back and self.text.causal else output.last_hidden_state
        if back and self.text.states == "last" and self.text.causal:
            states = self._encoder.get_submodule(_norm_of(self._encoder))(states)
        pooled = output[_POOLED[self.text.kind]] if self.text.kind in _POOLED else states.new_empty(len(ids), 0)
        return states, pooled

    @property
    def network(self) -> Any:
        """The text encoder itself, loaded where it is not yet."""
        return self._encoder

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    def anew(self) -> TextEncoder:
        """The same text encoder, by a network of its own that is loaded when it is first used."""
        other = copy.copy(self)
        other.let_go()
        return other

    def let_go(self) -> None:
        """Frees the encoder's memory; it is loaded again when it is next used."""
        self.__dict__.pop("_encoder", None)

    @cached_property
    def _tokenizer(self) -> Any:
        return self._texts.tokenizer(self.text)

    @cached_property
    def _encoder(self) -> Any:
        return self._texts.text_encoder(self.text)


def unpadded(encoders: Sequence[TextEncoder], prompts: Sequence[str]) -> list[TextEncoder]:
    """The encoders without padding; as they are where those side by side have their own tokens in different places."""
    causal = [one for one in encoders if one.text.causal]
    alike = len({tuple(one.tokens(prompts)[1].tolist()) for one in causal}) == 1
    return [one.unpadded() for one in encoders] if alike else list(encoders)


class Absent(TextEncoder):
    """In place of a text encoder that a model comes without: zeros of a width, and no word in any prompt."""

    def __init__(self, text: Text, width: int) -> None:
        self.text, self._width = text, width

    @property
    def max_tokens(self) -> int:
        return self.text.length or 0

    def count(self, prompt: str) -> int:
        return 0

    def knows(self, word: str) -> bool:
        return False

    def tokens(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(prompts), self.max_tokens, dtype=torch.long), torch.zeros(len(prompts), dtype=torch.long)

    def run_ids(self, ids: Tensor, lengths: Tensor) -> tuple[TokenSequence, Tensor]:
        states = torch.zeros(*ids.shape, self._width)
        return TokenSequence(states, ids, lengths, starts=0, causal=False), torch.zeros(len(ids), 0)


@contextlib.contextmanager
def _reading_before(encoder: Any, back: int) -> Iterator[list[Tensor]]:
    """What the last layer but so many reads, in a list, until the block ends; to ask for all layers' states keeps all.

    Raises BadOption if there are not so many layers.
    """
    seen: list[Tensor] = []
    layers = [module for name, module in encoder.named_modules() if _LAYER.fullmatch(name)]
    if layers and back > len(layers):
        raise BadOption(f"clip_skip leaves out more than the {len(layers)} layers of the text encoder; give fewer.")
    read = layers[-back:][:1] if back else []
    hooks = [one.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for one in read]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _norm_of(encoder: Any) -> str:
    """The name of the norm behind CLIP's last layer."""
    names: list[str] = [name for name, _ in encoder.named_modules()]
    return next(name for name in names if name.endswith("final_layer_norm"))


def build_encoder(text: Text, config: Any, weights: Tensors, *, where: str) -> Any:
    """A text encoder in float32 from its settings and tensors, each read when its turn comes; raises BadWeights."""
    import transformers

    try:
        with torch.device("meta"):  # takes no memory until its tensors are put in
            encoder = getattr(transformers, text.kind)(config)
        spelled: dict[str, list[str]] = {}
        for name in encoder.state_dict():
            spelled.setdefault(_canonical(name), []).append(name)
        values: dict[str, Tensor] = {}
        for key, tensor in weights.tensors(dtype=torch.float32):  # each is checked to be whole and finite
            values |= dict.fromkeys(spelled.pop(_canonical(key), ()), tensor)
        encoder.load_state_dict(values, strict=False, assign=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise BadWeights(f"{where} cannot be loaded: {first_line(error)}") from error
    if spelled:
        raise BadWeights(f"{where} lacks the tensor {min(spelled)}; download the model again.")
    for name, buffer in encoder.named_buffers():
        if buffer.is_meta:  # the positions, which are counted and not stored
            module, _, last = name.rpartition(".")
            encoder.get_submodule(module).register_buffer(last, torch.arange(buffer.numel())[None], persistent=False)
    return encoder.requires_grad_(True).eval()


def _canonical(key: str) -> str:
    """A tensor's name, whichever way it is spelled: some files and versions put a prefix in front, T5 has two names."""
    return "shared.weight" if key == "encoder.embed_tokens.weight" else key.removeprefix("text_model.")


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
