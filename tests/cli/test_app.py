"""The command's frame: exit codes, and one line an error, whoever foresaw it."""

from __future__ import annotations

import errno

import pytest

from erase import __version__
from erase.cli import _app
from erase.cli import list as listing
from erase.process import Terminated
from erase.run import steps
from tests.recipes import command, refused

Capture = pytest.CaptureFixture[str]


def fails(error: BaseException) -> object:
    def known(kind: str) -> list[str]:
        raise error

    return known


def test_the_version_is_the_packages(capsys: Capture) -> None:
    assert command(capsys, "--version").out == f"erase {__version__}\n"


def test_a_full_disk_that_a_library_reports_is_told(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (OSError(errno.ENOSPC, "full"), RuntimeError("SafetensorError: No space left on device")):
        monkeypatch.setattr("erase.registry.known", fails(error))
        assert "no space left on the disk" in refused(capsys, "list", "methods")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("a bug\nin two lines"), "unexpected RuntimeError: a bug in two lines (ERASE_TRACEBACK=1 shows"),
        (KeyError("style"), "unexpected KeyError: 'style' (ERASE_TRACEBACK=1 shows"),
        (RecursionError("maximum recursion depth exceeded"), "something given is nested too deeply"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 300), "File name too long: aaa"),
        (OSError(errno.EACCES, "Permission denied", "/x"), "Permission denied: /x; give another place"),
        (OSError("no number"), "no number."),
        (SystemExit(0), "a library or a file of yours ended the command (exit code 0) before it was done"),
    ],
)
def test_an_error_that_nobody_foresaw_is_one_line(
    error: BaseException, told: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("erase.registry.known", fails(error))
    said = refused(capsys, "list", "methods")
    assert said.startswith(told)
    assert len(said) < 500


def test_a_developer_sees_the_traceback_by_a_variable(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erase.registry.known", fails(RuntimeError("a bug")))
    monkeypatch.setenv("ERASE_TRACEBACK", "1")
    said = command(capsys, "list", "methods")
    assert said.code == 2
    assert "Traceback" in said.errors


def test_an_argument_of_bytes_that_are_no_text_is_refused(capsys: Capture) -> None:
    for command_line in (["generate", "-p", "caf\udce9"], ["run", "caf\udce9.yaml"], ["edit", "-t", "caf\udce9"]):
        assert "no UTF-8 text" in refused(capsys, *command_line)


def test_a_terminated_command_ends_with_its_own_code(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erase.registry.known", fails(Terminated()))
    assert refused(capsys, "list", "methods", code=143).startswith("terminated; the same command goes on")


def test_an_interrupted_command_says_how_to_go_on(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erase.registry.known", fails(KeyboardInterrupt()))
    assert refused(capsys, "list", "methods", code=130) == _app.STOPPED


def test_every_step_and_every_command_has_its_help(capsys: Capture) -> None:
    commands = [command.name for command in _app.app.registered_commands]
    assert set(steps.STEPS) < set(commands)
    assert listing.KINDS
    for name in commands:
        assert f"erase {name}" in command(capsys, str(name), "--help").out
