"""Several processes on one plan: the same images as from one, none made twice, none lost with a process that died."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from erase.config.prompts import Row
from erase.errors import BadOption, RunConflict
from erase.models import Model
from erase.sampling.generate import generate
from erase.sampling.ranks import Rank, stream_share, this_rank
from erase.sampling.sampler import Sampler

ROWS = tuple(Row(prompt, seed) for prompt in ("a cat", "a dog", "a car") for seed in (0, 1, 2))
SAMPLER = Sampler(steps=1, guidance=1.0, batch=2)


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def share(model: Model, folder: Path, place: Rank) -> list[Path]:
    return [path for _, path in stream_share(model, ROWS, folder, place=place, sampler=SAMPLER)]


@pytest.mark.parametrize("world", [1, 2, 3, 12])
def test_shares_are_the_plan_once_each(world: int) -> None:
    shares = [Rank(rank, world).share(ROWS) for rank in range(world)]
    assert sorted(row.prompt + str(row.seed) for share in shares for row in share) == sorted(
        row.prompt + str(row.seed) for row in ROWS
    )
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_two_processes_make_what_one_makes_bit_for_bit(model: Model, tmp_path: Path) -> None:
    one = generate(model, ROWS, tmp_path / "one", sampler=SAMPLER)
    theirs = share(model, tmp_path / "two", Rank(1, 2))
    assert len(theirs) == 4
    made = {name: (tmp_path / "two" / name).stat().st_mtime_ns for name in pictures(tmp_path / "two")}
    ours = share(model, tmp_path / "two", Rank(0, 2))
    assert [path.name for path in ours] == [path.name for path in one]
    assert pictures(tmp_path / "two") == pictures(tmp_path / "one")
    assert all((tmp_path / "two" / name).stat().st_mtime_ns == when for name, when in made.items())


def test_the_first_makes_what_a_dead_one_left(model: Model, tmp_path: Path) -> None:
    ours = share(model, tmp_path, Rank(0, 2))
    assert len(ours) == len(ROWS)
    assert all(path.is_file() for path in ours)


def test_one_that_lives_is_waited_for_and_one_that_died_is_not(tmp_path: Path) -> None:
    """Another process holds the lock of rank 1, does its work a second later, and is killed before it does more."""
    done, first = tmp_path / "done", Rank(0, 2, tmp_path)
    text = (
        "import sys, time; from pathlib import Path; from erase.sampling.ranks import Rank\n"
        f"with Rank(1, 2, Path({str(tmp_path)!r})).present():\n"
        "    print('here', flush=True); time.sleep(1); Path(sys.argv[1]).touch(); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", text, str(done)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert first.wait_for(1, done.exists, grace=0)
        with (
            pytest.raises(RunConflict, match="another process with RANK 1 is at work"),
            Rank(1, 2, tmp_path).present(),
        ):
            pass
        timer = threading.Timer(0.5, other.kill)
        timer.start()
        assert not first.wait_for(1, lambda: False, grace=60)
    with Rank(1, 2, tmp_path).present():
        pass


def test_one_that_never_came_is_given_its_grace(tmp_path: Path) -> None:
    began = time.monotonic()
    assert not Rank(0, 2, tmp_path).wait_for(1, lambda: False, grace=0.5)
    assert time.monotonic() - began >= 0.5


def test_the_first_leaves_no_trace_of_the_others(tmp_path: Path) -> None:
    with Rank(0, 2, tmp_path).present():
        with Rank(1, 2, tmp_path).present():
            pass
        assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_was_not_launched_is_the_only_one() -> None:
    assert this_rank(environment={}) == Rank(0, 1)
    assert this_rank(environment={"RANK": "1", "WORLD_SIZE": "2"}) == Rank(1, 2)


@pytest.mark.parametrize("said", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "x"}, {"WORLD_SIZE": "-1"}])
def test_a_place_that_is_none_is_refused(said: dict[str, str]) -> None:
    with pytest.raises(BadOption, match="WORLD_SIZE"):
        this_rank(environment=said)
