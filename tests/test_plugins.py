"""Methods, detectors and protocols of other packages and of single files are found, and refused in one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from erase import registry
from erase.edit import Edit
from erase.errors import BadPlugin, UnknownName
from tests.recipes import command, refused, tiny_recipe, write_recipe
from tests.tiny import tiny_stable_diffusion

PLUGIN = """\
from __future__ import annotations

from dataclasses import dataclass

import torch

from erase import Edit, Model, Task
from erase.edit import describe


@dataclass(frozen=True)
class NudgeKeys:
    share: float = 0.25

    def __call__(self, model: Model, task: Task) -> Edit:
        name = model.sites()[0].name
        return Edit(describe(self, model, task), deltas={name: self.share * torch.ones(model.weight(name).shape)})
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nudge_keys.py").write_text(PLUGIN, encoding="utf-8")
    return tmp_path


def recipe_of(place: Path, **edit: Any) -> Path:
    recipe = tiny_recipe(place, tiny_stable_diffusion(place / "model"))
    return write_recipe(place, recipe | {"edit": edit, "score": [], "export": []})


def install(place: Path, monkeypatch: pytest.MonkeyPatch, points: str, *, package: str = "erase-more") -> None:
    """A package with entry points, as an installer leaves it."""
    folder = place / f"site-{package}"
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    (folder / f"{package.replace('-', '_')}.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)


def test_a_pipeline_runs_a_file_that_the_command_line_names(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    recipe = recipe_of(place, method="./nudge_keys.py", options={"share": 0.5})
    said = command(capsys, "edit", recipe, "--allow", "./nudge_keys.py")
    assert said.code == 0, said.errors
    edit = Edit.load(place / "runs/mine/edit.safetensors")
    assert (edit.info.method, edit.info.options) == ("nudge_keys", {"share": 0.5})
    assert {float(delta.max()) for delta in edit.deltas.values()} == {0.5}


def test_a_pipeline_alone_runs_no_file(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "nudge_keys.py").write_text("from pathlib import Path\nPath('ran').touch()\n", encoding="utf-8")
    line = refused(capsys, "run", recipe_of(place, method="./nudge_keys.py"))
    assert "--allow ./nudge_keys.py" in line
    assert not (place / "ran").exists()


def test_another_file_than_the_one_that_was_named_is_not_run(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "other.py").write_text(PLUGIN.replace("NudgeKeys", "Other"), encoding="utf-8")
    line = refused(capsys, "run", recipe_of(place, method="./nudge_keys.py"), "--allow", "other.py")
    assert "--allow ./nudge_keys.py" in line


def test_what_one_command_named_the_next_does_not_run(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    recipe = recipe_of(place, method="./nudge_keys.py")
    assert command(capsys, "edit", recipe, "--allow", "./nudge_keys.py").code == 0
    assert "--allow" in refused(capsys, "edit", recipe, "-o", "again")


def test_a_method_that_is_a_path_needs_no_second_naming(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    model = tiny_stable_diffusion(place / "model")
    said = command(capsys, "edit", "-m", model, "-t", "Van Gogh", "--method", "./nudge_keys.py", "-o", "e.safetensors")
    assert said.code == 0, said.errors
    assert Edit.load("e.safetensors").info.method == "nudge_keys"


def test_a_run_is_refused_when_its_plug_in_has_changed(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    recipe = recipe_of(place, method="./nudge_keys.py")
    assert command(capsys, "edit", recipe, "--allow", "nudge_keys.py").code == 0
    (place / "nudge_keys.py").write_text(PLUGIN.replace("0.25", "0.75"), encoding="utf-8")
    written = place / "runs/mine/recipe.yaml"
    assert "has changed since this recipe was made" in refused(capsys, "run", written, "--allow", "nudge_keys.py")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("broken", "import nothing_of_that_name", "cannot be imported (ModuleNotFoundError"),
        ("broken", "def f(:", "cannot be imported (SyntaxError"),
        ("broken", "raise SystemExit(0)", "cannot be imported (SystemExit"),
        ("uce", PLUGIN.replace("NudgeKeys", "UCE"), 'would hide the method "uce"'),
        ("mine", PLUGIN, "holds nothing named after its file; expected a class Mine"),
        ("mine", "class Mine:\n    def __call__(self, model, task): ...", "is no dataclass"),
        ("mine", "import dataclasses\n@dataclasses.dataclass\nclass Mine:\n    x: int = 0", "has no __call__"),
        ("mine-2", PLUGIN, "letters, digits and underscores"),
    ],
)
def test_a_file_that_is_no_plug_in_is_one_line(
    capsys: pytest.CaptureFixture[str], place: Path, name: str, text: str, told: str
) -> None:
    (place / f"{name}.py").write_text(text, encoding="utf-8")
    model = tiny_stable_diffusion(place / "model")
    assert told in refused(capsys, "edit", "-m", model, "-t", "Van Gogh", "--method", f"./{name}.py")


def test_a_file_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no file" in refused(capsys, "run", "--allow", "./nowhere.py")


def test_a_method_that_returns_no_edit_is_one_line(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    text = PLUGIN[: PLUGIN.index("        name =")].replace("NudgeKeys", "Mine") + "        return 1\n"
    (place / "mine.py").write_text(text, encoding="utf-8")
    model = tiny_stable_diffusion(place / "model")
    assert "has returned a int" in refused(capsys, "edit", "-m", model, "-t", "noto", "--method", "mine.py")


def test_a_plug_in_that_fails_is_no_fault_of_ours(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    (place / "mine.py").write_text(
        PLUGIN.replace("NudgeKeys", "Mine").replace("sites()[0]", "sites()[999]"), encoding="utf-8"
    )
    model = tiny_stable_diffusion(place / "model")
    line = refused(capsys, "edit", "-m", model, "-t", "noto", "--method", "mine.py")
    assert line == "mine has failed (IndexError: tuple index out of range; ERASE_TRACEBACK=1 shows where)."


def test_an_option_of_a_plug_in_is_checked_as_any(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    given = ("edit", "-m", tiny_stable_diffusion(place / "model"), "-t", "noto", "--method", "nudge_keys.py")
    assert 'unknown key "shar"' in refused(capsys, *given, "--option", "shar=1")
    assert "option share of nudge_keys.py is 'much'" in refused(capsys, *given, "--option", "share=much")


def test_a_method_of_another_package_is_a_name_like_any(
    capsys: pytest.CaptureFixture[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(place, monkeypatch, "[erase.methods]\nnudge = erase_more:NudgeKeys\n")
    assert "nudge" in registry.known("methods")
    said = command(capsys, "edit", recipe_of(place, method="nudge"))
    assert said.code == 0, said.errors
    assert Edit.load(place / "runs/mine/edit.safetensors").info.method == "nudge"
    assert re.search(r"^nudge +\S", command(capsys, "list", "methods").out, re.MULTILINE)


@pytest.mark.parametrize(
    ("points", "name", "told"),
    [
        ("[erase.methods]\nuce = erase_more:NudgeKeys\n", "uce", 'package erase-more offers the method "uce", which'),
        ("[erase.methods]\nnudge = nowhere:Nudge\n", "nudge", "of package erase-more cannot be imported"),
        ("[erase.methods]\nnudge = erase_more:torch\n", "nudge", "is no dataclass"),
    ],
)
def test_an_entry_point_that_cannot_be_used_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch, points: str, name: str, told: str
) -> None:
    install(place, monkeypatch, points)
    with pytest.raises(BadPlugin, match=re.escape(told)):
        registry.load("methods", name)


def test_two_packages_of_one_name_are_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(place, monkeypatch, "[erase.methods]\nnudge = erase_more:NudgeKeys\n")
    install(place, monkeypatch, "[erase.methods]\nnudge = erase_else:NudgeKeys\n", package="erase-else")
    with pytest.raises(BadPlugin, match="both offer the method"):
        registry.load("methods", "nudge")


def test_a_protocol_of_another_package_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(place, monkeypatch, "[erase.protocols]\nours = erase_protocol:FILE\n")
    text = (registry.data_folder("protocols") / "gate.yaml").read_text(encoding="utf-8")
    (place / "site-erase-more/ours.yaml").write_text(text, encoding="utf-8")
    program = "from pathlib import Path\nFILE = Path(__file__).parent / 'ours.yaml'\n"
    (place / "site-erase-more/erase_protocol.py").write_text(program, encoding="utf-8")
    found = registry.find("protocols", "ours", what="protocol")
    assert yaml.safe_load(found.read_text(encoding="utf-8")) == yaml.safe_load(text)
    assert "ours" in registry.known("protocols")


def test_a_path_that_nobody_wrote_is_an_unknown_name() -> None:
    with pytest.raises(UnknownName, match="does not exist"):
        registry.load("methods", "./none.py")
