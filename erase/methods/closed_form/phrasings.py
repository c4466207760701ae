"""What a task tells every closed form: how each target is asked for and what that becomes, what stays, and a prior."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from erase.methods.closed_form.contextual_templates import Phrasing, beside, evenly
from erase.methods.closed_form.prior import Prior, load_prior
from erase.methods.closed_form.states import fits, put
from erase.models import Model
from erase.models.text import plain_words
from erase.task import Keep, Kind, Target, Task

Phrasings = Literal["shared", "own"]
_Item = TypeVar("_Item")

# Phrasings around a concept that the official code of UCE adds when asked to expand.
_OF_A_THING = ("image of {}", "photo of {}", "portrait of {}", "picture of {}", "painting of {}")
COMMON: Mapping[Kind, tuple[str, ...]] = {
    "style": ("painting by {}", "art by {}", "artwork by {}", "picture by {}", "style of {}"),
    "object": _OF_A_THING,
    "unsafe": _OF_A_THING,
    "identity": _OF_A_THING,
}
PREFIX = 3  # random words in front of a phrasing that is told in a context
BESIDE = 24  # prompts of the keeps, and keeps, among which each target is asked for too
MOST = 600  # prompts beyond the task's own over all targets, and as many over all keeps


@dataclass(frozen=True)
class Told:
    """What a closed form is told of a task.

    `asked`: each target with its phrasings, a template with {} in its place and what that becomes. `kept`: every text
    that must stay. `prior`: what must stay in general, if one was given.
    """

    asked: tuple[tuple[Target, tuple[Phrasing, ...]], ...]
    kept: tuple[str, ...]
    prior: Prior | None = None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every phrasing of every target with each of its words, and what it becomes."""
        return list(self.pairs_of(slice(None)))

    def pairs_of(self, which: slice) -> Iterator[tuple[str, str]]:
        """The pairs of some of each target's phrasings."""
        for target, phrasings in self.asked:
            for template, becomes in phrasings[which]:
                for word in target.words:
                    yield asked_for(target, template, word), becomes


def tell(model: Model, task: Task, *, phrasings: Phrasings = "shared", prior: str = "", contexts: int = 0) -> Told:
    """What every closed form is told of a task; `own` phrasings are the task's alone, as in the official codes.

    Those that are shared are the task's own, the common ones of the target's kind, and those among the keeps
    (`beside`); keeps come in phrasings of their kind, too. Of many targets or keeps each has fewer, of more than `MOST`
    none, so that the cost of encoding prompts grows no faster than they do. `contexts`: of these phrasings, over all
    targets, and of the keeps so many are told once more with random words in front. Raises what `load_prior` raises.
    """
    if contexts:
        return _in_contexts(model, tell(model, task, phrasings=phrasings, prior=prior), contexts)
    general = load_prior(Path(prior), model) if prior else None
    if phrasings == "own":
        return Told(tuple((target, tuple(own(target))) for target in task.targets), task.kept, general)
    each = MOST // sum(len(target.words) for target in task.targets)
    asked = tuple((target, tuple(shared(model, task, target, most=each))) for target in task.targets)
    return Told(asked, tuple(dict.fromkeys([*task.kept, *phrased(model, task)])), general)


def _in_contexts(model: Model, told: Told, count: int) -> Told:
    """Evenly chosen phrasings and keeps once more, with random words of the text encoder's in front of both sides."""
    task = Task([target for target, _ in told.asked])
    pieces = plain_words(model.source.tokenizer(model.texts[0]))
    words = sorted(word for word in pieces if len(word) > 2 and task.named_by(word) is None)
    generator = random.Random(0)

    def in_context(text: str) -> str:
        return " ".join([*generator.choices(words, k=PREFIX), text]).strip()

    asked = []
    for target, phrasings in told.asked:
        each, longest = -(-count // len(told.asked) // len(target.words)), max(target.words, key=model.count_tokens)
        made = []
        for template, becomes in _over_and_over(phrasings, each):
            prefix = in_context("")
            made.append((f"{prefix} {template}", f"{prefix} {becomes}".strip()))
        made = [one for one in made if fits(model, asked_for(target, one[0], longest), one[1])]
        asked.append((target, (*phrasings, *made)))
    kept = [in_context(text) for text in _over_and_over(told.kept, count)]
    return replace(told, asked=tuple(asked), kept=(*told.kept, *(text for text in kept if fits(model, text))))


def _over_and_over(items: Sequence[_Item], count: int) -> list[_Item]:
    """So many of the items, evenly chosen, or again from the first where there are fewer."""
    chosen = evenly(items, count)
    return [chosen[number % len(chosen)] for number in range(count)] if chosen else []


def after(model: Model, task: Task, earlier: Iterable[Mapping[str, Any]]) -> Task:
    """The task with what earlier edits of the same base speak of among the prompts that must stay.

    Each of `earlier` is what an edit says of itself (`asdict(edit.info)`). How its targets are asked for, and what they
    became, are not moved by this edit, so that the sum of both still does what the earlier one did. Prompts that name
    a target of this task, or that the model would cut, are left out.
    """
    found: list[str] = []
    for info in earlier:
        parts = info.get("parts") or ()
        if not info["task"].get("targets"):
            found += after(model, Task(task.targets), parts).prompts
            continue
        for target in Task.from_dict(info["task"]).targets:
            for template in dict.fromkeys(["{}", *target.prompts, *common_of(target)]):
                found += [asked_for(target, template, word) for word in target.words]
                found += [put(template, target.anchor)] if target.anchor else []
    kept = [text for text in dict.fromkeys(found) if task.named_by(text) is None and fits(model, text)]
    return Task(task.targets, task.keeps, [*task.prompts, *kept])


def own(target: Target) -> list[Phrasing]:
    """The target's own prompts, or the bare word, and what they become."""
    return [_becomes(target, template) for template in target.prompts or ("{}",)]


def shared(model: Model, task: Task, target: Target, *, most: int) -> list[Phrasing]:
    """The target's own phrasings, and as many of the common ones and of those among the keeps as asked."""
    common = [_becomes(target, template) for template in common_of(target)[:most]]
    among = beside(task, target, max(0, min(BESIDE, most - len(common))))
    longest = max(target.words, key=model.count_tokens)
    more = [one for one in (*common, *among) if fits(model, asked_for(target, one[0], longest), one[1])]
    return list(dict.fromkeys([*own(target), *more]))


def common_of(concept: Target | Keep) -> tuple[str, ...]:
    """The common phrasings of a concept's kind; a pair of a thing and a style is asked for as a thing."""
    return COMMON["object" if isinstance(concept, Target) and concept.pair else concept.kind]


def phrased(model: Model, task: Task) -> list[str]:
    """The keeps in phrasings of their kind: those that targets of the same kind are asked in, and the common ones."""
    if not task.keeps:
        return []
    each = MOST // len(task.keeps)
    asked = [template for target in task.targets if not target.pair for template in target.prompts]
    found = [
        put(template, keep.name)
        for keep in task.keeps
        for template in evenly(
            list(dict.fromkeys([*(asked if keep.domain == task.domain else ()), *common_of(keep)])), each
        )
    ]
    return [text for text in found if fits(model, text) and task.named_by(text) is None]


def asked_for(target: Target, template: str, word: str) -> str:
    """The template with one of the target's words, and its name with the article that it asks for."""
    return put(template, word, article=target.article if word == target.name else "")


def _becomes(target: Target, template: str) -> Phrasing:
    return template, put(template, target.anchor) if target.anchor else ""
