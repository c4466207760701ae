"""The questions that a protocol asks for a task: which prompts, which seeds, and what must be seen in the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TypeVar

from erase import registry
from erase.config.declared import DeclaredSet, load_declared
from erase.config.prompts import PromptSet, Row, fill, load_prompts
from erase.errors import BadProtocol
from erase.evaluate.detections import ANYTHING
from erase.evaluate.neighbours import beside, choices
from erase.evaluate.protocol import Case, PartForm, Protocol
from erase.task import Target, Task

T = TypeVar("T")
CROSS = {"style": "object", "object": "style", "identity": "object"}


def make_cases(protocol: Protocol, task: Task, given: Mapping[str, Path] | None = None) -> tuple[Case, ...]:
    """Every question of the protocol about a task, in the file's order; `given` holds the files of declared sets.

    Raises BadProtocol where the protocol has nothing to ask about this task, BadPrompts, UnknownName.
    """
    cases: list[Case] = []
    for number, part in enumerate(protocol.form.prompts):
        if part.only and part.only != task.domain:
            continue
        found = list(_cases_of(protocol, part, task, given=given or {}))
        if not found and not (part.optional or part.fill == "nothing"):  # whose images are only drawn
            raise BadProtocol(
                f'protocol {protocol.name} finds no prompt for its part {number + 1} ("{part.aspect}") with the '
                f"target {', '.join(task.names)}: {_advice(part, task)}."
            )
        cases += evenly(found, part.limit)
    if not cases:
        raise BadProtocol(
            f"protocol {protocol.name} asks nothing about {', '.join(task.names)}, of the kind {task.targets[0].kind}; "
            f"{_other(task)}."
        )
    own = {  # a set's question once, in however many parts it is asked
        (case.row.key, case.role, case.aspect, case.domain) if case.source else number: case
        for number, case in enumerate(cases)
    }
    return tuple(own.values())


def rows_asked(protocol: Protocol, task: Task) -> tuple[Row, ...]:
    """Every image that a protocol asks for, also of prompts that name no concept, once each, in the file's order.

    Raises BadProtocol, BadPrompts, UnknownName.
    """
    cases: list[Case] = []
    for part in protocol.form.prompts:
        if part.only in (None, task.domain):
            made = _from_set(protocol, part, task, given={}) if part.set else _from_templates(protocol, part, task)
            cases += evenly(list(made), part.limit)
    return rows_of(cases)


def rows_of(cases: Sequence[Case]) -> tuple[Row, ...]:
    """Every image that the questions need, once each."""
    unique = {case.row.key: case.row for case in cases}
    return tuple(unique.values())


def concepts_of(cases: Sequence[Case], task: Task, *, beside_names: bool = False) -> tuple[str, ...]:
    """Every concept that a detector may have to tell from the others: those asked for, and what targets become.

    `beside_names`: the names of the kind that the package carries, too.
    """
    more = choices(task) if beside_names else [target.anchor for target in task.targets if target.anchor]
    return tuple(dict.fromkeys([*(case.concept for case in cases), *more]))


@dataclass(frozen=True)
class Asked:
    """What is to be known of the prompts that come from one set, or from the protocol's own templates.

    `left_out` rows of the set name minors; `empty` and `cut` are of the `prompts` that are drawn; `cut` ones are longer
    than the model reads, which draws their beginning, as its pipeline does. Of a set whose captions must stay,
    `unasked` are empty, as they say nothing that could be seen, and `erased` name a target.
    """

    source: str
    prompts: int
    empty: int
    cut: int
    left_out: int = 0
    unasked: int = 0
    erased: int = 0

    @property
    def text(self) -> str:
        """What is unusual about them, in one line; "" if nothing is."""
        parts = {
            "rows that name minors were left out": self.left_out,
            "empty captions were not asked for": self.unasked,
            "captions that name a target were not asked for": self.erased,
            "empty": self.empty,
            "longer than the model reads and cut, as its pipeline does": self.cut,
        }
        told = [f"{count} {what}" for what, count in parts.items() if count]
        return f"{self.source or 'templates'}, {self.prompts} prompts drawn: {'; '.join(told)}" if told else ""


def asked_of(
    cases: Sequence[Case], task: Task, given: Mapping[str, Path] | None = None, *, is_cut: Callable[[str], bool]
) -> tuple[Asked, ...]:
    """What is to be known of each set that questions come from, in their order; `is_cut` is the model's."""
    found = []
    for source in dict.fromkeys(case.source for case in cases):
        own = [case for case in cases if case.source == source]
        prompts = list(dict.fromkeys(case.row.prompt for case in own))
        lines = open_set(source, given or {}) if source else None
        found_in = lines.lines if lines and all(case.concept == case.caption for case in own) else ()
        blank = sum(not line.prompt.strip() for line in found_in)
        empty = sum(not prompt.strip() for prompt in prompts)
        found.append(
            Asked(
                source,
                prompts=len(prompts),
                empty=empty,
                cut=sum(map(is_cut, prompts)),
                left_out=lines.left_out if isinstance(lines, DeclaredSet) else 0,
                unasked=0 if empty else blank,
                erased=sum(task.named_by(line.prompt, line.labels) is not None for line in found_in),
            )
        )
    return tuple(found)


