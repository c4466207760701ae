"""The comparison of methods: what is scored was not asked to stay, and differences are of pairs of images."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from erase.methods.uce import UCE
from erase.task import Target, Task, names
from tests.families import Opener

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def compare() -> Iterator[ModuleType]:
    sys.path.insert(0, str(SCRIPTS))
    yield import_module("compare_methods")
    sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def square(compare: ModuleType) -> ModuleType:
    return import_module("square")


@pytest.mark.parametrize("group", ["styles-1", "objects-3", "unsafe-6"])
def test_no_prompt_that_is_scored_was_asked_to_stay(compare: ModuleType, group: str) -> None:
    for task in compare.tasks_of(group):
        erased, kept = compare.rows_for(task, quick=False)
        cells = {(row.labels["style"], row.labels["object"]) for row in kept}
        told = {prompt.removesuffix(" style").split(" in ")[-1] + prompt.split()[1] for prompt in task.kept}
        assert not {style + thing for style, thing in cells} & told
        assert {row.labels[task.domain] for row in erased} == set(task.names)
        assert not {row.labels[task.domain] for row in kept} & set(task.names)
        assert len({(row.prompt, row.seed) for row in (*erased, *kept)}) == len(erased) + len(kept)


def test_every_group_has_as_many_targets_as_it_says(compare: ModuleType) -> None:
    for group in (*compare.GROUPS, "unsafe-8", "objects-8"):
        assert {len(task.targets) for task in compare.tasks_of(group)} == {int(group[-1])}


@pytest.mark.parametrize("kind", ["styles", "objects"])
def test_options_are_chosen_on_targets_that_are_not_shown_alone(compare: ModuleType, kind: str) -> None:
    shown, other = ({name for task in compare.tasks_of(f"{kind}-{n}") for name in task.names} for n in ("1", "other"))
    assert len(other) == 2
    assert not shown & other


def test_the_harmonic_mean_and_its_interval(compare: ModuleType) -> None:
    hits = {"ua": np.array([1.0, 0.0] * 20), "ira": np.ones(40), "cra": np.ones(40)}
    means = compare.resampled([hits])
    assert means["mean"][0] == pytest.approx(3 / (2 + 1 + 1))
    low, high = compare.bounded(means["ua"])[1:]
    assert 0.3 < low < 0.42
    assert 0.58 < high < 0.7


def test_two_methods_are_compared_on_the_same_images(compare: ModuleType) -> None:
    """Where the second method fails on one image more, no resample of the same images favours it."""
    better = {"ua": np.array([1.0] * 30 + [0.0] * 10), "ira": np.ones(40), "cra": np.ones(40)}
    worse = better | {"ua": better["ua"] * (np.arange(40) != 3)}
    difference = compare.resampled([better])["mean"] - compare.resampled([worse])["mean"]
    assert difference.min() >= 0
    assert difference[0] > 0


def test_a_method_that_is_named_twice_is_measured_once(
    compare: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = []

    def compared(name: str, *given: object, **options: object) -> tuple[dict[str, object], dict[str, object], object]:
        measured.append(name)
        return {}, {"cost": {}}, {"h": None}

    monkeypatch.setattr(compare, "compared", compared)
    names = ["uce", "none", "uce", 'uce:{"lamb": 0.1}']
    wanted = {"methods": names, "quick": False, "groups": ["styles-1"], "targets": 1, "told": False, "equal": None}
    compare.compare(None, Namespace(**wanted))
    assert measured == ["uce", "none", 'uce:{"lamb": 0.1}']
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["methods"]
    assert [row["method"] for row in rows] == measured


def test_a_path_of_an_edit_changes_only_the_weights_that_read_it(compare: ModuleType, family_model: Opener) -> None:
    model, task = family_model("stable-diffusion-3"), Task([Target("Van Gogh", anchor="painting")])
    edit = UCE()(model, task)
    reads = {site.name: site.reads for site in model.sites()}
    for path in ("tokens", "pooled"):
        part = compare.along(edit, model, path)
        assert part.touches
        assert {reads[name] for name in part.touches} == {path}
    assert compare.along(edit, model, "") is edit


def test_methods_are_those_that_the_family_takes(compare: ModuleType, family_model: Opener) -> None:
    found = compare.fitting(family_model("stable-diffusion-3"))
    assert {"uce", "redirect", "dp", "esd"} <= set(found)
    assert compare.is_trained("esd")
    assert not compare.is_trained("uce")


@pytest.mark.parametrize("group", ["styles-1", "objects-3"])
def test_what_is_described_names_no_target_and_asks_for_the_same_cells(square: ModuleType, group: str) -> None:
    for task in square.tasks_of(group):
        plain, described = (square.rows_for(task, quick=False, described=asked) for asked in (False, True))
        for one, other in zip((*plain[0], *plain[1]), (*described[0], *described[1]), strict=True):
            assert (one.labels, one.seed) == (other.labels, other.seed)
        said = [word for target in task.targets for word in target.words]
        assert not [row.prompt for row in described[0] if any(names(row.prompt, word) for word in said)]


def test_the_ideal_of_a_description_is_that_of_the_anchor(square: ModuleType) -> None:
    (task, *_) = square.tasks_of("objects-1")
    row = square.rows_for(task, quick=True, described=True)[0][0]
    anchored = square.anchored(row, task)
    assert anchored.prompt == square.descriptions("object")[row.labels["style"], task.targets[0].anchor]
    assert square.anchored(row, square.tasks_of("styles-1")[1]) == row or row.labels["style"] == "twemoji"


def test_told_descriptions_are_the_trained_ones_and_not_those_that_are_asked(square: ModuleType) -> None:
    (task, *_) = square.tasks_of("objects-1")
    told = square.told_descriptions(task).targets[0]
    assert "pet that says meow" in told.words
    asked = {row.prompt for row in square.rows_for(task, quick=False, described=True)[0]}
    assert not [prompt for prompt in asked if any(names(prompt, word) for word in told.words)]
