"""Which token states of a prompt a closed form edits, and what each becomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from erase.models import Encoding, Model
from erase.task import Target, Task

Tokens = Literal["last", "aligned", "all"]


def edited_pairs(model: Model, task: Task, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Old and new states of all targets, [pairs, width] each.

    Every word of a target is put into each of its prompts, and so is its anchor. `last`: the last word token alone.
    `aligned`: from the last word token to the end, padding included. `all`: from the first token in which the two
    texts differ to the end, padding included. Texts are matched from their last words, empty ones from the start.
    """
    prompts = list(prompt_pairs(task.targets))
    texts = list(dict.fromkeys(text for pair in prompts for text in pair))
    encoding, row = model.encode(texts), {text: number for number, text in enumerate(texts)}
    matched = [match(encoding, row[old], row[new], tokens=tokens) for old, new in prompts]
    return torch.cat([old for old, _ in matched]), torch.cat([new for _, new in matched])


def prompt_pairs(targets: Sequence[Target]) -> Iterator[tuple[str, str]]:
    """Each target's prompts with each of its words in them, and what they become: with the anchor, or empty."""
    for target in targets:
        for template in target.prompts or ("{}",):
            for word in target.words:
                yield template.format(word), template.format(target.anchor) if target.anchor else ""


def match(encoding: Encoding, old: int, new: int, *, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """The old states that are edited and the new states they become, [pairs, width] each."""
    length = encoding.ids.shape[1]
    last_old, last_new = (max(int(encoding.lengths[row]) - 2, 0) for row in (old, new))
    first_old = differing(encoding.ids[old], encoding.ids[new]) if tokens == "all" else last_old
    end = last_old + 1 if tokens == "last" else length
    positions = torch.arange(first_old, end)
    offset = last_new - last_old if last_new else 0  # the empty prompt has no word: its states stay in their places
    becomes = (positions + offset).clamp(0, length - 1)
    return encoding.states[old, positions], encoding.states[new, becomes]


def differing(old: Tensor, new: Tensor) -> int:
    """The first position in which two rows of token ids differ; the states before it are the same."""
    return int((old != new).int().argmax())


def all_states(model: Model, prompts: Sequence[str]) -> Tensor:
    """Every state of every prompt, [states, width]; those that several prompts share stand once."""
    if not prompts:
        return torch.empty(0, model.sites()[0].columns)
    states: Tensor = torch.unique(model.encode(list(dict.fromkeys(prompts))).states.flatten(0, 1), dim=0)
    return states
