"""The command `erase`: one file a subcommand, each importing what it needs when it runs."""

from __future__ import annotations

from erase.cli._app import app, run_command

__all__ = ["app", "run_command"]
