"""The command's frame: exit codes, one line an error, and a traceback for what nobody foresaw."""

from __future__ import annotations

import errno

import pytest

from erase import __version__, steps
from erase.cli import _app
from erase.cli import list as listing
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
        monkeypatch.setattr("erase.names.known", fails(error))
        assert "no space left on the disk" in refused(capsys, "list", "methods")


def test_an_error_that_nobody_foresaw_keeps_its_traceback(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erase.names.known", fails(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        command(capsys, "list", "methods")


def test_an_interrupted_command_says_how_to_go_on(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erase.names.known", fails(KeyboardInterrupt()))
    assert refused(capsys, "list", "methods", code=130) == _app.STOPPED


def test_every_step_and_every_command_has_its_help(capsys: Capture) -> None:
    commands = [command.name for command in _app.app.registered_commands]
    assert set(steps.STEPS) < set(commands)
    assert listing.KINDS
    for name in commands:
        assert f"erase {name}" in command(capsys, str(name), "--help").out
