"""Several processes on one plan: the same images as from one, none made twice, none lost with a process that died."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.errors import BadOption
from erase.evaluate.generate import generate
from erase.evaluate.ranks import Place, generate_share, this_place
from erase.evaluate.sampler import Sampler
from erase.models import Model
from erase.prompts import Row

ROWS = tuple(Row(prompt, seed) for prompt in ("a cat", "a dog", "a car") for seed in (0, 1, 2))
SAMPLER = Sampler(steps=1, guidance=1.0, batch=2)


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


@pytest.mark.parametrize("world", [1, 2, 3, 12])
def test_shares_are_the_plan_once_each(world: int) -> None:
    shares = [Place(rank, world).share(ROWS) for rank in range(world)]
    assert sorted(row.prompt + str(row.seed) for share in shares for row in share) == sorted(
        row.prompt + str(row.seed) for row in ROWS
    )
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_two_processes_make_what_one_makes_bit_for_bit(model: Model, tmp_path: Path) -> None:
    one = generate(model, ROWS, tmp_path / "one", sampler=SAMPLER)
    theirs = generate_share(model, ROWS, tmp_path / "two", place=Place(1, 2), sampler=SAMPLER)
    assert len(theirs) == 4
    made = {name: (tmp_path / "two" / name).stat().st_mtime_ns for name in pictures(tmp_path / "two")}
    ours = generate_share(model, ROWS, tmp_path / "two", place=Place(0, 2), sampler=SAMPLER)
    assert [path.name for path in ours] == [path.name for path in one]
    assert pictures(tmp_path / "two") == pictures(tmp_path / "one")
    assert all((tmp_path / "two" / name).stat().st_mtime_ns == when for name, when in made.items())


def test_the_first_makes_what_a_dead_one_left(model: Model, tmp_path: Path) -> None:
    ours = generate_share(model, ROWS, tmp_path, place=Place(0, 2), sampler=SAMPLER)
    assert len(ours) == len(ROWS)
    assert all(path.is_file() for path in ours)


def test_a_process_that_was_not_launched_is_the_only_one() -> None:
    assert this_place({}) == Place(0, 1)
    assert this_place({"RANK": "1", "WORLD_SIZE": "2"}) == Place(1, 2)


@pytest.mark.parametrize("said", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "x"}, {"WORLD_SIZE": "-1"}])
def test_a_place_that_is_none_is_refused(said: dict[str, str]) -> None:
    with pytest.raises(BadOption, match="WORLD_SIZE"):
        this_place(said)
