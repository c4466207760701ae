"""Processes that share a batch: each has the whole of it, and their gradients add up to those of one process."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from erase.methods.training.distributed import Machine, trains_together

ROOT = Path(__file__).parents[3]
COUNTS = (1, 2, 3, 5)  # with two processes: one idle, even, uneven
SMALL = ["steps=4", "trajectories=2", "sampling_steps=3", "learning_rate=1e-3"]


def passed(machine: Machine, count: int) -> tuple[Tensor, Tensor]:
    """What a layer makes of some rows, and the gradient of a loss that mixes them all, in float64."""
    generator = torch.Generator().manual_seed(count)
    rows = torch.randn(count, 3, dtype=torch.float64, generator=generator)
    weight = torch.randn(2, 3, dtype=torch.float64, generator=generator).requires_grad_(True)
    made = machine.rows(count, lambda part: torch.tanh(rows[part] @ weight.T))
    (made.sum() ** 2).backward()  # type: ignore[no-untyped-call]
    machine.sum_gradients([weight])
    assert weight.grad is not None
    return made.detach(), weight.grad


def work(folder: Path) -> None:
    """One of two processes: leaves what it got, and whether at its very end they still hold each other."""
    found = {}

    def leave() -> None:
        found["still"] = torch.tensor(torch.distributed.is_initialized())
        save_file(found, folder / f"{machine.rank}.safetensors")

    atexit.register(leave)  # what was registered first runs last
    machine = Machine.here()
    assert torch.distributed.is_initialized()
    for count in COUNTS:
        found[f"rows.{count}"], found[f"gradient.{count}"] = passed(machine, count)
    found["first"] = torch.tensor(machine.of_first(lambda: 10 * machine.rank + 7))
    found["summed"] = machine.summed(torch.tensor([1.0 + machine.rank]))


def together(*command: object) -> list[subprocess.CompletedProcess[str]]:
    """Runs a command as two processes that can talk to each other; both have to end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    text, pipe = [sys.executable, *(str(part) for part in command)], subprocess.PIPE
    started = [
        subprocess.Popen(text, env=shared | {"RANK": rank, "LOCAL_RANK": rank}, stdout=pipe, stderr=pipe, text=True)
        for rank in ("0", "1")
    ]
    ended = []
    for process in started:
        out, errors = process.communicate(timeout=200)
        ended.append(subprocess.CompletedProcess(text, process.returncode, out, errors))
    assert [one.returncode for one in ended] == [0, 0], [one.stderr[-2000:] for one in ended]
    return ended


def test_two_processes_have_all_rows_and_the_gradients_of_one(tmp_path: Path) -> None:
    program = "from pathlib import Path; from tests.methods.training.test_distributed import work"
    together("-c", f"{program}; work(Path({str(tmp_path)!r}))")
    one = Machine(torch.device("cpu"))
    for rank in (0, 1):
        found = load_file(tmp_path / f"{rank}.safetensors")
        assert found["first"].item() == 7
        assert found["summed"].item() == 3
        assert not found["still"]  # a thread of the group would abort the process as its interpreter ends
        for count in COUNTS:
            rows, gradient = passed(one, count)
            torch.testing.assert_close(found[f"rows.{count}"], rows, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(found[f"gradient.{count}"], gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, False),
        ({"WORLD_SIZE": "1", "MASTER_ADDR": "here"}, False),
        ({"WORLD_SIZE": "2"}, False),  # started side by side, with no way to talk
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "here"}, True),
    ],
)
def test_processes_train_together_where_their_launcher_lets_them_talk(said: dict[str, str], expected: bool) -> None:
    assert trains_together(said) is expected


def edits(model: Path, folder: Path, method: str, *options: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The edits that one process and two make with the same options."""
    more = [part for option in (*SMALL, *options) for part in ("--option", option)]
    ask = ["-m", "erase", "edit", "-m", model, "--method", method, "-t", "noto", "-a", "blob", *more, "-o"]
    plain = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *map(str, ask), str(folder / "one")], env=plain, check=True, capture_output=True)
    told = together(*ask, folder / "two")
    assert "training: 4 of 4 steps" in told[0].stderr
    assert "training" not in told[1].stderr
    assert told[1].stdout == ""
    return load_file(folder / "one"), load_file(folder / "two")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("esd", ["batch=3"]),  # two rows and one
        ("esd", ["batch=1"]),  # one and none
        ("sdd", ["batch=2", "refresh=2"]),
        ("spm", ["batch=2"]),
        ("advunlearn", ["batch=2", "warm_up=1", "attack_steps=2"]),
        ("distil", []),
    ],
)
def test_two_processes_train_the_edit_of_one(tiny_model: Path, tmp_path: Path, method: str, options: list[str]) -> None:
    one, two = edits(tiny_model, tmp_path, method, *options)
    # Adam's steps are as long for a gradient that is all rounding as for any other, so values compare as a whole.
    left, right = (torch.cat([edit[name].flatten() for name in sorted(one)]) for edit in (one, two))
    assert left.norm() > 0
    assert (right - left).norm() <= 2e-2 * left.norm()
