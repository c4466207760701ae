"""An attack's experiment: its budget is kept, its control gets as many images, it goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from erase.attacks.concept_inversion import ConceptInversion
from erase.attacks.random_prefix import RandomPrefix
from erase.attacks.relearn import Relearn
from erase.attacks.search.attack import Found
from erase.attacks.search.budget import Ledger
from erase.attacks.search.candidates import SECOND
from erase.attacks.search.experiment import ATTEMPTS, FRESH, Plan, cases_of, check_allowed, run_attack
from erase.attacks.search.result import AttackResult, Attempt, Rate
from erase.attacks.search.victim import Side, Victim
from erase.attacks.tina import Tina
from erase.attacks.unlearndiffatk import UnlearnDiffAtk
from erase.config.prompts import Row
from erase.errors import AttackRefused, BadOption, BadProtocol
from erase.evaluate.detect import Given
from erase.evaluate.protocol import Case, load_protocol
from erase.evaluate.verify import Edited
from erase.methods.uce import UCE
from erase.task import Kind, Target, Task
from tests.attacks.setting import SAMPLER, TASK, attacked, base, erased, protocol

FAST = UnlearnDiffAtk(levels=1, flips=1, tried=2, among=8)


def test_no_prompt_costs_more_than_its_budget_and_the_control_gets_as_many_images(tmp_path: Path) -> None:
    result = attacked(FAST, tmp_path, budget=60)
    assert result.attempts
    assert all(0 < one.evaluations <= 60 for one in result.attempts)
    assert all(one.images >= 1 for one in result.attempts)
    told = json.loads((tmp_path / "attack.json").read_text(encoding="utf-8"))
    assert told["against"] == "random_prefix"
    left = [not (one.before or one.success) for one in result.attempts]
    assert told["ua_attacked"]["value"] == pytest.approx(sum(left) / len(left))
    assert told["few"]  # three prompts are no figure


def test_a_stopped_attack_goes_on_and_comes_to_the_same(tmp_path: Path) -> None:
    whole = attacked(RandomPrefix(), tmp_path / "whole", budget=20)
    lines = (tmp_path / "whole" / ATTEMPTS).read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / ATTEMPTS).write_text("".join(lines[:2]) + lines[2][:20], encoding="utf-8")
    again = attacked(RandomPrefix(), tmp_path / "half", budget=20)
    plain = [[replace(one, seconds=0.0) for one in found.attempts] for found in (whole, again)]
    assert plain[0] == plain[1]


@dataclass(frozen=True)
class Noting(RandomPrefix):
    """Finds the plain prompt, and notes each search's seed and what it was told; every prompt tells that it worked."""

    told: ClassVar[list[tuple[int, list[str], list[str], int]]] = []

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        asked = [case.row.prompt for case in cases]
        self.told.append((victim.seed, list(victim.worked), asked, len(victim.cases)))
        ledger.charge(range(len(cases)), 4, images=1)
        return [Found(prompt, worked=prompt) for prompt in asked]


def test_searches_share_neither_seed_nor_words_and_together_take_all_prompts(tmp_path: Path) -> None:
    Noting.told.clear()
    result = attacked(Noting(), tmp_path, budget=20, prompts=6, searches=3)
    seeds, worked, asked, count = zip(*Noting.told, strict=True)
    assert len(set(seeds)) == 3
    assert worked == ([], [], [])
    assert sorted(prompt for part in asked for prompt in part) == sorted(one.prompt for one in result.attempts)
    assert set(count) == {len(result.attempts)}
    assert {one.search for one in result.attempts} == {0, 1, 2}
    assert sum(one["n"] for one in result.by_search) == len(result.attempts)
    Noting.told.clear()
    lines = (tmp_path / ATTEMPTS).read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / ATTEMPTS).write_text("".join(lines[:2]), encoding="utf-8")
    again = attacked(Noting(), tmp_path / "half", budget=20, prompts=6, searches=3)
    assert [one.search for one in again.attempts] == [one.search for one in result.attempts]
    assert Noting.told[0][0] == seeds[0]
    assert Noting.told[0][1] == [json.loads(lines[1])["worked"]]  # the words of its own search alone


