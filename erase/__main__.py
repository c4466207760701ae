"""The command's entry: `erase ...` and `python -m erase ...`."""

from __future__ import annotations

import os
import signal
import sys

# A model's folder is data: no code that lies in it is ever run. And one voice speaks, ours.
SETTINGS = {
    "DIFFUSERS_DISABLE_REMOTE_CODE": "1",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def main() -> None:
    """Run the command and exit with its code."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # by who started us, as `nohup` does
    if not ignored:
        signal.signal(signal.SIGINT, _end_now)  # nothing is begun that could be left half done
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)

    from erase.cli import run_command
    from erase.process import Signals, settled

    sys.stdout, sys.stderr = settled(sys.stdout), settled(sys.stderr)
    with Signals(interrupt=not ignored) as signals:
        code = signals.code(run_command(sys.argv[1:]))
    if not ignored:
        signal.signal(signal.SIGINT, _end_now)  # all is done but the clearing of memory
    sys.exit(code)


def _end_now(number: int, frame: object) -> None:
    os._exit(128 + number)


if __name__ == "__main__":
    main()
