"""Whether the prompts that an edit is judged by are others than those it was made on: by text, and by state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from erase.edit import EditInfo
from erase.errors import BadTask
from erase.methods.closed_form.phrasings import asked_for, common_of, own, tell
from erase.models import Model
from erase.task import Task, folded

NEAR = 0.01  # of a state's length: nearer ones are one prompt to the model
AT_ONCE = 64  # prompts


def compared(info: EditInfo, asked: Sequence[str], model: Model | None) -> dict[str, Any]:
    """What a pack holds of the prompts that an edit was made on; nothing if the edit does not say what it erases.

    `used`: those prompts. `by_text`: prompts asked that are among them but for case, accents and signs. `by_state`:
    further ones whose state is as good as that of one of them, which stands beside it, in the text encoder of `state`.
    Without a model the phrasings are those that no model is needed for, and states are not compared.
    """
    used = list(dict.fromkeys(text for task, options in _tasks(info) for text in used_by(task, options, model)))
    if not used:
        return {}
    by_text = shared_by_text(asked, used)
    told: dict[str, Any] = {"used": used, "by_text": by_text, "by_state": [], "state": ""}
    if model is not None:
        others = [prompt for prompt in dict.fromkeys(asked) if prompt not in set(by_text)]
        told |= {"by_state": list(shared_by_state(others, used, model)), "state": model.fingerprint}
    return told


def _tasks(info: EditInfo) -> Iterator[tuple[Task, Mapping[str, Any]]]:
    """The task and options of an edit, or of each part of a sum, that says what it erases."""
    parts = info.parts or ({"task": info.task, "options": info.options},)
    for one in parts:
        try:
            if one["task"].get("targets"):
                yield Task.from_dict(one["task"]), one["options"]
        except (KeyError, TypeError, AttributeError, BadTask):
            continue


def used_by(task: Task, options: Mapping[str, Any], model: Model | None) -> Iterator[str]:
    """The prompts that an edit with such options learns from."""
    phrasings = "own" if options.get("phrasings") == "own" or options.get("preset") == "paper" else "shared"
    if model is not None:
        told = tell(model, task, phrasings="own" if phrasings == "own" else "shared")
        yield from (asked for asked, _ in told.pairs)
        yield from told.kept
        return
    yield from _named(task)
    if phrasings != "own":
        for target in task.targets:
            yield from (asked_for(target, template, word) for template in common_of(target) for word in target.words)


def named_by(info: EditInfo) -> list[str]:
    """The prompts that an edit was made on by its own words, whatever its method learns from beside them."""
    return [text for task, _ in _tasks(info) for text in _named(task)]


def _named(task: Task) -> Iterator[str]:
    for target in task.targets:
        yield from (asked_for(target, template, word) for template, _ in own(target) for word in target.words)
    yield from task.kept


def shared_by_text(asked: Iterable[str], used: Iterable[str]) -> list[str]:
    """Prompts asked that are among those used, but for case, accents, hyphens and punctuation."""
    known = {folded(text) for text in used}
    return [prompt for prompt in dict.fromkeys(asked) if folded(prompt) in known]


def shared_by_state(asked: Sequence[str], used: Sequence[str], model: Model) -> Iterator[tuple[str, str, float]]:
    """Prompts asked whose state is nearer than `NEAR` to that of one used, that one, and how far it is."""
    if not asked:
        return
    here, there = (_states(model, texts) for texts in (asked, used))
    far = torch.cdist(here, there) / here.norm(dim=1, keepdim=True).clamp_min(1e-12)
    nearest = far.min(1)
    for prompt, distance, number in zip(asked, nearest.values.tolist(), nearest.indices.tolist(), strict=True):
        if distance < NEAR:
            yield prompt, used[number], round(distance, 6)


def _states(model: Model, prompts: Sequence[str]) -> Tensor:
    """The state of each prompt's last word, from every text encoder side by side, [prompts, width] float64."""
    found = []
    for begin in range(0, len(prompts), AT_ONCE):
        encoding = model.encode(list(prompts[begin : begin + AT_ONCE]), padding=False)
        rows = torch.arange(len(encoding.states))
        found.append(torch.cat([part.states[rows, part.last.clamp_min(0)] for part in encoding.parts], 1))
    return torch.cat(found).double()