def evenly(items: Sequence[T], limit: int | None) -> list[T]:
    """At most so many, spread evenly over the list."""
    if limit is None or len(items) <= limit:
        return list(items)
    return [items[number * len(items) // limit] for number in range(limit)]


def _cases_of(protocol: Protocol, part: PartForm, task: Task, *, given: Mapping[str, Path]) -> Iterator[Case]:
    asked = _from_set(protocol, part, task, given=given) if part.set else _from_templates(protocol, part, task)
    for case in asked:
        domain, concept = _seen(part, task, case)
        if concept:
            yield replace(case, concept=concept, domain=domain, caption=case.caption or case.row.prompt)


def _from_set(protocol: Protocol, part: PartForm, task: Task, *, given: Mapping[str, Path]) -> Iterator[Case]:
    prompts = open_set(part.set, given, part.columns)
    own = all(line.seed is not None for line in prompts.lines)
    seeds = part.seeds or (() if own else protocol.form.seeds)
    for row in prompts.rows(seeds=seeds, where=part.where):
        target, named = task.named_by(row.prompt, row.labels), row.labels.get(task.domain, "")
        kin = "targets" if target else "others" if named else ""
        if target and (part.role == "kept" and part.see == "prompt"):
            continue  # an image that does not show it is what the erasure is for
        if part.of in ("all", kin):
            name = target.name if target else named
            yield Case(row, part.role, part.aspect, name, labels=row.labels, source=part.set)


def open_set(name: str, given: Mapping[str, Path], columns: Mapping[str, str] | None = None) -> PromptSet:
    """A prompt set of this project, or a declared one from the file given for it; `columns` as a part names them."""
    if name in registry.known("declared"):
        return load_declared(name, given.get(name))
    return load_prompts(name, labels=columns)


def _from_templates(protocol: Protocol, part: PartForm, task: Task) -> Iterator[Case]:
    captions = part.captions or ("",) * len(part.templates)
    axes = [[(axis, word) for word in words] for axis, words in part.axes.items()]
    for concept, word in words_of(part, task):
        for template, caption in zip(part.templates, captions, strict=True):
            for labels in (dict(pairs) for pairs in product(*axes)):
                prompt = fill(template, labels | {"word": word})
                said = fill(caption, labels | {"word": word}) if caption else ""
                named = labels | ({task.domain: concept} if concept else {})
                for seed in part.seeds or protocol.form.seeds:
                    row = Row(prompt, seed, named)
                    yield Case(row, part.role, part.aspect, concept, caption=said, labels=named)


def words_of(part: PartForm, task: Task) -> Iterator[tuple[str, str]]:
    """Pairs of the concept to be seen and the word that asks for it."""
    if part.fill == "keeps":
        yield from ((keep.name, keep.name) for keep in task.keeps if keep.domain == task.domain)
        return
    if part.fill in ("neighbours", "nothing"):
        yield from ((word, word) for word in (beside(task) if part.fill == "neighbours" else ("",)))
        return
    for target in task.targets:
        for word in _words(part, target):
            yield target.name if part.role == "erased" else word, word


def _words(part: PartForm, target: Target) -> tuple[str, ...]:
    if part.fill == "names":
        return (target.name,)
    if part.fill == "anchors":
        return (target.anchor,) if target.anchor else ()
    return target.synonyms if part.fill == "synonyms" else part.related.get(target.name, ())


def _seen(part: PartForm, task: Task, case: Case) -> tuple[str, str]:
    """The domain and the concept that the detector is asked for; no concept if the prompt names none there."""
    if part.see == "prompt":
        return "", (case.caption or case.row.prompt) if (case.caption or case.row.prompt).strip() else ""
    if part.see == "anything":
        return "", ANYTHING
    domain = {"task": task.domain, "cross": CROSS[task.domain]}.get(part.see, part.see)
    if domain == task.domain and part.role == "erased":
        return domain, case.concept or task.names[0]
    return domain, case.labels.get(domain, "")


def _advice(part: PartForm, task: Task) -> str:
    if part.fill == "synonyms" and part.templates:
        return "give the target's synonyms"
    if part.fill == "related":
        return f"it knows only {', '.join(part.related)}; copy its file and add the target to `related`"
    if part.fill == "keeps" and part.templates:
        return "give what must stay as keeps"
    found = f"its set {part.set} names other concepts" if part.set else "its templates take no word of the task"
    return f"{found}; {_other(task)}"


def _other(task: Task) -> str:
    return f"choose a protocol that asks about it, such as any-{task.targets[0].kind}, or give a file of your own"
