"""Several processes on one plan without talking to each other: each makes its share, the first what is missing then.

Images are files that depend on their row alone, so a process that dies loses nothing: the first one, or the same
command later, makes what it left. Started by `torchrun`, `accelerate launch` or anything that sets RANK, WORLD_SIZE.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from erase.edit import Edit
from erase.errors import BadOption
from erase.evaluate.generate import Progress, generate
from erase.evaluate.sampler import Sampler
from erase.models import Model
from erase.prompts import Row


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is."""

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise BadOption(f"RANK is {self.rank} and WORLD_SIZE {self.world}; expected 0 <= RANK < WORLD_SIZE.")

    @property
    def is_first(self) -> bool:
        """Whether this process scores and tells."""
        return self.rank == 0

    def share(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """Every `world`-th row of the whole plan; not of what is missing, which each process sees otherwise."""
        return tuple(rows[self.rank :: self.world])


def this_place(environment: Mapping[str, str] | None = None) -> Place:
    """The place that the launcher gave this process; the only one, if it was not launched.

    Raises BadOption if what the launcher said is no place.
    """
    said = os.environ if environment is None else environment
    rank, world = said.get("RANK", "0"), said.get("WORLD_SIZE", "1")
    if not (rank.isdigit() and world.isdigit()):
        raise BadOption(f'RANK is "{rank}" and WORLD_SIZE "{world}"; expected whole numbers, as torchrun sets them.')
    return Place(int(rank), int(world))


def generate_share(
    model: Model,
    rows: Sequence[Row],
    folder: Path,
    *,
    place: Place,
    edit: Edit | None = None,
    sampler: Sampler | None = None,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Paths of this process's images, made if they are missing; the first process's are all of the plan's.

    Raises what `generate` raises.
    """
    if place.world > 1:
        model.check_prompts([row.prompt for row in rows])
        mine = generate(model, place.share(rows), folder, edit=edit, sampler=sampler, progress=progress)
        if not place.is_first:
            return mine
    return generate(model, rows, folder, edit=edit, sampler=sampler, progress=progress)
