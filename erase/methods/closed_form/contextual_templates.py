"""In which prompts a target is learned beside what is kept: those of the keeps that name its anchor, and their like."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

from erase.methods.closed_form.states import put
from erase.task import Keep, Target, Task, names, same

T = TypeVar("T")
Phrasing = tuple[str, str]  # a template with {} in the target's place, and the prompt that it becomes
LIKE = 24  # prompts of the anchor whose like are looked for
SLOT = "\0"  # stands for the target while another word is put in
MARKS = ",.;:!?\"'"
ARTICLES = ("a", "an", "A", "An")


def beside(task: Task, target: Target, count: int) -> Iterator[Phrasing]:
    """Prompts that name a target among what is kept, and what they become; as many as asked of either kind.

    A prompt that names the target's anchor, or is like one that does, is one with the target in that place; a kept
    object or person stands beside a target that is a style, a kept style beside one that is an object or a person. A
    target that is a pair has its own thing and style, and gets no other.
    """
    anchor = target.anchor
    longer = [keep for keep in task.keeps if names(keep.name, anchor) and not same(keep.name, anchor)]
    prompts = tuple(prompt for prompt in task.prompts if not any(names(prompt, keep) for keep in longer))
    for template in evenly(places_for(anchor, prompts), count):
        yield template, put(template, anchor)
    mixed = [keep for keep in task.keeps if (keep.domain == "style") != (target.domain == "style")]
    for keep in evenly([] if target.pair else mixed, count):
        template = combined(target, keep)
        yield template, put(template, anchor) if anchor else alone(keep)


@lru_cache(maxsize=256)  # many targets have few anchors between them
def places_for(word: str, prompts: tuple[str, ...]) -> tuple[str, ...]:
    """Templates of the prompts that name a word, then of those that are like them but for one word more.

    Of "a cat in oil" and "a dog in ink", the word cat has "a {} in oil" and, by its like, "a {} in ink".
    """
    own = naming(word, prompts)
    few, longest = [template.split() for template in evenly(own, LIKE)], len(word.split())
    more = [place_like(template, prompt, longest=longest) for prompt in prompts for template in few]
    return tuple(dict.fromkeys([*own, *filter(None, more)]))


def place_like(template: Sequence[str], prompt: str, *, longest: int = 1) -> str:
    """The prompt with `{}` where a template's words have it, if but one other word differs; else nothing.

    `longest`: how many words a name may have, which is what stands in that place.
    """
    words = prompt.split()
    size, slot = len(words) - len(template) + 1, next(n for n, word in enumerate(template) if "{}" in word)
    if not 1 <= size <= longest or "{" in prompt or "}" in prompt:
        return ""
    around, wanted = [*words[:slot], *words[slot + size :]], [*template[:slot], *template[slot + 1 :]]
    others = [word for word, asked in zip(around, wanted, strict=True) if word != asked and word not in ARTICLES]
    place = " ".join(words[slot : slot + size])
    word = place.strip(MARKS)
    plain = [other.strip(MARKS) for other in words]
    if (
        len(others) > 1
        or not word
        or plain.count(word) > 1
        or (size > 1 and {*ARTICLES} & {*plain[slot : slot + size]})
    ):
        return ""
    before = words[:slot]
    if slot and before[-1] in ARTICLES:
        before[-1] = before[-1][0]
    return " ".join([*before, place.replace(word, "{}"), *words[slot + size :]])


def naming(word: str, prompts: Sequence[str]) -> list[str]:
    """The prompts that name a word just once, with `{}` in its place."""
    found = (template_in(prompt, word) for prompt in prompts)
    return list(dict.fromkeys(template for template in found if template))


def template_in(prompt: str, word: str) -> str:
    """The prompt with `{}` in the word's place and `a` for its article, or nothing if it does not name it just once.

    Letter case, accents and hyphens do not count.
    """
    if "{" in prompt or "}" in prompt or not word:
        return ""
    plain, places = _without_accents(prompt)
    parts = [re.escape(part) for part in re.split(r"[\s-]+", _without_accents(word)[0].strip())]
    name = r"[\s-]+".join(parts)
    found = [match.span() for match in re.finditer(rf"(?<!\w){name}(?!\w)", plain, re.IGNORECASE)]
    if len(found) != 1:
        return ""
    start, end = places[found[0][0]], places[found[0][1]]
    before = re.sub(r"\b([Aa])n $", r"\1 ", prompt[:start])
    return f"{before}{{}}{prompt[end:]}"


def _without_accents(text: str) -> tuple[str, list[int]]:
    """The text's letters without accents, and the place of each in the text, and of its end."""
    found = [
        (sign, number)
        for number, letter in enumerate(text)
        for sign in unicodedata.normalize("NFKD", letter)
        if not unicodedata.combining(sign)
    ]
    return "".join(sign for sign, _ in found), [*(number for _, number in found), len(text)]


def evenly(items: Sequence[T], count: int) -> Sequence[T]:
    """At most so many of the items, evenly chosen."""
    return items[:: max(1, -(-len(items) // count))] if count else []


def combined(target: Target, keep: Keep) -> str:
    """A prompt template for the target that names a keep: a style of a kept thing, or a thing in a kept style."""
    if target.domain == "style":
        return put(f"{thing_in(keep.domain)} in {SLOT} style", keep.name).replace(SLOT, "{}")
    return f"{thing_in(target.domain)} in {keep.name} style"


def alone(keep: Keep) -> str:
    """A prompt for a keep by itself."""
    return f"{keep.name} style" if keep.domain == "style" else put(thing_in(keep.domain), keep.name)


def thing_in(domain: str) -> str:
    """How a thing of this domain is asked for: people and styles have no article."""
    return "a {}" if domain == "object" else "{}"
