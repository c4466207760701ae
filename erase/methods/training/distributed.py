"""Where training computes: the device, and the processes that share its samples, as accelerate finds them.

A network's samples do not see each other, so each of several processes computes some rows of a batch and is told the
other rows. All of them then have the whole batch: draws and losses are everywhere the same, and the gradients, of which
each process has what flows through its own rows, add up to those that one process would have.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

_Value = TypeVar("_Value")


def trains_together(environment: Mapping[str, str] | None = None) -> bool:
    """Whether `torchrun` or `accelerate launch` started several processes that can talk to each other."""
    said = os.environ if environment is None else environment
    return said.get("WORLD_SIZE", "1") != "1" and bool(said.get("MASTER_ADDR"))


@dataclass(frozen=True)
class Machine:
    """A device, and which of how many processes this is."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @staticmethod
    def here() -> Machine:
        """CUDA where it is there, else the CPU; with the other processes if there are some to talk to."""
        is_cpu = not torch.cuda.is_available()
        if not trains_together():
            return Machine(torch.device("cpu" if is_cpu else "cuda"))
        from accelerate import PartialState

        state = PartialState(cpu=is_cpu)
        atexit.register(state.destroy_process_group)  # its threads abort a process whose interpreter ended before them
        return Machine(state.device, state.process_index, state.num_processes)

    def rows(self, count: int, compute: Callable[[slice], Tensor]) -> Tensor:
        """All `count` rows [count, ...], of which each process computes some; gradients flow through its own."""
        if self.world == 1:
            return compute(slice(0, count))
        size = -(-count // self.world)
        start, stop = min(self.rank * size, count), min((self.rank + 1) * size, count)
        if start == stop:  # no row is left: a dummy row, so that every rank contributes a gradient
            idle = compute(slice(0, 1))
            return self._all(idle.detach()[:0], size)[:count] + 0 * idle
        own = compute(slice(start, stop))
        every = self._all(own.detach(), size)
        return torch.cat([every[:start], own, every[stop:count]])

    def _all(self, own: Tensor, size: int) -> Tensor:
        """Every process's rows, [world * size, ...]; those that are fewer than `size` are filled up with zeros."""
        from accelerate.utils import gather

        filled = torch.cat([own, own.new_zeros(size - len(own), *own.shape[1:])])
        every: Tensor = gather(filled)
        return every

    def summed(self, value: Tensor) -> Tensor:
        """The sum of what the processes have, [...]."""
        if self.world == 1:
            return value
        from accelerate.utils import reduce

        total: Tensor = reduce(value, "sum")
        return total

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Makes each parameter's gradient the sum over the processes."""
        for parameter in parameters if self.world > 1 else ():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = self.summed(gradient)

    def of_first(self, find: Callable[[], _Value]) -> _Value:
        """What the first process finds, in all of them."""
        if self.world == 1:
            return find()
        from accelerate.utils import broadcast_object_list

        found: list[Any] = [find() if self.rank == 0 else None]
        value: _Value = broadcast_object_list(found)[0]
        return value
