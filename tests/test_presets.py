"""Options that a user leaves out are the model's own presets, or else the paper's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from erase import registry
from erase.config.prompts import load_prompts
from erase.edit import Edit
from erase.errors import BadModel
from erase.evaluate.images import ScoredImage, group_of
from erase.evaluate.score import score
from erase.methods.training.trainer import Trained
from erase.models import Model, open_model
from erase.run.options import method_for, method_with
from erase.sampling.generate import generate
from erase.sampling.sampler import Sampler
from erase.task import Kind, Target, Task
from tests.recipes import command

EMOJI = open_model("emoji")
METHODS = [name for name in registry.known("methods") if issubclass(registry.load("methods", name), Trained)]  # type: ignore[arg-type]


def task(kind: Kind) -> Task:
    return Task((Target("cat", kind, "dog"),))


def made(method: str, kind: Kind, model: Model = EMOJI, **options: Any) -> Any:
    return method_for(method, options, model=model, task=task(kind))


@pytest.mark.parametrize("kind", ["style", "object"])
@pytest.mark.parametrize("method", METHODS)
def test_the_embedded_model_has_its_own_presets_of_every_trained_method(method: str, kind: Kind) -> None:
    own = {key: value for key, value in EMOJI.presets[method][kind].items() if key != "further"}
    assert made(method, kind) == method_with(method, own) != method_with(method, {"preset": kind})


def test_a_preset_is_for_one_target_and_each_further_one_adds_what_it_says() -> None:
    own = dict(EMOJI.presets["sa"]["object"])
    further, names = own.pop("further")["steps"], ("cat", "tiger", "pizza", "car", "rose", "guitar", "crown", "apple")
    eight = Task([Target(name, "object", "dog") for name in names])
    assert further > 0
    many = method_with("sa", {**own, "steps": own["steps"] + 7 * further})
    assert method_for("sa", {}, model=EMOJI, task=eight) == many
    assert method_for("sa", {"steps": 9}, model=EMOJI, task=eight) == method_with("sa", {**own, "steps": 9})
    assert method_for("esd", {}, model=EMOJI, task=eight) == made("esd", "object")


def test_its_presets_name_methods_alone() -> None:
    assert sorted(EMOJI.presets) == sorted(METHODS)


def test_the_small_stable_diffusion_3_has_presets_of_methods_that_train_what_reads_its_pooled_state() -> None:
    flow = open_model("emoji-flow")
    assert {"esd", "ca", "lora", "distil", "gem", "sa", "erasediff"} <= set(flow.presets) <= set(METHODS)
    for method, kinds in flow.presets.items():
        for kind in ("style", "object"):
            chosen = made(method, kind, flow)
            assert chosen == method_with(method, kinds[kind]) != made(method, kind)
            assert method in ("distil", "withstand") or chosen.layers == "text"


def test_unsafe_targets_have_the_presets_of_objects_where_there_are_no_others() -> None:
    assert "unsafe" not in EMOJI.presets["esd"]
    assert made("esd", "unsafe") == made("esd", "object")


def test_an_option_that_is_given_goes_before_the_models_preset() -> None:
    own = EMOJI.presets["esd"]["style"]
    assert made("esd", "style", steps=7) == method_with("esd", {**own, "steps": 7})


@pytest.mark.parametrize(("kind", "preset"), [("style", "style"), ("object", "object"), ("unsafe", "nsfw")])
def test_the_papers_values_are_still_there_for_the_asking(kind: Kind, preset: str) -> None:
    papers = method_with("esd", {"preset": preset, "steps": 7})
    assert made("esd", kind, preset="paper", steps=7) == made("esd", kind, preset=preset, steps=7) == papers


@pytest.mark.parametrize(("kind", "preset"), [("style", "style"), ("unsafe", "nsfw"), ("identity", "identity")])
def test_a_model_without_presets_has_the_papers(kind: Kind, preset: str, model: Model) -> None:
    assert model.presets == {}
    assert made("esd", kind, model) == method_with("esd", {"preset": preset})
    assert made("uce", kind, model, lamb=0.2) == method_with("uce", {"lamb": 0.2})


def test_a_command_without_options_trains_by_the_presets(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    few = {"steps": 1, "trajectories": 1, "sampling_steps": 2}
    given = [word for key, value in few.items() for word in ("--option", f"{key}={value}")]
    said = command(capsys, "edit", "--method", "esd", "-t", "noto", "-a", "fluent", *given, "-o", tmp_path / "one")
    assert said.code == 0, said.errors
    found = Edit.load(tmp_path / "one").info.options
    assert {key: found[key] for key in EMOJI.presets["esd"]["style"] if key not in few} == {
        key: value for key, value in EMOJI.presets["esd"]["style"].items() if key not in few
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("esd: {style: {stepz: 3}}", 'unknown key "stepz" in the options of esd; did you mean "steps"?'),
        ("esd: {style: {steps: many}}", "option steps of esd is 'many'"),
        ("esd: {mood: {steps: 3}}", "presets.yaml"),
        ("esd: 3", "presets.yaml"),
        ("esd: {style: {steps: 3, further: {batch: 3}}}", "further of esd is {'batch': 3}; expected whole numbers"),
        ("esd: {style: {steps: 3, further: {steps: 0.5}}}", "further of esd is {'steps': 0.5}; expected whole numbers"),
        ("esd: {style: {steps: 3, further: 4}}", "further of esd is 4; expected whole numbers"),
        ("[", "not valid YAML"),
    ],
)
def test_presets_of_a_model_that_cannot_be_used_are_told(text: str, message: str, tiny_copy: Path) -> None:
    (tiny_copy / "presets.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(BadModel) as told:
        made("esd", "style", open_model(tiny_copy))
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_presets_go_with_a_copy_of_the_model_and_change_nothing_in_its_identity(tiny_copy: Path) -> None:
    before = open_model(tiny_copy).content
    shutil.copyfile(EMOJI.path / "presets.yaml", tiny_copy / "presets.yaml")
    copied = open_model(tiny_copy)
    assert copied.content == before
    assert made("lora", "object", copied) == made("lora", "object")


def test_a_list_of_methods_says_which_have_presets(capsys: pytest.CaptureFixture[str]) -> None:
    lines = command(capsys, "list", "methods").out.splitlines()
    assert sorted(line.split()[0] for line in lines if "(presets of emoji" in line) == sorted(METHODS)


@pytest.mark.slow
def test_a_style_is_gone_by_the_presets_alone(tmp_path: Path) -> None:
    task = Task((Target("noto", "style", "fluent", prompts=("{} style", "a cat in {} style", "a car in {} style")),))
    edit = method_for("lora", {}, model=EMOJI, task=task)(EMOJI, task)
    chosen = {"style": ["noto", "blob", "twemoji"], "object": ["cat", "penguin", "apple", "pizza", "car", "house"]}
    rows = load_prompts("emoji-square").rows(seeds=[0], where=chosen)
    paths = generate(EMOJI, rows, tmp_path, edit=edit, sampler=Sampler(steps=10))
    pairs = zip(rows, paths, strict=True)
    shots = [ScoredImage(path.stem, row, "after", group_of(row, task), path) for row, path in pairs]
    scores = score(task, shots, judge=EMOJI.judge_folder)
    found = {name: figure.value for name in ("ua", "ira", "cra") if (figure := scores.find(name))}
    assert min(found.values()) >= 0.7, found
    assert len(found) == 3
