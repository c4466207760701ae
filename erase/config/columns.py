"""Prompts in files of columns: .csv and .tsv, .jsonl with an object a line, .txt with a prompt a line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from erase.config import documents
from erase.errors import BadPrompts
from erase.task import DOMAINS

Records = Sequence[tuple[int, Mapping[str, str | None]]]  # each with its line in the file
_PROMPT_COLUMNS = ("prompt", "caption", "text")
_SEED_COLUMNS = ("seed", "evaluation_seed")
# What the files of the field call the concept that a prompt asks for.
_LABEL_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "style": ("style", "artist", "artist_name"),
    "object": ("object", "class", "class_name", "label_str", "profession"),
    "identity": ("identity", "celebrity"),
}
_BOOKKEEPING = ("", "case_number", "image_id", "id", "index", "source")  # columns that nobody misses


@dataclass(frozen=True)
class Cells:
    """What a row of a file says: its prompt, its labels by domain, its seed if it has one, and all of its cells."""

    prompt: str
    labels: Mapping[str, str]
    seed: int | None
    columns: Mapping[str, str]


def read_columns(path: Path, text: str, labels: Mapping[str, str]) -> tuple[list[Cells], tuple[str, ...]]:
    """The rows of a file, and its columns that are neither prompt, seed nor label.

    `labels` maps domains to columns in place of the known ones. Raises BadPrompts.
    """
    columns, records = READERS[path.suffix.lower()](path, text)
    prompt = _column(columns, _PROMPT_COLUMNS)
    if prompt is None:
        raise BadPrompts(f'{path} has no column "prompt"; its columns: {", ".join(columns) or "none"}.')
    seed = _column(columns, _SEED_COLUMNS)
    naming = _label_columns(path, columns, labels)
    rows = [
        Cells(
            prompt=record.get(prompt) or "",
            labels={domain: cell for domain, name in naming.items() if (cell := (record.get(name) or "").strip())},
            seed=_seed(path, number, record.get(seed)) if seed else None,
            columns={column: cell for column, cell in record.items() if column and isinstance(cell, str)},
        )
        for number, record in records
    ]
    read = {prompt, seed, *naming.values(), *_BOOKKEEPING}
    return rows, tuple(column for column in columns if column not in read)


def column_of(columns: Sequence[str], kind: str) -> str | None:
    """The column that lists concepts of a kind: `target`, `concept` or `name`, one of the kind, or the only one."""
    known = _LABEL_COLUMNS.get("object" if kind == "unsafe" else kind, ())
    found = _column(columns, ("target", "concept", "name", *known))
    return found or (columns[0] if len(columns) == 1 else None)


def separated(path: Path, text: str) -> tuple[Sequence[str], Records]:
    """Columns and records of a file whose cells are parted by commas, semicolons or tabs, as its first line says."""
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    try:
        records = [(reader.line_num, record) for record in reader]
    except csv.Error as problem:
        raise BadPrompts(f"{path} is not valid CSV at line {reader.line_num}: {problem}.") from problem
    return reader.fieldnames or [], records


def _objects(path: Path, text: str) -> tuple[Sequence[str], Records]:
    """Keys and values of a file with one JSON object a line."""
    records = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise BadPrompts(f"{path}, line {number} is not valid JSON ({type(problem).__name__}).") from problem
        if not isinstance(value, dict):
            raise BadPrompts(f'{path}, line {number} is no object; expected one such as {{"prompt": "a cat"}}.')
        records.append((number, {key: None if cell is None else str(cell) for key, cell in value.items()}))
    return list(dict.fromkeys(key for _, record in records for key in record)), records


def _label_columns(path: Path, columns: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """The column that names concepts of each domain; raises BadPrompts for one that is given and not there."""
    for domain, column in given.items():
        if domain not in DOMAINS:
            raise BadPrompts(f"{path}: {documents.wrong_key(domain, list(DOMAINS), where='labels')}")
        if column not in columns:
            raise BadPrompts(
                f"{path}: {documents.wrong_key(column, list(columns), where='its columns', what='column')}"
            )
    found = {domain: given.get(domain) or _column(columns, known) for domain, known in _LABEL_COLUMNS.items()}
    return {domain: column for domain, column in found.items() if column is not None}


def _column(columns: Sequence[str], known: Sequence[str]) -> str | None:
    """The first of the known columns that a file has, in whichever letter case."""
    there = {column.strip().lower(): column for column in columns if column is not None}
    return next((there[name] for name in known if name in there), None)


def _lines(path: Path, text: str) -> tuple[Sequence[str], Records]:
    """One prompt a line; empty lines are none."""
    return ["prompt"], [(n, {"prompt": line.strip()}) for n, line in enumerate(text.splitlines(), 1) if line.strip()]


def _seed(path: Path, number: int, text: str | None) -> int:
    try:
        return int(text or "")
    except ValueError as problem:
        raise BadPrompts(f'{path}, line {number}: the seed is "{text}"; expected a whole number.') from problem


READERS = MappingProxyType({".csv": separated, ".tsv": separated, ".jsonl": _objects, ".txt": _lines})
