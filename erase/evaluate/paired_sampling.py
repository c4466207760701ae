"""Both sides of a run's images, read by the judge's networks while the next ones are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from erase.config.prompts import Row
from erase.edit import Edit
from erase.errors import BadEdit
from erase.evaluate.images import SIDES, Side
from erase.evaluate.judge_cache import AT_ONCE, JudgeCache
from erase.evaluate.judges import ImageJudge
from erase.models import Model
from erase.sampling.generate import row_key
from erase.sampling.pictures import read_pixels
from erase.sampling.pipelined import follow
from erase.sampling.ranks import Rank, stream_share
from erase.sampling.sampler import Sampler

Count = Callable[[str, int, int], None]  # what is counted, done, in all


@dataclass(frozen=True)
class Reader:
    """The judge's networks of these names, and where what they say is kept; it reads nothing without a judge."""

    judge: ImageJudge | None = None
    networks: tuple[str, ...] = ()
    readings: JudgeCache = field(default_factory=JudgeCache)

    def __call__(self, paths: Sequence[Path]) -> None:
        if self.judge is not None and self.networks:
            pixels = {path.stem: read_pixels(path) for path in paths}
            whole = {name: one for name, one in pixels.items() if one is not None}
            self.judge.ahead(self.readings, self.networks, whole)


def make_pairs(
    model: Model,
    rows: Sequence[Row],
    folders: Mapping[Side, Path],
    *,
    edit: Edit,
    sampler: Sampler,
    reader: Reader,
    count: Count,
    place: Rank | None = None,
) -> list[tuple[Path, Path]]:
    """Each row's image before the edit and after it, made where it is missing.

    Raises what `generate` raises, and ScoreFailed if a network fails.
    """
    place = place or Rank()
    made: dict[Side, dict[tuple[str, int], Path]] = {side: {} for side in SIDES}

    def paths() -> Iterator[Path]:
        for side, applied in zip(SIDES, (None, edit), strict=True):
            progress = partial(count, side)
            drawn = stream_share(
                model, rows, folders[side], place=place, edit=applied, sampler=sampler, progress=progress
            )
            for row, path in drawn:
                made[side][row_key(row)] = path
                yield path

    follow(paths(), reader, size=AT_ONCE)
    before, after = (made[side] for side in SIDES)
    return [(before[row_key(row)], after[row_key(row)]) for row in rows]


def make_share(
    model: Model,
    rows: Sequence[Row],
    folders: Mapping[Side, Path],
    *,
    edit_file: Path,
    sampler: Sampler,
    place: Rank,
) -> None:
    """Makes another process's share of both sides' images; those after the edit once the first process has made it.

    Raises BadEdit if that one ends without, and what `generate` raises.
    """
    for _ in stream_share(model, rows, folders["before"], place=place, sampler=sampler):
        pass
    if not place.wait_for(0, edit_file.is_file):
        raise BadEdit(f"the process of RANK 0 has ended without {edit_file}; run the same command again.")
    edit = Edit.load(edit_file)
    edit.check_base(model.fingerprint)
    for _ in stream_share(model, rows, folders["after"], place=place, edit=edit, sampler=sampler):
        pass