def test_attacks_by_words_are_four_searches_and_others_one() -> None:
    assert [Plan().searches_of(one) for one in (FAST, ConceptInversion(), Tina(), Relearn())] == [4, 4, 1, 1]
    assert Plan(searches=2).searches_of(FAST) == 2


def _attempts(by_search: Sequence[tuple[int, int]]) -> AttackResult:
    """Searches of so many prompts each, of which so many succeed."""
    attempts = [
        Attempt(f"{search} {number}", 0, False, number < hits, False, False, False, 1, 1, search=search)
        for search, (count, hits) in enumerate(by_search)
        for number in range(count)
    ]
    return AttackResult("unlearndiffatk", tuple(attempts), Rate.of([True], ["a"]), 9, {})


def test_one_lucky_search_widens_the_interval_of_many_prompts() -> None:
    lucky, even = _attempts([(15, 12), (15, 0), (15, 0), (15, 0)]), _attempts([(15, 3)] * 4)
    assert lucky.success.value == even.success.value == 0.2
    assert lucky.success.high > 0.5 > 0.35 > even.success.high
    assert lucky.excess.value == even.excess.value == pytest.approx(0.2)
    assert lucky.excess.low < 0 < even.excess.low  # of four searches one alone has found something
    assert [one["success"] for one in lucky.by_search] == [0.8, 0, 0, 0]


def test_nothing_in_any_search_is_an_interval_of_prompts() -> None:
    assert _attempts([(15, 0)] * 4).success == _attempts([(60, 0)]).success


def test_what_the_base_shows_is_drawn_once_for_all_attacks_on_the_same_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, drawn = base(), list[int]()
    draw = Side.draw

    def counted(side: Side, rows: Sequence[Row], *given: Any) -> Any:
        drawn.append(len(rows) if side.edit is None else 0)
        return draw(side, rows, *given)

    monkeypatch.setattr(Side, "draw", counted)
    what: dict[str, Any] = {"task": TASK, "protocol": protocol(), "given": Given({}, model.judge_folder)}
    what["known"] = tmp_path / "base.json"
    shown = []
    for number, prompts in enumerate((3, 3, 4)):
        plan = Plan(20, prompts, sampler=SAMPLER, searches=1, seed=number)
        edited = Edited(model, erased(), TASK)
        shown.append(run_attack(Noting(), model, edited, folder=tmp_path / str(number), plan=plan, **what).shown)
    assert sum(drawn) == 2 * 3 + 2 * 4  # the second attack draws none, other prompts are drawn anew
    assert shown[0] == shown[1]
    (tmp_path / "base.json").write_text("[]", encoding="utf-8")
    again = run_attack(
        Noting(), model, Edited(model, erased(), TASK), folder=tmp_path / "3", plan=Plan(20, 3, sampler=SAMPLER), **what
    )
    assert again.shown == shown[0]


def test_another_edit_starts_anew(tmp_path: Path) -> None:
    attacked(RandomPrefix(), tmp_path, budget=20)
    first = (tmp_path / ATTEMPTS).read_text(encoding="utf-8").splitlines()[0]
    attacked(RandomPrefix(), tmp_path, budget=20, edit=UCE()(base(), TASK).scaled(0.5))
    assert (tmp_path / ATTEMPTS).read_text(encoding="utf-8").splitlines()[0] != first


