"""Which token states of a prompt a closed form edits, what each becomes, and which it keeps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from erase.config.prompts import fill
from erase.methods.closed_form.maps import spaces_of, width_of
from erase.methods.closed_form.ridge import gram
from erase.models import Model, Reads
from erase.models.encoding import TokenSequence
from erase.task import Target

Tokens = Literal["last", "aligned", "all", "whole", "context"]
Positions = tuple[Tensor, Tensor]

_ARTICLE, _ARTICLE_BEFORE = re.compile(r"(a|an|the) \S", re.IGNORECASE), re.compile(r"\b(a|an|the) \{\}", re.IGNORECASE)
AT_ONCE = 64  # prompts encoded at a time


@dataclass(frozen=True)
class Pairs:
    """Old states and the new ones they become, [pairs, width], and the number of each one's prompt, [pairs]."""

    old: Tensor
    new: Tensor
    prompt: Tensor


def paired_states(model: Model, prompts: Sequence[tuple[str, str]], tokens: Tokens) -> dict[Reads, Pairs]:
    """The pairs of token states, and those of pooled states, one a pair of prompts, where the model reads any.

    `last`: the last word token alone. `aligned`: from the last word token to the end, padding included. `all`: from
    the first token in which the two texts differ to the end, padding included; in these three, texts are matched from
    their last words, empty ones from the start. `whole`: every token, each with its counterpart. `context`: the
    tokens that both texts share, each with its counterpart.
    """
    found: dict[Reads, list[Pairs]] = {reads: [] for reads in spaces_of(model)}
    for begin in range(0, len(prompts), AT_ONCE):
        chunk = prompts[begin : begin + AT_ONCE]
        texts = list(dict.fromkeys(text for pair in chunk for text in pair))
        row = {text: number for number, text in enumerate(texts)}
        before, after = ([row[pair[side]] for pair in chunk] for side in (0, 1))
        encoding = model.encode(texts, padding=tokens != "last")
        if tokens == "last" and any(bool((part.last[after] < 0).any()) for part in encoding.parts):
            encoding = model.encode(texts)  # of the empty prompt, padding takes a word's place
        for number, part in product(range(len(chunk)), encoding.parts):
            positions, becomes = match(part, before[number], after[number], tokens=tokens)
            old, new = part.states[before[number], positions], part.states[after[number], becomes]
            found["tokens"].append(Pairs(old, new, torch.full((len(positions),), begin + number)))
        if "pooled" in found and encoding.pooled is not None:
            numbers = torch.arange(begin, begin + len(chunk))
            found["pooled"].append(Pairs(encoding.pooled[before], encoding.pooled[after], numbers))
    return {
        reads: Pairs(*(torch.cat([getattr(part, name) for part in parts]) for name in ("old", "new", "prompt")))
        for reads, parts in found.items()
    }


def prompt_pairs(targets: Sequence[Target]) -> Iterator[tuple[str, str]]:
    """Each target's own prompts with each of its words in them, and what they become: with the anchor, or empty."""
    for target in targets:
        for template in target.prompts or ("{}",):
            for word in target.words:
                asked = put(template, word, article=target.article if word == target.name else "")
                yield asked, put(template, target.anchor) if target.anchor else ""


def put(template: str, word: str, *, article: str = "") -> str:
    """The template with the word in its place and the article that it needs, or the one that is given.

    A word that brings its article with it needs no other.
    """
    if _ARTICLE.match(word):
        template = _ARTICLE_BEFORE.sub("{}", template)
    return fill(template.replace("{}", "{word}"), {"word": word}, articles={word: article})


def fits(model: Model, *prompts: str) -> bool:
    """Whether the text encoder takes all of these prompts whole; phrasings of our own may be too long."""
    return all(model.count_tokens(prompt) <= model.max_tokens for prompt in prompts)


def match(part: TokenSequence, old: int, new: int, *, tokens: Tokens) -> Positions:
    """Positions of the old states that are edited and of the new states they become, [pairs] each."""
    if tokens in ("whole", "context"):
        return counterparts(part, old, new, shared=tokens == "context")
    length = part.ids.shape[1]
    last_old, last_new = max(int(part.last[old]), 0), int(part.last[new])
    first_old = part.first_difference(old, new) if tokens == "all" else last_old
    offset = last_new - last_old if last_new >= 0 else 0  # the empty prompt has no word: its states stay in place
    end = {"last": last_old + 1, "aligned": length - max(offset, 0), "all": length}[tokens]
    positions = torch.arange(first_old, end)
    return positions, (positions + offset).clamp(0, length - 1)


