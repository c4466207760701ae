"""UnlearnDiffAtk: words under which the edited network denoises the concept, found within a budget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from erase.attacks import unlearndiffatk
from erase.attacks.search.attack import Found
from erase.attacks.search.budget import Ledger
from erase.attacks.search.candidates import Candidate, Propose
from erase.attacks.search.victim import Victim
from erase.attacks.unlearndiffatk import Search, UnlearnDiffAtk
from erase.config.prompts import Row
from erase.errors import BadOption
from erase.evaluate.protocol import Case
from tests.attacks.setting import TASK, attacked, base, hidden

FAST = UnlearnDiffAtk(levels=2, flips=2, tried=3, among=16)


def test_what_is_found_is_the_prompt_with_words_in_front(tmp_path: Path) -> None:
    result = attacked(FAST, tmp_path, budget=80)
    assert result.attempts
    for one in result.attempts:
        assert one.text.endswith(one.prompt)


def test_a_model_that_only_hides_the_concept_is_attacked_through_its_guard(tmp_path: Path) -> None:
    result = attacked(FAST, tmp_path, budget=80, edit=hidden())
    assert result.success.n == len(result.attempts)


def test_options_out_of_range_are_told_by_name() -> None:
    with pytest.raises(BadOption, match="flips is 0; expected 1 or more"):
        UnlearnDiffAtk(flips=0)


def search_of(
    monkeypatch: pytest.MonkeyPatch, score: Callable[[str], float], *, starts: int, budget: int, prompts: int = 2
) -> tuple[Search, list[tuple[str, ...]]]:
    """A search whose images cost 10 and are judged by a function of the text, and what it looks at, time by time."""
    looked: list[tuple[str, ...]] = []

    def judged(victim: Victim, cases: list[Case], ledger: Ledger, *, propose: Propose) -> list[Found]:
        texts = [candidate.text for number in range(len(cases)) if (candidate := propose(number, 0))]
        ledger.charge(range(len(cases)), 10, images=1)
        looked.append(tuple(texts))
        return [Found(text, score(text) > 1, score(text), text if score(text) > 1 else "") for text in texts]

    monkeypatch.setattr(unlearndiffatk, "try_out", judged)
    monkeypatch.setattr(unlearndiffatk, "in_front", lambda case, text: Candidate(text, 0, text))
    side = SimpleNamespace(tokenizer=base().pipeline().tokenizer, image_cost=10)
    victim = Victim(side, side, TASK, None, Path())  # type: ignore[arg-type]
    cases = [SimpleNamespace(row=Row(f"prompt {number}", number)) for number in range(prompts)]
    options, ledger = UnlearnDiffAtk(starts=starts), Ledger(budget, prompts=prompts)
    found = [Found("", False, 0.1)] * prompts
    return Search(options, victim, cases, ledger, range(prompts), found), looked  # type: ignore[arg-type]


def test_it_starts_from_the_random_words_in_which_the_judge_sees_most(monkeypatch: pytest.MonkeyPatch) -> None:
    search, looked = search_of(monkeypatch, lambda text: len(text) / 100, starts=5, budget=400)
    search.start()
    assert len(looked) == 5
    for number in range(2):
        seen = [texts[number] for texts in looked]
        assert len(set(seen)) == 5
        most = max(map(len, seen))
        assert len(search.vocabulary.text(search.words[number])) == most
        assert len(search.found[number].text) == most  # what the judge has seen most of, until something is found


def test_what_it_starts_from_takes_a_quarter_of_the_budget_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    search, looked = search_of(monkeypatch, lambda text: 0.0, starts=5, budget=119)
    search.start()
    assert len(looked) == 2
    assert search.ledger.evaluations == [20, 20]


def test_words_that_work_for_one_prompt_are_tried_on_the_others_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    search, looked = search_of(monkeypatch, lambda text: 0.0, starts=3, budget=400, prompts=3)
    search.start()
    first = looked[0][1]
    search, looked = search_of(monkeypatch, lambda text: 2.0 * (text == first), starts=3, budget=400, prompts=3)
    search.start()
    assert looked[0][1] == first
    assert looked[1] == (first, first)
    assert [one.seen for one in search.found] == [True, True, True]
    assert [texts for texts in looked if texts] == looked[:2]


def test_what_is_left_of_the_budget_goes_to_random_words_until_something_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search, looked = search_of(monkeypatch, lambda text: 0.0, starts=0, budget=59)
    search.spend()
    assert len(looked) == 4  # an image takes 10, and each is let to have a second look
    assert search.ledger.evaluations == [40, 40]
    first = looked[1][0]
    search, looked = search_of(monkeypatch, lambda text: 2.0 * (text == first), starts=0, budget=59)
    search.spend()
    assert len(looked) == 3  # what has worked for the one prompt is tried on the other
    assert [one.seen for one in search.found] == [True, True]


def test_a_budget_that_no_exchange_can_be_had_for_is_spent_all_the_same(tmp_path: Path) -> None:
    result = attacked(UnlearnDiffAtk(), tmp_path, budget=60, prompts=3)  # two images take 16
    spent = [one.evaluations for one in result.attempts if not one.worked]
    assert spent
    assert min(spent) > 60 - 16
