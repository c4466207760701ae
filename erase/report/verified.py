"""The page and the grid of `erase verify`, made as a run's are: its pairs, figures and gate as `Findings`."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

from erase.config.prompts import Row
from erase.evaluate.attacked import clean_ua, figures_under_attack
from erase.evaluate.detect import Key
from erase.evaluate.images import SIDES, Group, ScoredImage, Side
from erase.evaluate.metrics.figure import Figure, mean
from erase.evaluate.metrics.figures import accuracies, canvas
from erase.evaluate.protocol import Case
from erase.evaluate.result import FILE
from erase.evaluate.score import Scores
from erase.evaluate.verify import Result
from erase.files import write_atomically
from erase.report.findings import Findings
from erase.report.grid import Pair, grid
from erase.report.page import write_report
from erase.task import DOMAINS


def write_pages(result: Result) -> tuple[Path, ...]:
    """The files written: report.json, figures.csv, images.csv, report.html and grid.png in the result's folder."""
    findings = findings_of(result)
    png = io.BytesIO()
    grid(findings.task, findings.pairs, findings.scores).save(png, "PNG")
    write_atomically(result.folder / "grid.png", png.getvalue())
    return (*write_report(findings, result.folder / "report.html"), result.folder / "grid.png")


def findings_of(result: Result) -> Findings:
    """What was verified, as a report shows it; the verdict is the gate's own.

    Figures are UA, IRA and CRA where the detectors tell concepts apart, else UA alone, by the gate's yes and no.
    """
    pairs = tuple(_pairs(result))
    shots = [shot for pair in pairs for shot in (pair.before, pair.after)]
    verdicts = {shot.id: labels for shot in shots if (labels := result.labels[shot.side].get(shot.row.key))}
    version = result.protocol.title
    figures = [*canvas(result.task, shots, verdicts), *accuracies(result.task, shots, verdicts)] if verdicts else []
    for side in () if verdicts else SIDES:
        figures += clean_ua(result.outcomes, side=side, version=version, images=result.images[side])
    figures = [*figures_under_attack(result.facts["attacks"]), *figures, *_clip(result, pairs, version)]
    missing = tuple(shot.id for shot in shots if not result.hashes.get(shot.path))
    limits, measured = result.protocol.limits, {figure.name for figure in figures}
    asked = {"ua": limits.gone, "ira": limits.kept, "cra": limits.kept}
    return Findings(
        name=f"verification of {', '.join(result.task.names)}",
        task=result.task,
        pairs=pairs,
        scores=Scores(
            tuple(figures), verdicts, missing, version, {shot.id: result.hashes[shot.path] for shot in shots}
        ),
        recipe=_recipe(result),
        edit=dict(result.facts["edit"]),
        bounds={name: bound for name, bound in asked.items() if name in measured},
        proved=result.verdict,
        date=str(json.loads((result.folder / FILE).read_text(encoding="utf-8"))["date"]),
    )


def _recipe(result: Result) -> dict[str, object]:
    sampler = asdict(result.protocol.sampler)
    return {
        "description": result.protocol.form.description,
        "model": result.facts["model"],
        "protocol": result.protocol.to_json(),
        "generate": {"steps": sampler["steps"], "guidance": sampler["guidance"]},
        "not shown": list(result.facts["not_shown"]),
    }


def _pairs(result: Result) -> list[Pair]:
    """Each image's two sides; its labels are the concepts that the protocol asks to see in it."""
    cases: dict[Key, list[Case]] = {}
    for case in result.cases:
        cases.setdefault(case.row.key, []).append(case)
    pairs = []
    for key, own in cases.items():
        labels = {case.domain: case.concept for case in own if case.domain in DOMAINS}
        row = Row(key[0], key[1], {**own[0].row.labels, **labels})
        kin = any(case.domain == result.task.domain for case in own)
        group: Group = "erased" if any(case.role == "erased" for case in own) else "kept" if kin else "unrelated"
        before, after = (
            ScoredImage(result.images[side][key].stem, row, side, group, result.images[side][key]) for side in SIDES
        )
        pairs.append(Pair(before, after))
    return pairs


def _clip(result: Result, pairs: tuple[Pair, ...], version: str) -> list[Figure]:
    """The CLIP score of both sides, by group, if the protocol measures it."""
    by_key = {pair.after.row.key: pair for pair in pairs}
    found: dict[tuple[Group, Side], dict[str, float]] = {}
    for case, one in zip(result.cases, result.outcomes, strict=True):
        if one.quality is not None:
            pair = by_key[case.row.key]
            for shot, value in zip((pair.before, pair.after), one.quality, strict=True):
                found.setdefault((shot.group, shot.side), {})[shot.id] = value
    return [
        mean(items, name="clip", group=group, side=side, direction="higher", version=version)
        for (group, side), items in found.items()
    ]
