"""The command's entry: `erase ...` and `python -m erase ...`."""

from __future__ import annotations

import sys


def main() -> None:
    """Nothing; the process ends with the command's exit code."""
    from erase.cli import run_command

    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
