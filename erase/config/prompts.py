"""Prompt sets: which prompts are asked of a model, with which seeds, and which concepts each one names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from types import MappingProxyType

from pydantic import Field

from erase.config import documents
from erase.config.columns import READERS, read_columns
from erase.config.documents import Form
from erase.english import article
from erase.errors import BadPrompts, BadTask
from erase.registry import find, nearest
from erase.task import DOMAINS, Target, Task, asks_for, names, same

_SLOT = re.compile(r"\{(\w*)\}")
_ARTICLE_AND_SLOT = re.compile(r"\b([Aa]n?) \{(\w+)\}")


@dataclass(frozen=True)
class Row:
    """One image to make: a prompt, a seed, and the concepts that the prompt names, by domain.

    A domain that the prompt does not name is absent from `labels`.
    """

    prompt: str
    seed: int
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from other rows of one model and sampler: its prompt and seed."""
        return self.prompt, self.seed


@dataclass(frozen=True)
class Line:
    """One prompt of a set; `seed` is None where the set leaves the seed to its reader.

    `columns` are all values of its row in a file of columns, by which rows can be selected too.
    """

    prompt: str
    labels: Mapping[str, str]
    seed: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PromptSet:
    """Prompts with their labels, and where they come from; `sha256` is that of the file.

    `unread` are the columns of its file that are neither prompt, seed nor label.
    """

    name: str
    version: str
    licence: str
    source: str
    description: str
    sha256: str
    lines: tuple[Line, ...]
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader may not expect of the set, a line each: columns that are not read, empty prompts."""
        empty = sum(not line.prompt.strip() for line in self.lines)
        return (
            *([f"{self.name}: columns not read: {', '.join(self.unread)}"] if self.unread else []),
            *(
                [f"{self.name}: {empty} of {len(self.lines)} prompts are empty; they are asked as they are"]
                * bool(empty)
            ),
        )

    def rows(self, *, seeds: Sequence[int] = (), where: Mapping[str, Sequence[str]] | None = None) -> tuple[Row, ...]:
        """Every prompt with every seed, in the file's order; no seeds given means the set's own.

        `where` keeps prompts whose labels, or values in a column, are among these words or groups, such as `{"object":
        ["unsafe"]}`.
        Raises BadPrompts on an unknown word, on a selection without a prompt, and on a set without any seed.
        """
        chosen = self.select(where or {})
        if not seeds and any(line.seed is None for line in chosen):
            raise BadPrompts(f'prompt set {self.name} has no seeds of its own; give some, such as "seeds: [0, 1]".')
        return tuple(
            Row(line.prompt, seed, line.labels)
            for line in chosen
            for seed in (seeds or (line.seed,))
            if seed is not None
        )

    def select(self, where: Mapping[str, Sequence[str]]) -> list[Line]:
        """The prompts that a selection leaves; raises BadPrompts on an unknown word or if none is left."""
        wanted = self._expanded(where)
        chosen = [
            line
            for line in self.lines
            if all({**line.columns, **line.labels}.get(axis) in words for axis, words in wanted.items())
        ]
        if not chosen:
            raise BadPrompts(f"prompt set {self.name}: no prompt is left by where = {_shown(where)}.")
        return chosen

    def words(self, axis: str) -> tuple[str, ...]:
        """The concepts that the set's prompts name in this domain, or the values in a column, in the file's order."""
        found = (line.labels.get(axis) or line.columns.get(axis) for line in self.lines)
        return self.axes.get(axis) or _unique(word for word in found if word)

    def _expanded(self, where: Mapping[str, Sequence[str]]) -> dict[str, frozenset[str]]:
        """The selection with every group replaced by its words, each as the set spells it."""
        known = _unique(axis for line in self.lines for axis in (*line.labels, *line.columns))
        return {axis: frozenset(self._meant(axis, given, known=known)) for axis, given in where.items()}

    def _meant(self, axis: str, given: Sequence[str], *, known: Sequence[str]) -> Iterable[str]:
        """The words of an axis or column that a selection means; raises BadPrompts for what is not there."""
        if axis not in known:
            raise BadPrompts(documents.wrong_key(axis, list(known), where=f"where, prompt set {self.name}"))
        words = self.words(axis)
        for word in given:
            meant = self.groups.get(word) or [one for one in words if one == word or same(one, word)]
            if not meant:
                place = f"where.{axis}, prompt set {self.name}"
                raise BadPrompts(documents.wrong_key(word, [*words, *self.groups], where=place, what="word"))
            yield from meant


class _LineForm(Form):
    prompt: str
    seed: int | None = None
    labels: dict[str, str] = Field(default_factory=dict)


class _SetForm(Form):
    """The keys of a prompt set's file: a square (`templates` and `axes`) or explicit `rows`."""

    version: str
    licence: str
    source: str
    description: str = ""
    templates: tuple[str, ...] = ()
    axes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    words: dict[str, dict[str, str]] = Field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    rows: tuple[_LineForm, ...] = ()


