"""In which prompts a target is learned beside what is kept: those of the keeps that name its anchor, and their like."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

from erase.methods._states import put
from erase.task import Target, Task

T = TypeVar("T")
Phrasing = tuple[str, str]  # a template with {} in the target's place, and the prompt that it becomes
LIKE = 24  # prompts of the anchor whose like are looked for
SLOT = "\0"  # stands for the target while another word is put in
MARKS = ",.;:!?\"'"
ARTICLES = ("a", "an", "A", "An")


def beside(task: Task, target: Target, count: int) -> Iterator[Phrasing]:
    """Prompts that name a target among what is kept, and what they become; as many as asked of either kind.

    A prompt that names the target's anchor, or is like one that does, is one with the target in that place; a kept
    object stands beside a target that is a style, a kept style beside one that is an object.
    """
    for template in evenly(places_for(target.anchor, task.prompts), count):
        yield template, put(template, target.anchor)
    others = [keep for keep in task.keeps if {keep.domain, target.domain} == {"style", "object"}]
    for keep in evenly(others, count):
        template = combined(target, keep.name)
        yield template, put(template, target.anchor) if target.anchor else put("a {}", keep.name)


@lru_cache(maxsize=256)  # many targets have few anchors between them
def places_for(word: str, prompts: tuple[str, ...]) -> tuple[str, ...]:
    """Templates of the prompts that name a word, then of those that are like them but for one word more.

    Of "a cat in oil" and "a dog in ink", the word cat has "a {} in oil" and, by its like, "a {} in ink".
    """
    own = naming(word, prompts)
    few = [template.split() for template in evenly(own, LIKE)]
    more = [place for prompt in prompts for template in few if (place := place_like(template, prompt))] if few else []
    return tuple(dict.fromkeys([*own, *more]))


def place_like(template: Sequence[str], prompt: str) -> str:
    """The prompt with `{}` where a template's words have it, if but one other word differs; else nothing."""
    words = prompt.split()
    if len(words) != len(template):
        return ""
    slot = next(number for number, word in enumerate(template) if "{}" in word)
    others = [number for number, word in enumerate(template) if number != slot and word != words[number]]
    if len([number for number in others if words[number] not in ARTICLES]) > 1:
        return ""
    word = words[slot].strip(MARKS)
    if not word or [other.strip(MARKS) for other in words].count(word) > 1 or "{" in prompt or "}" in prompt:
        return ""
    words[slot] = words[slot].replace(word, "{}")
    if slot and words[slot - 1] in ARTICLES:
        words[slot - 1] = words[slot - 1][0]
    return " ".join(words)


def naming(word: str, prompts: Sequence[str]) -> list[str]:
    """The prompts that name a word just once, with `{}` in its place."""
    found = (template_in(prompt, word) for prompt in prompts)
    return list(dict.fromkeys(template for template in found if template))


def template_in(prompt: str, word: str) -> str:
    """The prompt with `{}` in the word's place and `a` for its article, or nothing if it does not name it just once."""
    places = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", prompt)] if word else []
    if len(places) != 1 or "{" in prompt or "}" in prompt:
        return ""
    start, end = places[0]
    before = re.sub(r"\b([Aa])n $", r"\1 ", prompt[:start])
    return f"{before}{{}}{prompt[end:]}"


def evenly(items: Sequence[T], count: int) -> Sequence[T]:
    """At most so many of the items, evenly chosen."""
    return items[:: max(1, -(-len(items) // count))] if count else []


def combined(target: Target, keep: str) -> str:
    """A prompt template for the target that names a keep: a style of a kept object, or an object in a kept style."""
    return (
        put(f"a {{}} in {SLOT} style", keep).replace(SLOT, "{}")
        if target.domain == "style"
        else f"a {{}} in {keep} style"
    )
