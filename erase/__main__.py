"""The command's entry: `erase ...` and `python -m erase ...`."""

from __future__ import annotations

import os
import sys

# A model's folder is data: no code that lies in it is ever run. And one voice speaks, ours.
SETTINGS = {
    "DIFFUSERS_DISABLE_REMOTE_CODE": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def main() -> None:
    """Nothing; the process ends with the command's exit code."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)

    from erase.cli import run_command

    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