def load_prompts(name_or_path: str, *, labels: Mapping[str, str] | None = None) -> PromptSet:
    """The prompt set of a name, or of a path to a .yaml of the same form, a .csv, .tsv, .jsonl or .txt.

    Files of columns have one of prompts ("prompt", "caption" or "text"), and may have one of seeds ("seed" or
    "evaluation_seed") and of each domain's labels: style ("artist" too), object ("class", "label_str", "profession"
    too), identity ("celebrity" too), or those that `labels` maps a domain to. A .jsonl has an object of such keys on
    each line, a .txt one prompt. Raises UnknownName, BadPrompts.
    """
    path = find("prompts", name_or_path, what="prompt set")
    text = documents.read_text(path, error=BadPrompts)
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        if labels:
            raise BadPrompts(f"{path} names its own labels; `labels` are for files of columns, such as a .csv.")
        return _from_yaml(path, text)
    if suffix not in READERS:
        raise BadPrompts(f"{path} is no prompt set; expected a .yaml, {', '.join(READERS)} file.")
    rows, unread = read_columns(path, text, labels or {})
    return PromptSet(
        name=path.stem,
        version="0",
        licence="not stated",
        source=path.name,
        description="",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        lines=_checked(path, [Line(row.prompt, row.labels, row.seed, row.columns) for row in rows]),
        unread=unread,
    )


def fill(template: str, words: Mapping[str, str], *, articles: Mapping[str, str] = MappingProxyType({})) -> str:
    """The template with its words; an article right before a slot becomes the one that its word needs.

    `articles` are those of words that ask for one of their own, by word.
    """

    def agree(match: re.Match[str]) -> str:
        said, slot = match.groups()
        word = words.get(slot, "")
        needed = articles.get(word) or article(word)
        return f"{needed.capitalize() if said[0] == 'A' else needed} {{{slot}}}"

    return _SLOT.sub(lambda slot: words[slot[1]], _ARTICLE_AND_SLOT.sub(agree, template))


def check_asked(task: Task, rows: Sequence[Row]) -> None:
    """Raises BadTask for a target that no prompt asks for: nothing would be measured of it."""
    for target in task.targets:
        if not any(asks_for(row.prompt, row.labels, target) for row in rows):
            found = list(dict.fromkeys(row.labels[target.domain] for row in rows if target.domain in row.labels))
            raise BadTask(
                f'no prompt asks for the target "{target.name}", so that nothing would be measured of it: '
                + nearest(f"{target.domain} label", target.name, found)
            )


def paired(target: Target, rows: Sequence[Row]) -> Target:
    """The target as a pair of labels, if its name is none and names one of either domain ("cat in noto style")."""
    if target.pair or any(names(row.labels.get(target.domain, ""), target) for row in rows):
        return target
    found = {}
    for domain in DOMAINS:
        labels = dict.fromkeys(row.labels[domain] for row in rows if domain in row.labels)
        found[domain] = max((label for label in labels if names(target.name, label)), key=len, default="")
    pair = {domain: label for domain, label in found.items() if label}
    return replace(target, pair=pair) if len(pair) > 1 else target