def counterparts(part: TokenSequence, old: int, new: int, *, shared: bool) -> Positions:
    """Positions of all old states, or of those whose tokens both texts share, and of their counterparts."""
    ids = [part.ids[row, : int(part.lengths[row])].tolist() for row in (old, new)]
    aligned = align(*ids, length=part.ids.shape[1])
    becomes = torch.tensor(aligned.becomes)
    positions = torch.arange(len(becomes))
    chosen = torch.tensor(aligned.same) if shared else torch.ones_like(positions, dtype=torch.bool)
    return positions[chosen], becomes[chosen]


def empty_states(model: Model) -> dict[Reads, Tensor]:
    """Every state of the empty prompt, its start token's first, [states, width] each."""
    encoding = model.encode([""])
    return _chosen({"tokens": encoding.states[0], "pooled": encoding.pooled}, model)


def last_states(model: Model, prompts: Sequence[str]) -> dict[Reads, Tensor]:
    """The state of each prompt's last word token, and its pooled state, [prompts, width] each."""
    return _of_each(model, prompts, lambda part: part.states[torch.arange(len(part.last)), part.last.clamp(min=0)])


def own_states(model: Model, prompts: Sequence[str]) -> dict[Reads, Tensor]:
    """The states of each prompt's words, its first end token and its last padding, and its pooled state."""

    def own(part: TokenSequence) -> Tensor:
        chosen = part.mask.clone()
        chosen[:, : part.starts], chosen[:, -1] = False, True
        return part.states[chosen]

    return _of_each(model, prompts, own, padding=True)


def _of_each(
    model: Model, prompts: Sequence[str], pick: Callable[[TokenSequence], Tensor], *, padding: bool = False
) -> dict[Reads, Tensor]:
    """Some token states of each prompt, and its pooled state."""
    tokens, pooled = [torch.empty(0, width_of(model))], [torch.empty(0, width_of(model, "pooled"))]
    for begin in range(0, len(prompts), AT_ONCE):
        encoding = model.encode(prompts[begin : begin + AT_ONCE], padding=padding)
        tokens += map(pick, encoding.parts)
        if encoding.pooled is not None and pooled[0].shape[1]:
            pooled.append(encoding.pooled)
    return _chosen({"tokens": torch.cat(tokens), "pooled": torch.cat(pooled)}, model)


def all_grams(model: Model, prompts: Sequence[str]) -> tuple[dict[Reads, Tensor], int]:
    """The sums of r r^T over every token state, and over pooled ones; and how many token states those are."""
    count = 0
    total = {reads: gram(torch.empty(0, width_of(model, reads))) for reads in spaces_of(model)}
    unique = list(dict.fromkeys(prompts))
    for begin in range(0, len(unique), AT_ONCE):  # the states of thousands of prompts need not fit into memory
        encoding = model.encode(unique[begin : begin + AT_ONCE])
        states = encoding.states.flatten(0, 1)
        for reads, found in _chosen({"tokens": states, "pooled": encoding.pooled}, model).items():
            total[reads] += gram(found)
        count += len(states)
    return total, count


def _chosen(found: Mapping[Reads, Tensor | None], model: Model) -> dict[Reads, Tensor]:
    """Those states that weights of the model read."""
    there = spaces_of(model)
    return {reads: states for reads, states in found.items() if reads in there and states is not None}


@dataclass(frozen=True)
class Alignment:
    """For each position of the old text its counterpart in the new one, and whether both hold the same token."""

    becomes: tuple[int, ...]
    same: tuple[bool, ...]


def align(old: Sequence[int], new: Sequence[int], *, length: int) -> Alignment:
    """The alignment of two texts' token ids, start and end tokens included, and of the padding up to `length`.

    Exchanged words are matched from their last tokens; a word without counterpart becomes what follows it.
    """
    becomes: list[int] = []
    same: list[bool] = []
    for tag, begin, end, new_begin, new_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for position in range(begin, end):
            ahead = new_end - (end - position)
            becomes.append(new_begin if tag == "delete" else max(ahead, new_begin))
            same.append(tag == "equal")
    padding = length - len(old)
    becomes += [min(len(new) + number, length - 1) for number in range(padding)]
    return Alignment(tuple(becomes), (*same, *[True] * padding))
