"""The functions of the package do what the commands do, and its values say what they are."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

import erase
from erase import api
from erase.errors import BadOption, BadPlugin, GateFailed
from erase.methods.uce import UCE
from erase.models import Model
from tests.recipes import command, contents, tiny_recipe, write_recipe

PLUGIN = """\
from erase.methods.uce import UCE

class Mine(UCE):
    pass
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_edit_is_that_of_the_command(capsys: pytest.CaptureFixture[str], model: Model) -> None:
    given = ("-t", "Van Gogh", "-t", "noto", "-a", "blob", "-k", "object:cat", "--option", "lamb=0.25")
    said = command(capsys, "edit", "-m", model.path, *given, "--method", "uce", "-o", "theirs.safetensors")
    assert said.code == 0, said.errors
    targets = [erase.Target(name, anchor="blob") for name in ("Van Gogh", "noto")]
    ours = erase.edit(model, erase.Task(targets, keeps=["object:cat"]), method="uce", lamb=0.25)
    assert ours.content == erase.Edit.load("theirs.safetensors").content
    assert ours.content == erase.edit(model.path, erase.Task(targets, ["object:cat"]), method=UCE(lamb=0.25)).content


def test_targets_are_given_by_their_names(model: Model) -> None:
    made = erase.edit(model, "noto", method="uce")
    assert made.content == erase.edit(model, [erase.Target("noto")], method="uce").content


def test_options_beside_a_method_that_has_its_own_are_refused(model: Model) -> None:
    with pytest.raises(BadOption, match="not both"):
        erase.edit(model, "noto", method=UCE(), lamb=1.0)


def test_a_method_of_a_file_is_run_where_it_is_named(model: Model, place: Path) -> None:
    (place / "mine.py").write_text(PLUGIN, encoding="utf-8")
    assert erase.edit(model, "noto", method="./mine.py").info.method == "mine"
    recipe = tiny_recipe(place, model.path) | {"edit": {"method": "./mine.py"}}
    with pytest.raises(BadPlugin, match="--allow"):
        erase.run(recipe)


def test_a_run_is_that_of_the_command(capsys: pytest.CaptureFixture[str], model: Model, place: Path) -> None:
    recipe = tiny_recipe(place, model.path)
    code = command(capsys, "run", write_recipe(place, recipe), "-o", "theirs").code
    ours = erase.run(recipe, out="ours", check=False)
    assert ours.folder == Path("ours")
    theirs = contents(place / "theirs")
    assert theirs["edit.safetensors"] == contents(ours.folder)["edit.safetensors"]
    assert {name for name in theirs if name.endswith(".png")} == {
        name for name in contents(ours.folder) if name.endswith(".png")
    }
    if code == 3:
        with pytest.raises(GateFailed):
            erase.run("mine.yaml", out="ours")
    else:
        assert erase.run("mine.yaml", out="ours").folder == ours.folder


def test_a_verdict_is_that_of_the_command(capsys: pytest.CaptureFixture[str], model: Model, place: Path) -> None:
    prompts = [{"role": "erased", "aspect": "name", "templates": ["a cat in {word} style"], "fill": "names"}]
    protocol = {"version": "1", "description": "d", "source": "a test", "sampler": {"steps": 2, "batch": 2}}
    protocol |= {"detector": {"name": "judge", "version": "emoji-v1"}, "prompts": prompts}
    (place / "small.yaml").write_text(yaml.safe_dump(protocol), encoding="utf-8")
    edit = erase.edit(model, "noto", method="uce")
    edit.save("noto.safetensors")
    given = ("noto.safetensors", "--base", model.path, "--protocol", "small.yaml", "-o", "theirs")
    said = command(capsys, "verify", *given)
    ours = erase.verify(edit, model, protocol="small.yaml", out="ours")
    assert ours.verdict.exit_code == said.code
    assert contents(place / "ours").keys() == contents(place / "theirs").keys()


def test_a_part_of_the_package_and_the_function_of_its_name_are_one(model: Model) -> None:
    for name in ("edit", "export", "run"):
        part: Any = importlib.import_module(f"erase.{name}")
        assert getattr(erase, name) is part
        assert inspect.signature(part) == inspect.signature(getattr(api, name))
    assert erase.verify is api.verify


def test_values_say_what_they_are(model: Model) -> None:
    target = erase.Target("Van Gogh", anchor="painting", synonyms=("Vincent",))
    assert repr(target) == "Target('Van Gogh' -> 'painting', style, 1 synonyms)"
    task = erase.Task([target, "noto"], keeps=["blob"], prompts=["a cat"])
    assert repr(task) == "Task('Van Gogh' -> 'painting', 'noto' -> 'nothing'; style, 1 keeps, 1 prompts kept)"
    assert repr(model) == f"StableDiffusion('tiny', {len(model.sites())} sites)"
    edit = erase.edit(model, task, method="uce")
    said = f"Edit(Van Gogh, noto; uce, {len(edit.touches)} weights by rank {edit.rank}, base {model.fingerprint[:12]})"
    assert repr(edit) == said