def _from_yaml(path: Path, text: str) -> PromptSet:
    value = documents.parse_yaml(text, source=str(path), error=BadPrompts, example="rows: [{prompt: a cat, seed: 0}]")
    form = documents.check(value, _SetForm, source=str(path), error=BadPrompts)
    _check_square(path, form)
    lines = [Line(row.prompt, row.labels, row.seed) for row in form.rows]
    lines += [line for template in form.templates for line in _square(template, form)]
    return PromptSet(
        name=path.stem,
        version=form.version,
        licence=form.licence,
        source=form.source,
        description=form.description,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        lines=_checked(path, lines),
        axes=form.axes,
        groups=form.groups,
    )


def _square(template: str, form: _SetForm) -> list[Line]:
    """One prompt for every combination of the words on the axes that the template names."""
    slots = set(_SLOT.findall(template))
    axes = [axis for axis in form.axes if axis in slots]
    lines = []
    for labels in product(*(form.axes[axis] for axis in axes)):
        named = dict(zip(axes, labels, strict=True))
        said = {axis: form.words.get(axis, {}).get(label, label) for axis, label in named.items()}
        lines.append(Line(fill(template, said), named))
    return lines


def _check_square(path: Path, form: _SetForm) -> None:
    """Raises BadPrompts where templates, axes, words and groups do not fit together."""
    slots = [slot for template in form.templates for slot in _SLOT.findall(template)]
    for slot in slots:
        if slot not in form.axes:
            raise BadPrompts(
                f"{path}: templates name {{{slot}}}, which is no axis; axes: {', '.join(form.axes) or 'none'}."
            )
    for axis in form.axes:
        if axis not in DOMAINS:
            raise BadPrompts(f"{path}: {documents.wrong_key(axis, list(DOMAINS), where='axes')}")
        if axis not in slots:
            raise BadPrompts(f"{path}: axis {axis} is in no template; write {{{axis}}} into one or drop the axis.")
    for axis, words in form.words.items():
        _require_known(path, f"words.{axis}", words, valid=form.axes.get(axis, ()))
    every = [word for axis in form.axes.values() for word in axis]
    for group, members in form.groups.items():
        if group in every:
            raise BadPrompts(f'{path}: group "{group}" has the name of a word on an axis; call it otherwise.')
        _require_known(path, f"groups.{group}", members, valid=every)


def each_once(rows: Iterable[Row]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Rows of one prompt and seed as one row, which has the labels of all; and a note where labels contradict."""
    unique: dict[tuple[str, int], Row] = {}
    against: dict[tuple[str, int], str] = {}
    for row in rows:
        first = unique.setdefault(row.key, row)
        for domain, word in row.labels.items():
            if not same(word, first.labels.get(domain, word)):
                against.setdefault(row.key, f'"{row.prompt}" is {domain} {first.labels[domain]} and {word}')
        unique[row.key] = Row(row.prompt, row.seed, {**row.labels, **first.labels})
    told = f"{len(against)} images have several labels of a kind, of which the first counts: "
    return tuple(unique.values()), (told + next(iter(against.values())),) if against else ()


def _require_known(path: Path, place: str, given: Iterable[str], *, valid: Iterable[str]) -> None:
    for word in given:
        if word not in valid:
            raise BadPrompts(f"{path}: {documents.wrong_key(word, list(valid), where=place, what='word')}")


def _checked(path: Path, lines: Sequence[Line]) -> tuple[Line, ...]:
    """The lines; raises BadPrompts on none, an unknown domain or a seed out of range."""
    if not lines:
        raise BadPrompts(f'{path} holds no prompt; give "templates" with "axes", or "rows".')
    for number, line in enumerate(lines, start=1):
        if line.seed is not None and not 0 <= line.seed < 2**63:
            raise BadPrompts(f"{path}: the seed of prompt {number} is {line.seed}; expected 0 or more.")
        for domain in line.labels:
            if domain not in DOMAINS:
                raise BadPrompts(f"{path}: {documents.wrong_key(domain, list(DOMAINS), where=f'labels {number}')}")
    return tuple(lines)


def _unique(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))


def _shown(where: Mapping[str, Sequence[str]]) -> str:
    return "{" + ", ".join(f"{axis}: [{', '.join(words)}]" for axis, words in where.items()) + "}"
