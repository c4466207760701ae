"""Attacks of runs and verifications are told of everywhere, proved by their attempts, and refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import erase
from erase.evaluate.attacked import clean_ua, headline
from erase.evaluate.gate import Outcome
from erase.evaluate.metrics.figure import Figure
from erase.evaluate.result import FILE, read_result
from erase.evidence.check import check_pack
from erase.evidence.pack import Beside, seal, write_pack
from erase.evidence.stored import EDIT
from erase.files import content_hash
from erase.run import steps
from erase.run.pipeline import load_pipeline, resolve
from erase.run.store import Run, run_in
from tests.recipes import command, refused, tiny_recipe, write_recipe

PROTOCOL = """\
version: "1"
description: a test
source: a test
detector: {name: judge, version: emoji-v1}
sampler: {steps: 4, guidance: 4.0, batch: 8}
prompts:
  - {role: erased, aspect: name, templates: ["a {object} in {word} style"], axes: {object: [cat, dog, house]}}
  - {role: kept, aspect: others, set: emoji-square, of: others, limit: 3}
attack: [{name: random_prefix, budget: 16, prompts: 3}]
"""
ATTACK = "attacks/random_prefix-16/attack.json"


class Silent:
    def begin(self, step: str, text: str) -> None:
        pass

    def count(self, text: str, done: int, total: int, *, unit: str = "images", note: str = "") -> None:
        pass


def emoji_recipe(place: Path, **changes: Any) -> dict[str, Any]:
    """A run of the embedded model by a protocol of few prompts and steps that asks for one attack."""
    (place / "short.yaml").write_text(PROTOCOL, encoding="utf-8")
    own = {
        "name": "mine",
        "model": "emoji",
        "task": {"kind": "style", "targets": [{"name": "noto", "anchor": "fluent"}]},
        "edit": {"method": "uce"},
        "verify": {"protocol": str(place / "short.yaml")},
        "gate": None,
    }
    return own | changes


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run with its protocol's attack; do not change it."""
    place = tmp_path_factory.mktemp("attacked")
    run = run_in(resolve(load_pipeline(str(write_recipe(place, emoji_recipe(place))))), place / "run")
    run.begin()
    assert steps.do_all(run, Silent())
    return run


@pytest.fixture
def pack(attacked: Run, tmp_path: Path) -> Path:
    write_pack(attacked.folder, tmp_path / "pack", Beside(edit=attacked.folder / EDIT))
    return tmp_path / "pack"


def figure(name: str, value: float, version: str = "v") -> Figure:
    return Figure(name, "erased", "after", value, value / 2, (1 + value) / 2, 60, "higher", version)


def test_the_headline_is_ua_under_attack_with_clean_ua_beside_it_or_says_that_nobody_attacked() -> None:
    clean = figure("ua", 0.9)
    said = "90.0 % (45.0 to 95.0, n = 60)"
    assert headline([clean]) == f"clean UA {said}, not attacked"
    assert headline([clean, figure("ua_attacked", 0.4, "p4d, 1000 evaluations a prompt")]) == (
        f"UA under p4d, 1000 evaluations a prompt 40.0 % (20.0 to 70.0, n = 60), clean UA {said}"
    )
    assert headline([]) == ""


def test_clean_ua_counts_an_image_in_which_any_question_finds_the_target_or_nobody_can_look() -> None:
    def asked(seed: int, after: bool | None) -> Outcome:
        return Outcome("a cat by José", seed, "erased", "name", "José", True, after)

    (found,) = clean_ua([asked(0, False), asked(0, True), asked(1, False), asked(2, None), asked(3, False)])
    assert (found.value, found.n) == (0.5, 4)


