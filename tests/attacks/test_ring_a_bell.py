"""Ring-A-Bell: prompts whose states are the prompt's and the concept's, found without asking the network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from erase.attacks.ring_a_bell import RingABell, direction
from erase.attacks.search.victim import Side
from erase.errors import BadOption
from erase.methods.closed_form.states import prompt_pairs
from erase.task import names
from tests.attacks.setting import SAMPLER, TASK, attacked, base

FAST = RingABell(tokens=3, population=6, generations=2, images=2)


def test_prompts_do_not_name_the_target_and_only_images_cost(tmp_path: Path) -> None:
    result = attacked(FAST, tmp_path, budget=40)
    assert result.attempts
    for one in result.attempts:
        assert not names(one.text, "noto")
        assert one.evaluations == 8 * one.images


def test_the_direction_is_the_mean_difference_of_the_phrasings_states() -> None:
    side = Side.load(base(), None, SAMPLER)
    pipe = side.pipe

    def states(text: str) -> torch.Tensor:
        ids = pipe.tokenizer(
            text, padding="max_length", max_length=pipe.tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            return pipe.text_encoder(ids)[0][0].double()

    class Asked:
        task = TASK

    wanted = torch.stack([states(one) - states(other) for one, other in prompt_pairs(TASK.targets)]).mean(0)
    assert torch.allclose(direction(Asked(), side).states.double(), wanted, atol=1e-5)  # type: ignore[arg-type]


def test_options_out_of_range_are_told_by_name() -> None:
    with pytest.raises(BadOption, match="mutation is 2; expected a number from 0 to 1"):
        RingABell(mutation=2)
