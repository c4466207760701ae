"""Everything a report shows as plain values: one JSON, and a CSV of the figures and one of the images."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from erase.evaluate.attacked import headline
from erase.evaluate.images import ScoredImage
from erase.evaluate.metrics.figure import Figure
from erase.evaluate.result import plain
from erase.report.findings import Findings
from erase.report.verdict import not_shown, reach_verdict, without_folders

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_FIGURE_COLUMNS = ("name", "group", "side", "value", "low", "high", "n", "direction", "version")


class _Plain(csv.excel):
    lineterminator = "\n"


def everything(findings: Findings) -> dict[str, Any]:
    """The whole report as plain values, fit for JSON: what is no number is None."""
    return {
        "name": findings.name,
        "date": findings.date,
        "verdict": asdict(reach_verdict(findings)),
        "headline": headline(findings.scores.figures),
        "protocol": findings.scores.protocol,
        "task": asdict(findings.task),
        "bounds": dict(findings.bounds),
        "figures": figure_records(findings.scores.figures),
        "images": image_records(findings),
        "edit": without_folders(plain(findings.edit)),
        "recipe": without_folders(plain(findings.recipe)),
        "not_shown": not_shown(findings),
    }


def figure_records(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Every figure with its interval, without the images behind it."""
    return [plain({column: getattr(figure, column) for column in _FIGURE_COLUMNS}) for figure in figures]


def image_records(findings: Findings) -> list[dict[str, Any]]:
    """Every image: prompt, seed, what it was asked to show, what was seen in it, and its scores."""
    return [
        _image_record(findings, shot, number)
        for number, pair in enumerate(findings.pairs, start=1)
        for shot in (pair.before, pair.after)
    ]


def as_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def as_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """The records as a table whose columns are all their keys, nested ones with a dot; what is absent is empty."""
    flat = [_flat(record) for record in records]
    columns = list(dict.fromkeys(key for record in flat for key in record))
    text = io.StringIO(newline="")
    # A carriage return alone is a line's end to readers, and is not quoted by itself.
    torn = any("\r" in value for record in flat for value in record.values() if isinstance(value, str))
    style: type[csv.Dialect] = csv.unix_dialect if torn else _Plain
    writer = csv.DictWriter(text, columns, restval="", dialect=style)
    writer.writeheader()
    writer.writerows({key: harmless(value) for key, value in record.items()} for record in flat)
    return text.getvalue()


def harmless(value: Any) -> Any:
    """The value as a cell that no table program takes for a formula: text that begins like one gets an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _image_record(findings: Findings, shot: ScoredImage, number: int) -> dict[str, Any]:
    return {
        "pair": number,
        "side": shot.side,
        "group": shot.group,
        "prompt": shot.row.prompt,
        "seed": shot.row.seed,
        "file": f"{shot.path.parent.name}/{shot.path.name}",
        "missing": findings.is_missing(shot),
        "asked": dict(shot.row.labels),
        "seen": dict(findings.scores.verdicts.get(shot.id, {})),
        "scores": plain(findings.values(shot)),
    }


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        parts: Iterable[tuple[str, Any]] = value.items() if isinstance(value, Mapping) else ()
        flat |= {f"{key}.{name}": part for name, part in parts} if isinstance(value, Mapping) else {key: value}
    return flat
