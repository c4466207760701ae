"""A run's report: one HTML file that fetches nothing, and beside it the same as JSON and CSV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from erase.evaluate.attacked import headline
from erase.evaluate.images import GROUPS
from erase.evaluate.result import plain
from erase.files import write_atomically
from erase.report import records
from erase.report.findings import Findings
from erase.report.grid import TITLES as GROUP_TITLES
from erase.report.matrices import interference, retained, square
from erase.report.panels import HEADLINERS, Card, card, flips, lines, panels, spread
from erase.report.render import render
from erase.report.verdict import not_shown, reach_verdict, without_folders

SHOWN = 14  # pairs of a group that are shown without being asked for


@dataclass(frozen=True)
class Block:
    """A group's cards: those shown at once, and the others."""

    group: str
    title: str
    shown: tuple[Card, ...]
    more: tuple[Card, ...]


def write_report(findings: Findings, page: Path) -> tuple[Path, ...]:
    """The files written: report.json, figures.csv and images.csv beside the page, and last the page."""
    files = {page.with_name(name): text for name, text in _downloads(findings).items()}
    for path, text in (files | {page: report_html(findings)}).items():
        write_atomically(path, text)
    return (*files, page)


def report_html(findings: Findings) -> str:
    """The whole page; the same findings give the same bytes."""
    table = lines(findings)
    blocks = _blocks(findings)
    heads = [line for line in table if line.figure.name in HEADLINERS]
    return render(
        "report.html.j2",
        findings=findings,
        verdict=reach_verdict(findings),
        heads=heads,
        headline=headline(findings.scores.figures),
        lines=table,
        blocks=blocks,
        panels=list(panels(findings)),
        flips=list(flips(findings)),
        interference=interference(findings),
        square=square(findings),
        retained=retained(findings),
        images=records.image_records(findings),
        score_names=list(dict.fromkeys(figure.name for figure in findings.scores.figures if figure.items)),
        recipe=yaml.safe_dump(without_folders(plain(findings.recipe)), sort_keys=False, allow_unicode=True, width=100),
        not_shown=not_shown(findings),
        facts=facts(findings),
        files=_downloads(findings),
    )


def facts(findings: Findings) -> dict[str, str]:
    """What the run is made of, by name: method, model, hashes, sampler, prompts, versions."""
    edit, recipe = without_folders(findings.edit), without_folders(findings.recipe)
    generate = recipe.get("generate", {})
    found = {
        "measured": findings.date,
        "method": edit.get("method"),
        "options": _pairs(edit.get("options") or {}),
        "strength": edit.get("strength"),
        "base model": recipe.get("model"),
        "base model's hash": edit.get("base"),
        "edit's hash": edit.get("content"),
        "recipe's hash": recipe.get("hash"),
        "protocol": findings.scores.protocol,
        "sampler": f"DDIM, {generate.get('steps')} steps, guidance {generate.get('guidance')}" if generate else None,
        "score versions": ", ".join(dict.fromkeys(figure.version for figure in findings.scores.figures)),
        "versions": _pairs(edit.get("versions") or {}),
    }
    for selection in generate.get("prompts", ()):
        found[f"prompts {selection['name']}"] = f"sha256 {selection.get('sha256', '')}"
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def _blocks(findings: Findings) -> list[Block]:
    numbers = {pair.after.id: number for number, pair in enumerate(findings.pairs, start=1)}
    blocks = []
    for group in GROUPS:
        parts = spread([pair for pair in findings.pairs if pair.after.group == group], SHOWN)
        shown, more = (tuple(card(findings, pair, numbers[pair.after.id]) for pair in part) for part in parts)
        if shown:
            blocks.append(Block(group, GROUP_TITLES[group], shown, more))
    return blocks


def _downloads(findings: Findings) -> dict[str, str]:
    """The files that the page can save, by name."""
    return {
        "report.json": records.as_json(records.everything(findings)),
        "figures.csv": records.as_csv(records.figure_records(findings.scores.figures)),
        "images.csv": records.as_csv(records.image_records(findings)),
    }


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (None, "", [], {}))
