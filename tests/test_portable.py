"""Nothing rests on what only one system has: its calls, its text encoding, its locks."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from erase.export.parts.undo import undo, undo_file
from erase.models import open_model
from erase.run import steps
from tests.export.test_lora import TEXT, dense, made
from tests.recipes import contents, tiny_recipe, write_recipe
from tests.test_layout import ROOT, sources

POSIX = ("pwrite", "O_DIRECT", "fork", "posix_fadvise", "kill", "getuid")  # and the module fcntl
BINARY = ("os", "zipfile", "archive", "Image", "gzip")  # whose `open` is none of text


def opens_text_without_encoding(node: ast.AST) -> bool:
    """Whether a call reads or writes text in whatever encoding the system has."""
    if not isinstance(node, ast.Call) or any(word.arg in ("encoding", None) for word in node.keywords):
        return False
    function = node.func
    if isinstance(function, ast.Attribute) and function.attr in ("read_text", "write_text"):
        return function.attr == "write_text" or not node.args
    if isinstance(function, ast.Attribute) and function.attr == "open":
        owner, arguments = function.value, node.args
        if isinstance(owner, ast.Name) and owner.id in BINARY:
            return False
    elif isinstance(function, ast.Name) and function.id == "open":
        arguments = node.args[1:]
    else:
        return False
    mode = arguments[0] if arguments else None
    return mode is None or (isinstance(mode, ast.Constant) and "b" not in str(mode.value))


@pytest.mark.parametrize("folder", ["erase", "scripts", "tests"])
def test_every_text_file_is_opened_with_its_encoding(folder: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources(folder)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if opens_text_without_encoding(node) and isinstance(node, ast.Call)
    ]
    assert found == []


def test_every_export_and_its_undo_do_without_what_only_posix_has(
    tiny_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in POSIX:
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    model = open_model(tiny_copy)
    edit = made(model, deltas=dense(model, TEXT))
    reversal = {"folder": {"reversal": True}, "checkpoint": {"reversal": True}}
    places = {
        name: steps.export(name, model, edit, target=tmp_path / name, options=reversal.get(name, {}))
        for name in ("patch", "lora", "folder", "checkpoint")
    }
    back = contents(undo(places["folder"], tmp_path / "back"))
    assert back == {name: data for name, data in contents(tiny_copy).items() if not name.startswith("judge/")}
    assert undo_file(places["checkpoint"], tmp_path / "back.safetensors").is_file()


def test_a_run_with_accents_needs_no_utf8_of_the_system(tiny_model: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, tiny_model)
    recipe["description"] = "Malerei – für Café"
    recipe["task"]["targets"] = [{"name": "noto", "anchor": "blob", "synonyms": ["Édouard"]}]
    recipe["export"] = ["patch", "folder", "lora", "checkpoint"]
    file = write_recipe(tmp_path, recipe)
    file.write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    for words in (["run", file, "--out", tmp_path / "run"], ["inspect", tmp_path / "run/model"]):
        said = subprocess.run([sys.executable, "-m", "erase", *words], env=os.environ | plain, capture_output=True)
        assert said.returncode == 0, said.stderr.decode(errors="replace")
    assert "Édouard" in (tmp_path / "run/recipe.yaml").read_text(encoding="utf-8")
