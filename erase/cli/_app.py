"""The command's frame: its subcommands, its version, and errors as one line with an exit code."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from erase import __version__, registry
from erase.cli import (
    attack,
    calibrate,
    combine,
    compare,
    diff,
    edit,
    evidence,
    export,
    fetch,
    generate,
    grid,
    inspect,
    push,
    report,
    run,
    score,
    undo,
    verify,
    verify_manifest,
)
from erase.cli._task import CARDS
from erase.cli.list import list_names
from erase.errors import BadOption, CannotWrite, EraseError
from erase.process import Terminated

_COMPLETING = "_ERASE_COMPLETE"  # what shells set who ask for completions
INTERRUPTED = 130
TERMINATED = 143
STOPPED = "interrupted; the same command goes on where this one stopped."
_FULL = "no space left on the disk; free some and run the same command: finished work is kept."
_PLACE = "give another place, or change who may write there."
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _PLACE,
    errno.EPERM: _PLACE,
    errno.EROFS: _PLACE,
    errno.ENOTDIR: "a part of the path is a file; give a path of folders.",
    errno.EISDIR: "expected a file; give a file's path.",
    errno.EEXIST: "a file is where a folder is to be; give another place.",
    errno.ENAMETOOLONG: "give a shorter name.",
    errno.ENOENT: "a folder that is needed is not there, or is there no more; go to a folder that exists.",
    errno.EMFILE: "too many files are open; allow more, as by `ulimit -n 4096`.",
}

app = typer.Typer(
    name="erase",
    help="Remove a concept from a diffusion model, and prove on images that it is gone and the rest is not.",
    epilog="Start with [bold]erase run[/bold]: it needs no GPU, no account and no network.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("edit")(edit.edit)
app.command("generate")(generate.generate)
app.command("score")(score.score)
app.command("grid")(grid.grid)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("export")(export.export)
app.command("verify")(verify.verify)
app.command("evidence")(evidence.evidence)
app.command("calibrate")(calibrate.calibrate)
app.command("attack")(attack.attack)
app.command("inspect")(inspect.inspect)
app.command("diff")(diff.diff)
app.command("combine")(combine.combine)
app.command("undo")(undo.undo)
app.command("verify-manifest")(verify_manifest.verify_manifest)
app.command("fetch")(fetch.fetch)
app.command("push")(push.push)
app.command("list")(list_names)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"erase {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


def run_command(arguments: Sequence[str]) -> int:
    """The exit code of one command line.

    0; 2 for an error, told in one line; 3 for a failed gate; 130 when interrupted, 143 when terminated.
    """
    try:
        _check_working_folder()
        with _alone():
            code = app(list(map(_checked, arguments)), standalone_mode=False, prog_name="erase")
        sys.stdout.flush() if sys.stdout else None
        return _say(STOPPED, code) if code == INTERRUPTED else int(code or 0)
    except KeyboardInterrupt:
        return _say(STOPPED, INTERRUPTED)
    except Terminated:
        return _say(f"terminated{STOPPED.removeprefix('interrupted')}", TERMINATED)
    except SystemExit as ended:  # no code of ours does that
        if _COMPLETING in os.environ or "completion" in " ".join(arguments[:1]):  # typer's own answer to a shell
            return int(ended.code or 0)
        return _say(f"a library or a file of yours ended the command (exit code {ended.code!r}) before it was done.", 2)
    except Exception as error:
        if os.environ.get("ERASE_TRACEBACK"):
            traceback.print_exc()
        return _say(_line(error), error.exit_code if isinstance(error, EraseError) else 2)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """What a command line names and asks for holds for that command alone: code, device, how much is told."""
    cards = os.environ.get(CARDS)
    try:
        with registry.allowing():
            yield
    finally:
        logging.getLogger("erase").setLevel(logging.NOTSET)
        if cards is not None:
            os.environ[CARDS] = cards
        else:
            os.environ.pop(CARDS, None)


def _check_working_folder() -> None:
    """Raises CannotWrite if the working folder was removed: libraries end the process where they find it missing."""
    try:
        Path.cwd()
    except OSError as problem:
        raise CannotWrite("the working folder is not there any more; go to one that is, by `cd`.") from problem


def _checked(argument: str) -> str:
    """The argument; raises BadOption for bytes that are no text, which no prompt and no file of ours can hold."""
    try:
        argument.encode()
    except UnicodeEncodeError as problem:
        raise BadOption(f"the argument {ascii(argument)[:80]} is no UTF-8 text; write it in UTF-8.") from problem
    return argument


def _line(error: Exception) -> str:
    """What is said of an error, also of one that nobody foresaw."""
    text = " ".join(str(error).split())
    if isinstance(error, EraseError):
        return text
    if hasattr(error, "format_message"):  # the command line itself is wrong
        return str(error.format_message())
    if "No space left on device" in text:
        return _FULL
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return "not enough memory; give a smaller batch, or take a machine with more."
    if isinstance(error, RecursionError):
        return "something given is nested too deeply; expected at most 50 levels of lists and mappings."
    if isinstance(error, OSError):
        where = f": {str(error.filename)[:100]}" if error.filename else ""
        advice = f"; {_ADVICE[error.errno]}" if error.errno in _ADVICE else "."
        return f"{error.strerror or text}{where}{advice}"
    return (
        f"unexpected {type(error).__name__}: {text[:300]} (ERASE_TRACEBACK=1 shows where; "
        "if what you gave is right, this is a fault of erase: please report it)."
    )


def _say(message: str, code: int) -> int:
    """The code, after one line on the standard error stream."""
    if line := " ".join(message.split()):
        print(f"error: {line}", file=sys.stderr)
    return code
