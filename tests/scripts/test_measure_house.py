"""The house's own measure: its walk exists in the code, and what it counts can be counted wrong."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.loading import load_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def house() -> Any:
    return load_script(ROOT / "scripts/measure_house.py")


def test_each_hop_of_the_walk_calls_the_next(house: Any) -> None:
    for (file, name), (_, called) in pairwise(house.ROUTE):
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        body = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)
        assert called in {node.id for node in ast.walk(body) if isinstance(node, ast.Name)}, (name, called)


def test_circles_are_found_and_straight_lines_are_not(house: Any) -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert house.circles(graph) == [["b", "c"]]
    assert house.circles({"a": {"b"}, "b": set()}) == []


def test_a_private_import_from_another_folder_is_counted_and_one_from_its_own_is_not(house: Any) -> None:
    tree = ast.parse("from erase.cli._app import app")
    assert house.private_across(ROOT / "erase/cli/run.py", tree) == []
    assert len(house.private_across(ROOT / "erase/report/page.py", tree)) == 1


def test_the_house_has_no_circle_and_no_private_import_across() -> None:
    printed = subprocess.run(
        [sys.executable, "scripts/measure_house.py", "--quick"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    figures = json.loads(printed.stdout.splitlines()[-1])
    assert figures["circles"] == 0
    assert figures["circles_with_lazy"] == []
    assert figures["private_imports_across"] == 0
    assert figures["hops_prompt_to_pixel"] <= 5
