"""Attacks in pipelines: made after the images, read by the scores, and the first figure of every table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from erase.attacks.search import experiment
from erase.config.drawing import AttackForm
from erase.context import in_silence
from erase.errors import AttackRefused, BadOption, BadPipeline, UnknownName
from erase.evaluate.attacked import figures_under_attack, place_of, read_attacks, strongest
from erase.evaluate.detect import Given
from erase.evaluate.edited import Edited
from erase.evaluate.protocol import load_protocol
from erase.models import open_model
from erase.report.table import figures_line
from erase.run import steps
from erase.run.attacks import attack_all, check_attacks
from erase.run.pipeline import load_pipeline, resolve
from erase.run.store import Run, run_in
from erase.sampling.sampler import Sampler
from erase.task import Target, Task

SMALL = {
    "attack": [{"name": "seed_search", "budget": 16, "prompts": 2}, {"name": "paraphrase", "budget": 16, "prompts": 2}],
    "generate.steps": 4,
    "generate.seeds": [0],
    "grid": None,
    "export": [],
    "gate": None,
}
TASK = Task([Target("noto", "style", anchor="fluent")])


class Silent:
    def begin(self, step: str, text: str) -> None:
        pass

    def count(self, text: str, done: int, total: int, *, unit: str = "images", note: str = "") -> None:
        pass


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = resolve(load_pipeline("erase-style-attacked", SMALL))
    made = run_in(recipe, tmp_path_factory.mktemp("attacked") / "run")
    made.begin()
    steps.do_all(made, Silent())
    return made


def test_a_run_leaves_each_attack_and_its_figures(run: Run) -> None:
    told = json.loads(run.result_file.read_text(encoding="utf-8"))
    assert [one["attack"] for one in told["attacks"]] == ["seed_search", "paraphrase"]
    assert "not attacked" not in " ".join(told["not_shown"])
    fixed = json.loads(run.fixed_file.read_text(encoding="utf-8"))
    assert fixed["budget"]["attacks"]["paraphrase-16"]["prompts"] == 2
    assert set(told["hashes"]["steps"]) == {"edit", "generate", "attack", "score"}


def test_the_first_figure_is_that_under_the_strongest_attack(run: Run) -> None:
    scores = steps.read_scores(run)
    worst = strongest(read_attacks(run.folder, run.recipe.attack))
    assert worst is not None
    assert scores.figures[0].name == "ua_attacked"
    assert scores.figures[0].value == worst["ua_attacked"]["value"]
    assert figures_line(scores).startswith("UA under ")


def test_nothing_is_attacked_twice(run: Run) -> None:
    assert not steps.do_all(run, Silent())


def test_another_budget_attacks_anew_and_draws_nothing_else_anew(run: Run) -> None:
    other = run_in(resolve(load_pipeline("erase-style-attacked", SMALL | {"attack.0.budget": 24})), run.folder)
    assert other.stale[0] == "attack"
    assert not steps.is_done("attack", other)
    assert steps.is_done("generate", other)


def test_of_several_attacks_the_one_that_leaves_least_counts() -> None:
    def attack(name: str, value: float) -> dict[str, object]:
        return {"attack": name, "budget": 10, "ua_attacked": {"value": value, "low": 0.0, "high": 1.0, "n": 8}}

    found = figures_under_attack([attack("gcg", 0.75), attack("p4d", 0.5), attack("tina", 0.9)])
    assert [(one.value, one.n) for one in found] == [(0.5, 8)]
    assert "p4d" in found[0].version
    assert figures_under_attack([]) == []


def test_an_attack_with_options_has_a_place_of_its_own() -> None:
    plain, other = AttackForm(name="gcg"), AttackForm(name="gcg", options={"tokens": 4})
    assert place_of(Path("run"), plain) == Path("run/attacks/gcg-1000")
    assert place_of(Path("run"), other) != place_of(Path("run"), plain)
    parted = AttackForm(name="gcg", searches=2)
    assert place_of(Path("run"), parted) != place_of(Path("run"), plain)
    assert "searches" not in plain.model_dump(mode="json")  # as in protocols of before there was such a key
    assert parted.model_dump(mode="json")["searches"] == 2


def test_attacks_get_their_own_searches_and_share_what_the_base_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(experiment, "run_attack", lambda *of, **what: made.append(what))
    gate, forms = load_protocol("gate"), (AttackForm(name="gcg", searches=2), AttackForm(name="p4d"))
    protocol = replace(gate, form=gate.form.model_copy(update={"attack": forms}))
    model = open_model("emoji")
    what: Any = {"task": TASK, "given": Given({}, model.judge_folder), "folder": tmp_path, "report": in_silence}
    attack_all(model, Edited(model, None, TASK), protocol, **what)
    assert [one["plan"].searches for one in made] == [2, None]
    assert {one["known"] for one in made} == {tmp_path / "attacks" / "base.json"}


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"attack": ["unlearndiffatck"]}, UnknownName, "unlearndiffatck"),
        ({"attack": [{"name": "gcg", "budget": 0}]}, BadPipeline, "budget"),
        ({"attack": ["gcg"], "score": [], "gate": None}, BadPipeline, "so do attacks"),
    ],
)
def test_what_cannot_be_attacked_is_told_before_anything_is_made(
    changes: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        resolve(load_pipeline("erase-style-attacked", changes))


def test_budgets_and_options_are_checked_before_images_are_made() -> None:
    with pytest.raises(BadOption, match="budget of gcg is 10; expected 20 or more"):
        check_attacks([AttackForm(name="gcg", budget=10)], TASK, Sampler(steps=10, guidance=4.0))
    with pytest.raises(BadOption, match="toks"):
        check_attacks([AttackForm(name="gcg", options={"toks": 2})], TASK, Sampler(steps=10))
    with pytest.raises(AttackRefused, match="speaks of a minor"):
        check_attacks([AttackForm(name="gcg")], Task([Target("a child", "object")]), Sampler(steps=10))
