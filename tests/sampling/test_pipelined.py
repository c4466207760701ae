"""Work follows other work: in order, in the same batches however slowly items come, and an error ends both."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import pytest
import torch

from erase.errors import ScoreFailed
from erase.sampling.pipelined import batched, follow


def test_every_item_is_worked_on_once_in_order_and_in_batches_of_one_size() -> None:
    assert follow(iter(range(7)), tuple, size=3) == [(0, 1, 2), (3, 4, 5), (6,)]
    assert follow([], tuple, size=3) == []
    assert list(batched("abc", 2)) == [("a", "b"), ("c",)]


def test_a_batch_is_worked_on_before_the_next_item_is_made() -> None:
    worked = threading.Event()

    def items() -> Iterator[int]:
        yield from (0, 1)
        yield 2
        assert worked.wait(10)  # the first batch is done while the third item is awaited
        yield 3

    def work(batch: Sequence[int]) -> int:
        worked.set()
        return sum(batch)

    assert follow(items(), work, size=2) == [1, 5]


def test_the_second_thread_computes_with_as_many_threads_as_the_first() -> None:
    before = torch.get_num_threads()
    assert follow([0], lambda batch: torch.get_num_threads(), size=1) == [before]


def test_work_that_fails_stops_the_making() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            time.sleep(0.001)
            yield number

    def broken(batch: Sequence[int]) -> None:
        raise ScoreFailed("the detector has failed")

    with pytest.raises(ScoreFailed, match="the detector has failed"):
        follow(items(), broken, size=2)
    assert len(made) < 900


def test_making_that_fails_is_told_and_nothing_more_is_worked_on() -> None:
    worked = []

    def items() -> Iterator[int]:
        yield from range(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(items(), worked.append, size=2)
    assert worked in ([], [(0, 1)], [(0, 1), (2, 3)])
