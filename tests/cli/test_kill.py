"""A run that is killed and started again, by one process or by several: no image made twice, the same final numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from erase.cli import run_command
from tests.recipes import tiny_recipe, write_recipe

ERASE = [sys.executable, "-m", "erase"]
ROOT = Path(__file__).parents[2]
Stamps = dict[str, int]


@pytest.fixture(scope="module")
def recipe(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of 24 images in batches of one, slow enough to be killed between two."""
    folder = tmp_path_factory.mktemp("recipe")
    value = tiny_recipe(folder, tiny_model)
    value["generate"] |= {"seeds": [0], "steps": 12, "batch": 1}
    return write_recipe(folder, value)


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder as one process makes it that nobody kills."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run_command(["run", str(recipe), "--out", str(folder)]) == 0
    return folder


@contextmanager
def started(*command: object, world: int = 1) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes of a command, killed at the end of the block if they still live."""
    places = [{"RANK": str(rank), "WORLD_SIZE": str(world)} if world > 1 else {} for rank in range(world)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    text = [str(part) for part in command]
    quiet = subprocess.DEVNULL
    processes = [subprocess.Popen(text, env=environment | place, stdout=quiet, stderr=quiet) for place in places]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def wait_for_images(folder: Path, count: int, processes: list[subprocess.Popen[bytes]]) -> None:
    until = time.monotonic() + 180
    while len(stamps(folder)) < count:
        assert time.monotonic() < until, "no images"
        assert all(process.poll() in (None, 0) for process in processes)
        time.sleep(0.005)


def stamps(folder: Path) -> Stamps:
    """When each image was written."""
    return {f"{path.parent.name}/{path.name}": path.stat().st_mtime_ns for path in folder.glob("*/*.png")}


def images(folder: Path) -> dict[str, bytes]:
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in folder.glob("*/*.png")}


def assert_finished_as(folder: Path, whole: Path, *, before: Stamps) -> None:
    """Nothing that was there was written again, and images and scores are those of the run that nobody killed."""
    after = stamps(folder)
    assert {name: after[name] for name in before} == before
    assert images(folder) == images(whole)
    assert (folder / "scores.json").read_bytes() == (whole / "scores.json").read_bytes()
    left = [
        path.name for path in folder.rglob("*") if path.name.endswith((".partial", ".lock")) or ".tmp-" in path.name
    ]
    assert left == []


def test_a_run_killed_between_two_images_goes_on_there(recipe: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with started(*ERASE, "run", recipe, "--out", folder) as processes:
        wait_for_images(folder, 9, processes)
        processes[0].send_signal(signal.SIGKILL)
    before = stamps(folder)
    assert 9 <= len(before) < 24
    assert run_command(["run", str(recipe), "--out", str(folder)]) == 0
    assert_finished_as(folder, whole, before=before)


@pytest.mark.slow
def test_what_a_killed_process_of_several_left_the_first_one_makes(recipe: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with started(*ERASE, "run", recipe, "--out", folder, world=3) as processes:
        wait_for_images(folder, 5, processes)
        processes[2].send_signal(signal.SIGKILL)
        before = stamps(folder)
        assert [processes[rank].wait(300) for rank in (0, 1)] == [0, 0]
    assert_finished_as(folder, whole, before=before)


@pytest.mark.slow
def test_several_killed_processes_started_again_end_as_one(recipe: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with started(*ERASE, "run", recipe, "--out", folder, world=2) as processes:
        wait_for_images(folder, 8, processes)
    before = stamps(folder)
    with started(*ERASE, "run", recipe, "--out", folder, world=2) as processes:
        assert [process.wait(300) for process in processes] == [0, 0]
    assert_finished_as(folder, whole, before=before)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [
    [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "erase"],
    [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "-m", "erase"],
])  # fmt: skip
def test_the_launchers_processes_make_each_image_once(
    recipe: Path, whole: Path, tmp_path: Path, launcher: list[str]
) -> None:
    folder = tmp_path / "run"
    with started(*launcher, "run", recipe, "--out", folder) as processes:
        assert processes[0].wait(400) == 0
    assert_finished_as(folder, whole, before={})
