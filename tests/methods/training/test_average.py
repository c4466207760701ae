"""Averages of what is trained: their sums, and what a checkpoint keeps of them."""

from __future__ import annotations

import torch

from erase.methods.training.average import Average, Soup


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


def test_a_soup_is_the_mean_of_what_trainings_end_in_and_kept_beside_the_average() -> None:
    trained = {"weight": torch.zeros(2)}
    average = Average.of(trained, 0.0)
    soup = Soup.of(average, 3)
    for number, end in enumerate(([1.0, 0.0], [2.0, 6.0], [6.0, 0.0])):
        trained["weight"].copy_(torch.tensor(end))
        average.follow()
        soup.take(number)
    assert soup.values["weight"].tolist() == [3.0, 2.0]
    assert soup.state["soup.weight"] is soup.values["weight"]
    assert soup.state["average.weight"] is average.values["weight"]
    average.begin()
    assert average.values["weight"].tolist() == [6.0, 0.0]


def test_of_one_training_the_soup_is_the_average_and_takes_no_more_memory() -> None:
    average = Average.of({"weight": torch.ones(2)}, 0.9)
    soup = Soup.of(average, 1)
    soup.take(0)
    assert soup.values["weight"] is average.values["weight"]
    assert list(soup.state) == ["average.weight"]