def test_the_same_headline_is_in_result_report_and_card_and_is_printed(
    attacked: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    text = read_result(attacked.result_file)["headline"]
    assert text.startswith("UA under random_prefix, 16 evaluations a prompt ")
    assert text in (attacked.folder / "model/README.md").read_text(encoding="utf-8")
    assert json.loads((attacked.folder / "report.json").read_text(encoding="utf-8"))["headline"] == text
    assert text in attacked.report_file.read_text(encoding="utf-8")
    said = command(capsys, "run", attacked.folder.parent / "mine.yaml", "--out", attacked.folder)
    assert (said.code, "nothing was left to do" in said.out) == (0, True)
    assert text in said.out
    assert "random_prefix-16 brings the target back in" in said.out


def test_a_pack_carries_the_attacks_and_is_sound(attacked: Run, pack: Path) -> None:
    assert check_pack(pack).problems == ()
    assert (pack / ATTACK).read_bytes() == (attacked.folder / ATTACK).read_bytes()
    page = (pack / "evidence.html").read_text(encoding="utf-8")
    assert read_result(pack / FILE)["headline"] in page
    assert "random_prefix-16 brings the target back in" in page


@pytest.mark.parametrize("forged", ["an attempt", "the headline", "the figures", "an attack more", "none"])
def test_a_forged_attack_is_caught(pack: Path, forged: str) -> None:
    told = json.loads((pack / FILE).read_text(encoding="utf-8"))
    stored = json.loads((pack / ATTACK).read_text(encoding="utf-8"))
    if forged == "an attempt":
        stored["attempts"][0]["success"] = not stored["attempts"][0]["success"]
    elif forged == "the headline":
        told["headline"] = told["headline"].replace("UA under", "UA against")
    elif forged == "the figures":
        told["attacks"][0]["ua_attacked"]["low"] = 0.123
    elif forged == "an attack more":
        told["attacks"].append({**told["attacks"][0], "title": "gcg-1000"})
    else:
        told["attacks"] = []
    (pack / ATTACK).write_text(json.dumps(stored), encoding="utf-8")
    del told["digest"]
    (pack / FILE).write_text(json.dumps(told | {"digest": content_hash(told)}), encoding="utf-8")
    seal(pack, images=True, date=json.loads((pack / "manifest.json").read_text(encoding="utf-8"))["dates"]["packed"])
    names = {name for name, _ in check_pack(pack).problems}
    assert names & {"attacks", "budget"}, names


def test_verify_makes_and_prints_the_attacks_of_its_protocol(
    attacked: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short.yaml").write_text(PROTOCOL, encoding="utf-8")
    said = command(
        capsys, "verify", attacked.edit_file, "--protocol", tmp_path / "short.yaml", "-o", tmp_path / "verified"
    )
    told = read_result(tmp_path / "verified" / FILE)
    assert told["headline"].startswith("UA under random_prefix")
    assert told["headline"] in said.out
    assert "random_prefix-16 brings the target back in" in said.out


def test_a_program_that_verifies_makes_the_attacks_of_its_protocol_too(attacked: Run, tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text(PROTOCOL, encoding="utf-8")
    result = erase.verify(attacked.edit_file, protocol=tmp_path / "short.yaml", out=tmp_path / "verified")
    assert [one["title"] for one in result.facts["attacks"]] == ["random_prefix-16"]
    assert (tmp_path / "verified" / ATTACK).is_file()


def test_a_base_that_never_draws_the_target_is_told_beside_the_clean_figures(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny_recipe(tmp_path, tiny_model) | {"attack": {"name": "random_prefix", "budget": 4, "prompts": 2}}
    path, line = write_recipe(tmp_path, recipe), "the attack random_prefix-4 was not run: the base model never draws"
    said = command(capsys, "run", path, "--out", tmp_path / "run")
    assert line in said.out
    told = read_result(tmp_path / "run" / FILE)
    assert told["attacks"] == []
    assert [one for one in told["not_shown"] if line in one] != []
    assert told["headline"].startswith("clean UA ")
    assert "nothing was left to do" in command(capsys, "run", path, "--out", tmp_path / "run").out


@pytest.mark.parametrize(
    ("attack", "said"),
    [("unlearndifatk", "unlearndiffatk"), ({"name": "p4d", "budget": 7}, "expected 8 or more")],
)
def test_what_can_be_known_is_refused_in_one_line_before_any_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], attack: Any, said: str
) -> None:
    path = write_recipe(tmp_path, emoji_recipe(tmp_path, attack=attack))
    assert said in refused(capsys, "run", path, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
