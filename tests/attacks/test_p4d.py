"""P4D: free words between those of the prompt, or alone, found by the gradient at the nearest words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from erase.attacks.p4d import P4D, nearest
from erase.errors import BadOption
from erase.task import names
from tests.attacks.setting import attacked

FAST = P4D(levels=1, steps=2)


def test_the_prompts_words_stay_in_their_order_with_free_ones_between(tmp_path: Path) -> None:
    result = attacked(FAST, tmp_path, budget=40)
    assert result.attempts
    for one in result.attempts:
        words = iter(one.text.split())
        assert all(word in words for word in one.prompt.split())
        assert one.evaluations <= 40


def test_free_words_alone_do_not_name_the_target(tmp_path: Path) -> None:
    result = attacked(P4D(form="n", tokens=3, levels=1, steps=2), tmp_path, budget=40)
    assert result.attempts
    assert not any(names(one.text, "noto") for one in result.attempts if one.text != one.prompt)


def test_the_nearest_word_is_by_cosine() -> None:
    table = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    assert nearest(torch.tensor([[[3.0, 1.0], [0.1, 0.2]]]), table).tolist() == [[0, 1]]


def test_options_out_of_range_are_told_by_name() -> None:
    with pytest.raises(BadOption, match="rate is 0; expected more than 0"):
        P4D(rate=0)