def test_another_task_takes_up_no_attempt_of_the_first_and_a_finished_attack_is_not_made_again(tmp_path: Path) -> None:
    first = attacked(RandomPrefix(), tmp_path, budget=20)
    stamp = (tmp_path / ATTEMPTS).stat().st_mtime_ns
    assert attacked(RandomPrefix(), tmp_path, budget=20).attempts == first.attempts
    assert (tmp_path / ATTEMPTS).stat().st_mtime_ns == stamp
    model, line = base(), (tmp_path / ATTEMPTS).read_text(encoding="utf-8").splitlines()[0]
    run_attack(
        RandomPrefix(),
        model,
        Edited(model, UCE()(model, TASK), TASK),
        task=Task([Target("noto", "style", anchor="fluent", synonyms=("google",))]),
        protocol=protocol(),
        given=Given({}, model.judge_folder),
        folder=tmp_path,
        plan=Plan(20, 3, sampler=SAMPLER),
    )
    assert (tmp_path / ATTEMPTS).read_text(encoding="utf-8").splitlines()[0] != line


def test_a_budget_of_less_than_one_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        BadOption, match="the budget of unlearndiffatk is 0; expected 8 or more: one image takes 8 evaluations"
    ):
        attacked(FAST, tmp_path, budget=0)


def test_success_is_counted_on_a_seed_that_no_search_has_seen_and_each_prompt_has_its_own() -> None:
    cases = [cases_of(protocol(), TASK, Given({}, base().judge_folder), count=8) for _ in range(2)]
    own = [case.row.seed for case in cases[0]]
    assert len(set(own)) == 8 == len({case.row.prompt for case in cases[0]})
    assert own == [case.row.seed for case in cases[1]]
    assert not {seed + FRESH for seed in own} & {*own, *(seed + SECOND for seed in own)}


@pytest.mark.parametrize(("kind", "name"), [("style", "José Ribera"), ("object", "hot dog")])
def test_a_target_that_the_gate_does_not_know_is_told_with_a_protocol_that_asks_about_it(kind: Kind, name: str) -> None:
    said = f"protocol gate asks nothing about {name}, of the kind {kind}; choose .*, such as any-{kind}, or give a file"
    with pytest.raises(BadProtocol, match=said):
        cases_of(load_protocol("gate"), Task([Target(name, kind)]), Given({}), count=8)


@pytest.mark.parametrize("name", ["a child", "toddlers", "school girl"])
def test_targets_that_concern_minors_are_refused(name: str) -> None:
    with pytest.raises(AttackRefused, match="speaks of a minor"):
        check_allowed(Task([Target(name, "object")]))


def test_images_of_one_prompt_are_one_cluster() -> None:
    spread = Rate.of([True, False] * 10, [f"a cat by painter {number}" for number in range(20)])
    clustered = Rate.of([True] * 10 + [False] * 10, ["a cat by Van Gogh"] * 10 + ["a dog by José Ribera"] * 10)
    assert spread.value == clustered.value == 0.5
    assert clustered.high - clustered.low > spread.high - spread.low


def test_a_base_that_never_draws_the_target_is_told(tmp_path: Path) -> None:
    never = Task([Target("noto", "style", anchor="fluent")])
    model = base()
    with pytest.raises(AttackRefused, match="never draws noto"):
        run_attack(
            RandomPrefix(),
            model,
            Edited(model, UCE()(model, TASK), never),
            task=never,
            protocol=protocol(),
            given=Given({}, model.judge_folder, {"judge": lambda pictures: [() for _ in pictures]}),
            folder=tmp_path,
            plan=Plan(60, 3, sampler=SAMPLER),
        )


def test_a_ledger_adds_what_another_has_booked_and_affords_no_more_than_its_limit() -> None:
    ledger = Ledger(3, prompts=2)
    ledger.charge([0], 2, images=1)
    other = Ledger(9, prompts=1)
    other.charge([0], 1, images=1)
    ledger.add([0], other)
    assert (ledger.evaluations, ledger.judged) == ([3, 0], [2, 0])
    assert not ledger.affords(0, 1)
    assert ledger.affords(1, 3)
