"""Narrow encodings, readers who leave, closed streams, and signals: the exit code stays the command's own."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from erase.cli import run_command
from erase.process import Signals, Terminated, settled
from tests.recipes import tiny_recipe, write_recipe

ERASE = [sys.executable, "-m", "erase"]
ROOT = Path(__file__).parents[1]
FAST = ((130, "typer"), (130, "torch._C"), (143, "erase.sampling.ranks"))
COMMANDS = ("run", "score", "compare", "inspect")


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more


@pytest.fixture(scope="module")
def failed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run whose gate has failed, with its pipeline beside it."""
    folder = tmp_path_factory.mktemp("failed")
    recipe = tiny_recipe(folder, tiny_model)
    recipe["task"]["targets"] = [{"name": "noto", "anchor": "blob"}]
    path = write_recipe(folder, recipe | {"gate": {"cra": 1.0, "ira": 1.0, "ua": 1.0}})
    assert run_command(["run", str(path), "--out", str(folder / "run")]) == 3
    shutil.copytree(folder / "run", folder / "again")
    return folder


def arguments(name: str, folder: Path) -> list[str]:
    run = str(folder / "run")
    return {
        "run": ["run", str(folder / "mine.yaml"), "--out", run],
        "score": ["score", run],
        "compare": ["compare", run, str(folder / "again"), "--out", str(folder / "compare.html")],
        "inspect": ["inspect", str(folder / "run/model")],
    }[name]


def check_in(encoding: str, name: str, folder: Path) -> None:
    """The command in a process of its own ends with its own code and no traceback."""
    done = subprocess.run(
        [*ERASE, *arguments(name, folder)], env=environment(PYTHONIOENCODING=encoding), capture_output=True
    )
    assert b"Traceback" not in done.stderr
    assert done.returncode == (3 if name in ("run", "score") else 0), done.stderr
    assert done.stdout


def test_a_gate_is_checked_where_the_terminal_has_ascii_alone(failed: Path) -> None:
    check_in("ascii", "run", failed)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_narrow_encoding_changes_no_exit_code(encoding: str, name: str, failed: Path) -> None:
    check_in(encoding, name, failed)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_table_can_be_written_in_a_narrow_encoding(
    encoding: str, name: str, failed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", settled(io.TextIOWrapper(written, encoding=encoding)))
    assert run_command(arguments(name, failed)) == (3 if name in ("run", "score") else 0)
    sys.stdout.flush()
    assert written.getvalue().strip()


def test_characters_that_an_encoding_lacks_are_spelled_otherwise() -> None:
    written = io.BytesIO()
    stream = settled(io.TextIOWrapper(written, encoding="ascii"))
    stream.write("noto → Café ≥ 3 \U0001f600 \ud800")
    stream.flush()
    assert written.getvalue() == b"noto -> Cafe >= 3 ? ?"


def test_a_reader_who_has_left_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as pipe:
        stream = settled(pipe)
        for _ in range(3):
            stream.write("x" * 100_000)
            stream.flush()


@pytest.mark.parametrize("line", ["list methods | head -n 1", "list | true", "list >&-", "list >&- 2>&-"])
def test_a_listing_that_nobody_reads_to_its_end_has_done_its_work(line: str) -> None:
    piped = f"set -o pipefail; {sys.executable} -m erase {line}"
    done = subprocess.run(["bash", "-c", piped], env=environment(), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_gate_is_checked_also_if_nobody_reads_the_table(failed: Path) -> None:
    line = (
        f"{sys.executable} -m erase run {failed / 'mine.yaml'} --out {failed / 'run'} | true; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", line], env=environment(), capture_output=True)
    assert done.returncode == 3, done.stderr


MOMENTS = [
    pytest.param(number, code, module, marks=() if (code, module) in FAST else pytest.mark.slow)
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143))
    for module in ("typer", "erase.cli.verify", "torch._C", "transformers", "erase.sampling.ranks")
]


@pytest.mark.parametrize(("number", "code", "module"), MOMENTS)
def test_a_signal_ends_the_command_in_order_while_it_imports_or_works(
    number: signal.Signals, code: int, module: str, tmp_path: Path
) -> None:
    started = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "erase", "generate", "-p", "a cat", "--out", str(tmp_path / "out")],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert started.stderr is not None
    for line in started.stderr:
        if line.decode().rpartition("|")[2].strip() == module:
            break
    started.send_signal(number)
    _, errors = started.communicate(timeout=120)
    assert b"Traceback" not in errors
    # SIGTERM has its default while the command itself is still imported, and nothing is begun
    early = {-number} if number == signal.SIGTERM and module in ("typer", "erase.cli.verify") else set()
    assert started.returncode in {code} | early
    assert list(tmp_path.rglob("*.partial")) == []


def test_a_signal_that_meets_an_object_being_cleared_away_is_not_lost() -> None:
    class Odd:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    with Signals(interrupt=False), pytest.raises(Terminated):
        Odd()
        for _ in range(1000):
            time.sleep(0.001)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
