"""The command's frame: its subcommands, its version, and errors as one line with an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from erase import __version__
from erase.cli import (
    combine,
    compare,
    diff,
    edit,
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
from erase.cli.list import list_names
from erase.errors import EraseError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
INTERRUPTED = 130
STOPPED = "interrupted; the same command goes on where this one stopped."

app = typer.Typer(
    name="erase",
    help="Remove a concept from a diffusion model, and prove on images that it is gone and the rest is not.",
    epilog="Start with [bold]erase run[/bold]: it needs no GPU, no account and no network.",
    no_args_is_help=True,
    add_completion=False,
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
    """The exit code of one command line: 0, 2 for a user's error, 3 for a failed gate, 130 when interrupted."""
    try:
        code = app(list(arguments), standalone_mode=False, prog_name="erase")
        return _say(STOPPED, code) if code == INTERRUPTED else int(code or 0)
    except EraseError as error:
        return _say(str(error), error.exit_code)
    except Exception as error:
        return _exit_code(error)


def _exit_code(error: Exception) -> int:
    """The code of an error that is not our own; what nobody foresaw is raised again, with its traceback."""
    if hasattr(error, "format_message"):  # the command line itself is wrong
        return _say(error.format_message(), 2)
    if isinstance(error, OSError) and error.errno == errno.EPIPE:  # the reader has closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if (isinstance(error, OSError) and error.errno in _NO_SPACE) or "No space left on device" in str(error):
        return _say("no space left on the disk; free some and run the same command: finished work is kept.", 2)
    raise error


def _say(message: str, code: int) -> int:
    """The code, after one line on the standard error stream."""
    if line := " ".join(message.split()):
        print(f"error: {line}", file=sys.stderr)
    return code
