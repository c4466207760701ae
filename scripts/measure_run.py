"""Measures how long a new user waits: the main job, the unsafe group's, the command's help.

python scripts/measure_run.py [--quick]

Every command runs in a process of its own in an empty folder. The last line is one JSON object: seconds of `help`
(the least of five), `run` (`erase run`) and `unsafe` (`erase run erase-unsafe`); `images`: how many `erase run` drew;
`judgeless_exit` and `judgeless_ua`: the exit code and UA of the main job on a copy of the model without its judge,
judged by the judge's CLIP as any other CLIP is, which chooses among the names of styles.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import erase


def seconds_of(*arguments: str, folder: Path) -> float:
    """How long `erase` takes with these arguments; raises CalledProcessError if it fails."""
    started = time.monotonic()
    command = [sys.executable, "-m", "erase", *arguments]
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return round(time.monotonic() - started, 2)


def judgeless(folder: Path) -> dict[str, float]:
    """The main job's exit code and UA on a copy of the embedded model that has no judge, a CLIP being given."""
    source = Path(erase.__file__).parent / "models/emoji"
    shutil.copytree(source, folder / "copy", ignore=shutil.ignore_patterns("judge"))
    clip = f"clip={source / 'judge/clip'}"
    arguments = ["run", "erase-style", "--set", "model=copy", "--with", clip, "--out", "judgeless"]
    done = subprocess.run([sys.executable, "-m", "erase", *arguments], cwd=folder, capture_output=True, check=False)
    scores = json.loads((folder / "judgeless/scores.json").read_text(encoding="utf-8"))
    ua = [one["value"] for one in scores["figures"] if (one["name"], one["side"]) == ("ua", "after")]
    return {"judgeless_exit": done.returncode, "judgeless_ua": round(ua[0], 4)}


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
        measured |= judgeless(folder)
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
