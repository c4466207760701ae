"""A task's concepts as one text."""

from __future__ import annotations

from erase.models import Model
from erase.task import Task


def concept_text(model: Model, task: Task) -> str:
    """The words of all targets in one line, or their names alone where the model takes no more.

    Raises PromptTooLong where even these are too many.
    """
    whole = ", ".join(concept_words(task))
    text = whole if model.count_tokens(whole) <= model.max_tokens else ", ".join(task.names)
    model.check_prompts([text])
    return text


def concept_words(task: Task) -> list[str]:
    """The words of all targets, each once."""
    return list(dict.fromkeys(word for target in task.targets for word in target.words))
