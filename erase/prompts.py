"""Prompt sets: which prompts are asked of a model, with which seeds, and which concepts each one names."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from pydantic import Field

from erase import documents
from erase.documents import Form
from erase.errors import BadPrompts

DOMAINS = ("style", "object", "identity")
_SEED_COLUMNS = ("seed", "evaluation_seed")
_SLOT = re.compile(r"\{(\w*)\}")
_ARTICLE_AND_SLOT = re.compile(r"\b([Aa]) \{(\w+)\}")


@dataclass(frozen=True)
class Row:
    """One image to make: a prompt, a seed, and the concepts that the prompt names, by domain.

    A domain that the prompt does not name is absent from `labels`.
    """

    prompt: str
    seed: int
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """One prompt of a set; `seed` is None where the set leaves the seed to its reader."""

    prompt: str
    labels: Mapping[str, str]
    seed: int | None = None


@dataclass(frozen=True)
class PromptSet:
    """Prompts with their labels, and where they come from; `sha256` is that of the file."""

    name: str
    version: str
    licence: str
    source: str
    description: str
    sha256: str
    lines: tuple[Line, ...]
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def rows(self, *, seeds: Sequence[int] = (), where: Mapping[str, Sequence[str]] | None = None) -> tuple[Row, ...]:
        """Every prompt with every seed, in the file's order; no seeds given means the set's own.

        `where` keeps prompts whose labels are among these words or groups, such as `{"object": ["unsafe"]}`.
        Raises BadPrompts on an unknown word, on a selection without a prompt, and on a set without any seed.
        """
        wanted = self._expanded(where or {})
        chosen = [line for line in self.lines if _among(line.labels, wanted)]
        if not chosen:
            raise BadPrompts(f"prompt set {self.name}: no prompt is left by where = {_shown(where or {})}.")
        if not seeds and any(line.seed is None for line in chosen):
            raise BadPrompts(f'prompt set {self.name} has no seeds of its own; give some, such as "seeds: [0, 1]".')
        return tuple(
            Row(line.prompt, seed, line.labels)
            for line in chosen
            for seed in (seeds or (line.seed,))
            if seed is not None
        )

    def words(self, axis: str) -> tuple[str, ...]:
        """The concepts that the set's prompts name in this domain, in the file's order."""
        return self.axes.get(axis) or _unique(line.labels[axis] for line in self.lines if axis in line.labels)

    def _expanded(self, where: Mapping[str, Sequence[str]]) -> dict[str, frozenset[str]]:
        """The selection with every group replaced by its words."""
        known = _unique(axis for line in self.lines for axis in line.labels)
        expanded = {}
        for axis, given in where.items():
            if axis not in known:
                raise BadPrompts(documents.wrong_key(axis, list(known), where=f"where, prompt set {self.name}"))
            valid = [*self.words(axis), *self.groups]
            for word in given:
                if word not in valid:
                    place = f"where.{axis}, prompt set {self.name}"
                    raise BadPrompts(documents.wrong_key(word, valid, where=place).replace("key", "word", 1))
            expanded[axis] = frozenset(one for word in given for one in self.groups.get(word, (word,)))
        return expanded


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


def load_prompts(name_or_path: str) -> PromptSet:
    """The prompt set of a name, or of a path to a .yaml of the same form or a .csv.

    A .csv has a column `prompt`, may have `seed` or `evaluation_seed`, and labels in columns style, object
    and identity; its other columns are not read. Raises UnknownName, BadPrompts.
    """
    path = documents.find("prompts", name_or_path, what="prompt set")
    text = documents.read_text(path, error=BadPrompts)
    return _from_csv(path, text) if path.suffix.lower() == ".csv" else _from_yaml(path, text)


def fill(template: str, words: Mapping[str, str]) -> str:
    """The template with its words; an article right before a slot becomes `an` where its word needs it."""

    def agree(match: re.Match[str]) -> str:
        article, slot = match.groups()
        n = "n" if words.get(slot, "")[:1].lower() in tuple("aeiou") else ""
        return f"{article}{n} {{{slot}}}"

    return _SLOT.sub(lambda slot: words[slot[1]], _ARTICLE_AND_SLOT.sub(agree, template))


def _from_yaml(path: Path, text: str) -> PromptSet:
    value = documents.parse_yaml(text, source=str(path), error=BadPrompts)
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
    """Nothing; raises BadPrompts where templates, axes, words and groups do not fit together."""
    slots = [slot for template in form.templates for slot in _SLOT.findall(template)]
    for slot in slots:
        if slot not in form.axes:
            raise BadPrompts(f"{path}: templates name {{{slot}}}, which is no axis; axes: {_listed(form.axes)}.")
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


def _require_known(path: Path, place: str, given: Iterable[str], *, valid: Iterable[str]) -> None:
    for word in given:
        if word not in valid:
            text = documents.wrong_key(word, list(valid), where=place).replace("key", "word", 1)
            raise BadPrompts(f"{path}: {text}")


def _from_csv(path: Path, text: str) -> PromptSet:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        records = list(reader)
    except csv.Error as problem:
        raise BadPrompts(f"{path} is not valid CSV at line {reader.line_num}: {problem}.") from problem
    columns = reader.fieldnames or []
    if "prompt" not in columns:
        raise BadPrompts(f'{path} has no column "prompt"; its columns: {_listed(columns)}.')
    seed_column = next((column for column in _SEED_COLUMNS if column in columns), None)
    lines = [
        Line(
            prompt=record["prompt"] or "",
            labels={domain: record[domain] for domain in DOMAINS if record.get(domain)},
            seed=_seed(path, number, record[seed_column]) if seed_column else None,
        )
        for number, record in enumerate(records, start=2)
    ]
    return PromptSet(
        name=path.stem,
        version="0",
        licence="not stated",
        source=path.name,
        description="",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        lines=_checked(path, lines),
    )


def _seed(path: Path, number: int, text: str | None) -> int:
    try:
        return int(text or "")
    except ValueError as problem:
        raise BadPrompts(f'{path}, row {number}: the seed is "{text}"; expected a whole number.') from problem


def _checked(path: Path, lines: Sequence[Line]) -> tuple[Line, ...]:
    """The lines; raises BadPrompts on none, an empty prompt, an unknown domain or a seed out of range."""
    if not lines:
        raise BadPrompts(f'{path} holds no prompt; give "templates" with "axes", or "rows".')
    for number, line in enumerate(lines, start=1):
        if not line.prompt.strip():
            raise BadPrompts(f"{path}: prompt {number} is empty.")
        if line.seed is not None and not 0 <= line.seed < 2**63:
            raise BadPrompts(f"{path}: the seed of prompt {number} is {line.seed}; expected 0 or more.")
        for domain in line.labels:
            if domain not in DOMAINS:
                raise BadPrompts(f"{path}: {documents.wrong_key(domain, list(DOMAINS), where=f'labels {number}')}")
    return tuple(lines)


def _among(labels: Mapping[str, str], where: Mapping[str, frozenset[str]]) -> bool:
    return all(labels.get(axis) in words for axis, words in where.items())


def _unique(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"


def _shown(where: Mapping[str, Sequence[str]]) -> str:
    return "{" + ", ".join(f"{axis}: [{', '.join(words)}]" for axis, words in where.items()) + "}"
