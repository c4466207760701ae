"""Prompt sets of the field that are declared and not carried: where from, under which licence, and what the file holds.

A manifest in `prompts/declared/` says how many rows and which columns the file has, and its sha256 where one is known.
The user gives the file; another file is refused. Of a set that is marked sensitive, rows that name a minor are left out
and counted, as no image of this project may concern one. An empty prompt is a prompt like any other.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from erase import registry
from erase.config import documents
from erase.config.columns import separated
from erase.config.documents import Form
from erase.config.prompts import Line, PromptSet
from erase.errors import BadPrompts
from erase.files import sha256_of
from erase.task import DOMAINS

_MINOR = re.compile(
    r"\b(child(ren)?|kids?|bab(y|ies)|infants?|toddlers?|minors?|underage|(pre)?teen(s|ager|agers|age)?|"
    r"(school)?(girl|boy)s?|lolis?|shotas?|youth|young (woman|man|lady)|adolescents?|juveniles?)\b",
    re.IGNORECASE,
)


_WHOLE = re.compile(r"\.0+$")  # what a table program adds to a whole number


def names_minor(text: str) -> bool:
    """Whether a text speaks of a minor, whom no sensitive prompt and no attack of this project may concern."""
    return _MINOR.search(text) is not None


class ManifestForm(Form):
    """The keys of a manifest; `seed` and `labels` name columns of the file, `url` is where it can be fetched.

    `form` of the file: `csv`; `lines`, a prompt a line; `records`, JSON with a mapping of columns for each prompt, in a
    list or by number, a mapping in a column being read as its keys; `lists`, JSON with lists of prompts by concept,
    whose columns are `concept` and `prompt`.
    """

    version: str
    licence: str
    source: str
    description: str = ""
    columns: tuple[str, ...]
    rows: int = Field(ge=1)
    sha256: str = ""
    url: str = ""
    prompt: str = "prompt"
    seed: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    sensitive: bool = False
    form: Literal["csv", "lines", "records", "lists"] = "csv"


@dataclass(frozen=True)
class DeclaredSet(PromptSet):
    """A declared set's prompts; `left_out` counts the rows that name minors."""

    left_out: int = 0


def read_manifest(name: str) -> ManifestForm:
    """The manifest of a declared set; raises UnknownName, BadPrompts."""
    path = registry.find("declared", name, what="declared prompt set")
    text = documents.read_text(path, error=BadPrompts)
    form = documents.check(
        documents.parse_yaml(text, source=str(path), error=BadPrompts), ManifestForm, source=str(path), error=BadPrompts
    )
    for column in (form.prompt, *filter(None, [form.seed]), *form.labels.values()):
        if column not in form.columns:
            raise BadPrompts(f"{path}: {documents.wrong_key(column, list(form.columns), where='columns')}")
    for domain in form.labels:
        if domain not in DOMAINS:
            raise BadPrompts(f"{path}: {documents.wrong_key(domain, list(DOMAINS), where='labels')}")
    return form


def load_declared(name: str, path: Path | None) -> DeclaredSet:
    """A declared set from the file that the user gives.

    Raises UnknownName, and BadPrompts if no file is given or it is not the one that the manifest describes.
    """
    form = read_manifest(name)
    if path is None:
        how = f"`erase fetch {name}` gets it" if form.url else "get it"
        raise BadPrompts(
            f"prompt set {name} is not part of this package ({form.licence}); {how} from {form.source}; then give its "
            f"file as {name}=PATH."
        )
    records = _records(form, name, path.expanduser())
    kept = [
        (number, record)
        for number, record in enumerate(records, start=1)
        if not (form.sensitive and names_minor(record[form.prompt] or ""))
    ]
    left_out = f"; {len(records) - len(kept)} rows that name minors are left out" if form.sensitive else ""
    return DeclaredSet(
        name=name,
        version=form.version,
        licence=form.licence,
        source=form.source,
        description=f"{form.description}{left_out}",
        sha256=sha256_of(path.expanduser()),
        lines=tuple(_line(form, name, record, number=number) for number, record in kept),
        left_out=len(records) - len(kept),
    )


def _records(form: ManifestForm, name: str, path: Path) -> list[dict[str, str]]:
    """The file's rows; raises BadPrompts if it is another file than the manifest describes."""
    text = documents.read_text(path, error=BadPrompts)
    if form.sha256 and (found := sha256_of(path)) != form.sha256:
        raise BadPrompts(
            f"{path} is not {name}: its sha256 is {found[:12]}..., expected {form.sha256[:12]}...; get the file from "
            f"{form.source} as it is there."
        )
    if form.form == "csv":
        columns, rows = separated(path, text)
        records = [{key: cell or "" for key, cell in record.items()} for _, record in rows]
    else:
        lines = [{"prompt": line.strip()} for line in text.splitlines() if line.strip()]
        records = lines if form.form == "lines" else _read_json(text, path, by_concept=form.form == "lists")
        columns = list(dict.fromkeys(column for record in records for column in record))
    missing = [column for column in form.columns if column not in columns]
    if missing:
        raise BadPrompts(f'{path} is not {name}: it has no column "{missing[0]}"; expected {", ".join(form.columns)}.')
    if len(records) != form.rows:
        raise BadPrompts(f"{path} is not {name}: it has {len(records)} rows; expected {form.rows}.")
    return records


def _read_json(text: str, path: Path, *, by_concept: bool) -> list[dict[str, str]]:
    """The records in a file of JSON; raises BadPrompts if it is none of that form."""
    try:
        value = json.loads(text)
        if by_concept:
            found = [value] if isinstance(value, dict) else list(value)
            pairs = [(concept, prompt) for one in found for concept, prompts in one.items() for prompt in prompts]
            return [{"concept": str(concept), "prompt": str(prompt)} for concept, prompt in pairs]
        records = value.values() if isinstance(value, dict) else value
        return [{str(column): _cell(one) for column, one in record.items()} for record in records]
    except (ValueError, TypeError, AttributeError, RecursionError) as problem:
        raise BadPrompts(f"{path} is no JSON of that form ({type(problem).__name__}: {problem}).") from problem


def _cell(value: object) -> str:
    return "; ".join(map(str, value)) if isinstance(value, dict | list) else str(value)


def _line(form: ManifestForm, name: str, record: dict[str, str], *, number: int) -> Line:
    """The line of the file's row of this number, the first below the names of the columns being 1."""
    labels = {domain: record[column] for domain, column in form.labels.items() if record[column]}
    return Line(record[form.prompt] or "", labels, _seed(name, number, record[form.seed]) if form.seed else None)


def _seed(name: str, number: int, text: str) -> int:
    try:
        seed = int(_WHOLE.sub("", text))
    except (TypeError, ValueError) as problem:
        raise BadPrompts(f'{name}, row {number}: the seed is "{text}"; expected a whole number.') from problem
    if not 0 <= seed < 2**63:
        raise BadPrompts(f"{name}, row {number}: the seed is {seed}; expected 0 or more.")
    return seed
