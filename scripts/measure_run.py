"""Measures how long a new user waits: the main job, the unsafe group's, the command's help.

python scripts/measure_run.py [--quick]

Every command runs in a process of its own in an empty folder. The last line is one JSON object: seconds of `help`
(the least of five), `run` (`erase run`) and `unsafe` (`erase run erase-unsafe`); `images`: how many `erase run` drew.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds_of(*arguments: str, folder: Path) -> float:
    """How long `erase` takes with these arguments; raises CalledProcessError if it fails."""
    started = time.monotonic()
    command = [sys.executable, "-m", "erase", *arguments]
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return round(time.monotonic() - started, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the unsafe group's job")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured: dict[str, float] = {"help": min(seconds_of("--help", folder=folder) for _ in range(5))}
        measured["run"] = seconds_of("run", folder=folder)
        measured["images"] = sum(1 for side in ("before", "after") for _ in folder.rglob(f"{side}/*.png"))
        if not options.quick:
            measured["unsafe"] = seconds_of("run", "erase-unsafe", folder=folder)
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
