"""Several processes on one plan without talking to each other: each makes its share, the first what is missing then.

Images are files that depend on their row alone, so a process that dies loses nothing: the first one, or the same
command later, makes what it left. Started by `torchrun`, `accelerate launch` or anything that sets RANK, WORLD_SIZE.
While one lives it holds a lock on a file, which the system lets go however it ends; so the first one waits for others
that are at work, and never for one that is dead.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from erase.config.prompts import Row
from erase.edit import Edit
from erase.errors import BadOption, RunConflict
from erase.files import is_held
from erase.models import Model
from erase.sampling.generate import Progress, image_path, stream
from erase.sampling.sampler import Sampler

GRACE = 30.0  # seconds in which a process that was not seen yet may still be starting
PAUSE = 0.1  # seconds between two looks


@dataclass(frozen=True)
class Rank:
    """Which of how many processes this is; `lock_dir` is the folder in which they see of each other who lives."""

    rank: int = 0
    world: int = 1
    lock_dir: Path | None = None

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

    @contextlib.contextmanager
    def present(self) -> Iterator[None]:
        """Tells the others that this process lives, until the block or the process ends.

        Raises RunConflict if another process of this rank lives there.
        """
        if self.world == 1 or self.lock_dir is None:
            yield
            return
        self.lock_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(_lock_of(self.lock_dir, self.rank), timeout=1.0)  # others hold it for a moment to see who lives
        try:
            lock.acquire()
        except Timeout as error:
            raise RunConflict(
                f"another process with RANK {self.rank} is at work in {self.lock_dir}; wait for its end, or end it."
            ) from error
        try:
            yield
            if self.is_first:  # nobody looks any more
                for left in self.lock_dir.glob(_lock_of(self.lock_dir, "*").name):
                    with contextlib.suppress(PermissionError):  # on Windows while it is held
                        left.unlink(missing_ok=True)
        finally:
            lock.release()

    def wait_for(self, rank: int, is_done: Callable[[], bool], *, grace: float = GRACE) -> bool:
        """Whether another process did what it has to; waits until it has, or is dead.

        One that was not seen yet may take `grace` seconds to start.
        """
        began, seen = time.monotonic(), False
        while not is_done():
            lives = self.lock_dir is not None and is_held(_lock_of(self.lock_dir, rank))
            if not lives and (seen or self.lock_dir is None or time.monotonic() - began > grace):
                return is_done()
            seen = seen or lives
            time.sleep(PAUSE)
        return True


def this_rank(lock_dir: Path | None = None, environment: Mapping[str, str] | None = None) -> Rank:
    """The place that the launcher gave this process; the only one, if it was not launched.

    Raises BadOption if what the launcher said is no place.
    """
    said = os.environ if environment is None else environment
    rank, world = said.get("RANK", "0"), said.get("WORLD_SIZE", "1")
    if not (rank.isdigit() and world.isdigit()):
        raise BadOption(f'RANK is "{rank}" and WORLD_SIZE "{world}"; expected whole numbers, as torchrun sets them.')
    return Rank(int(rank), int(world), lock_dir)


def stream_share(
    model: Model,
    rows: Sequence[Row],
    folder: Path,
    *,
    place: Rank,
    edit: Edit | None = None,
    sampler: Sampler | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Row, Path]]:
    """This process's rows with their images' paths, made if they are missing; the first one's are all of the plan's.

    The first one makes its own share, waits for those that are at work, and makes what the dead left. Raises what
    `stream` raises.
    """
    if place.world == 1:
        yield from stream(model, rows, folder, edit=edit, sampler=sampler, progress=progress)
        return
    mine = stream(model, place.share(rows), folder, edit=edit, sampler=sampler, progress=progress)
    if not place.is_first:
        yield from mine
        return
    for _ in mine:
        pass
    sampled = sampler or Sampler()
    for rank in range(1, place.world):
        share = Rank(rank, place.world).share(rows)
        paths = [image_path(model, row, folder, sampler=sampled, edit=edit) for row in share]
        place.wait_for(rank, lambda paths=paths: all(path.is_file() for path in paths))  # type: ignore[misc]
    yield from stream(model, rows, folder, edit=edit, sampler=sampler, progress=progress)


def _lock_of(lock_dir: Path, rank: int | str) -> Path:
    return lock_dir / f".rank-{rank}.lock"


def anyone_in(lock_dir: Path) -> bool:
    """Whether one of several processes lives that were started together in a folder."""
    return any(is_held(path) for path in sorted(lock_dir.glob(_lock_of(lock_dir, "*").name)))
