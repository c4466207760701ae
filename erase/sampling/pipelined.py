"""Work that follows other work: images are read and scored on a second thread while the next ones are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def follow(items: Iterable[Item], work: Callable[[Sequence[Item]], Result], *, size: int) -> list[Result]:
    """What `work` gives for each `size` items, in their order; it starts on a batch as soon as the batch is whole.

    Batches are the same however slowly the items come, so the results are those of working at the end. An error of
    either side ends both: that of `work` is raised before the next batch is asked for.
    """
    import torch

    at_work: list[Future[Result]] = []
    threads = torch.get_num_threads()  # a new thread takes its own number, and may round otherwise by it
    with ThreadPoolExecutor(1, "follow", torch.set_num_threads, (threads,)) as pool:
        try:
            for batch in batched(items, size):
                at_work.append(pool.submit(work, batch))
                for one in at_work:
                    if one.done():
                        one.result()
            return [one.result() for one in at_work]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """The items, `size` at a time; the last batch may be smaller."""
    rest = iter(items)
    while batch := tuple(islice(rest, size)):
        yield batch
