"""The moving average of what is trained: its sum, and what a checkpoint keeps of it."""

from __future__ import annotations

import torch

from erase.methods.training.average import Average


def test_the_average_is_the_sum_of_its_decayed_past() -> None:
    values = [torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in range(6)]
    trained = {"weight": values[0].clone()}
    average = Average.of(trained, 0.9)
    for value in values[1:]:
        trained["weight"].copy_(value)
        average.follow()
    expected = 0.9**5 * values[0] + sum(0.1 * 0.9 ** (5 - number) * values[number] for number in range(1, 6))
    torch.testing.assert_close(average.values["weight"], expected, rtol=1e-12, atol=1e-12)
    assert average.state["average.weight"] is average.values["weight"]  # so that a checkpoint is read into it


def test_without_decay_it_is_what_was_trained_last() -> None:
    trained = {"weight": torch.ones(2)}
    average = Average.of(trained, 0.0)
    trained["weight"].fill_(3.0)
    assert average.values["weight"].tolist() == [1.0, 1.0]
    average.follow()
    assert average.values["weight"].tolist() == [3.0, 3.0]
