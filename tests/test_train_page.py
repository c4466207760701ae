"""The page on training keeps its word: its table of presets is what the methods hold."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from erase import registry
from erase.methods._presets import PRESETS
from erase.models import open_model
from erase.run.options import method_with
from tests.recipes import command
from tests.tiny import tiny_stable_diffusion

PAGE = (Path(__file__).parent.parent / "docs/train.md").read_text(encoding="utf-8")
METHODS = [
    name for name in registry.known("methods") if "style" in getattr(registry.load("methods", name), "presets", {})
]

FEW = {"steps": 2, "trajectories": 1, "sampling_steps": 2}


def cells(method: str) -> str:
    """A method's presets as the page's table writes them: what all share, and in what some differ."""
    build: Any = registry.load("methods", method)
    shared = dict(build.presets["style"])
    apart: dict[str, list[str]] = {}
    for preset in PRESETS:
        changed = {key: value for key, value in build.presets[preset].items() if shared[key] != value}
        if changed:
            apart.setdefault(listed(changed), []).append(preset)
    others = "; ".join(f"{', '.join(which)}: {what}" for what, which in apart.items())
    return f"| `{method}` | {listed(shared)} | {others} |"


def listed(options: Mapping[str, Any]) -> str:
    further = options.get("further", {})
    more = {key: f" (and {count} for each further target)" for key, count in further.items()}
    given = {key: value if value != "" else "empty" for key, value in options.items() if key != "further"}
    return ", ".join(f"{key} {value}{more.get(key, '')}" for key, value in given.items())


@pytest.mark.parametrize("method", METHODS)
def test_the_table_lists_what_a_preset_sets(method: str) -> None:
    assert cells(method) in PAGE


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_builds_its_method(method: str, preset: str) -> None:
    build: Any = registry.load("methods", method)
    assert method_with(method, {"preset": preset}) == build(**build.presets[preset])


def test_the_table_has_no_other_rows() -> None:
    table = PAGE.partition("## Presets")[2].partition("\n## ")[0]
    assert table.count("\n| `") == len(METHODS) >= 12


def test_its_commands_are_taken(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_stable_diffusion(tmp_path / "models/base")
    lines = [line.partition("#")[0].strip() for line in PAGE.splitlines() if line.startswith("erase edit ")]
    assert lines
    for line in lines:
        words = shlex.split(line)[1:]
        build: Any = registry.load("methods", words[words.index("--method") + 1])
        known = {field.name for field in fields(build)}
        few = [f"{key}={value}" for key, value in FEW.items() if key in known]
        said = command(capsys, *words, *(word for one in few for word in ("--option", one)))
        assert said.code == 0, f"{line}: {said.errors}"


def test_the_table_of_the_embedded_models_presets_lists_them_all() -> None:
    own = open_model("emoji").presets
    lines = [
        f"| `{method}` | {kind} | {listed(found)} |" for method, kinds in own.items() for kind, found in kinds.items()
    ]
    assert len(lines) == 34
    for line in lines:
        assert line in PAGE
