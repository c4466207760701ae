"""The process in which a detector of the user's runs: it is given pictures and answers in JSON, a line each.

It is run as a file, by itself, and imports nothing of this project. What the detector prints goes to the standard error
stream; whatever ends it ends this process alone.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from typing import IO, Any

from PIL import Image


def main(path: str) -> None:
    """Runs the file, then answers requests until there is none any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks ends, and then there is no request any more
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    detect: Any = None
    while line := requests.readline():
        pictures = [_read(requests, size) for size in json.loads(line)]
        try:
            detect = detect or runpy.run_path(path).get("detect")
            answer = _answer(detect, pictures)
        except (Exception, SystemExit) as error:
            answer = {"unfit": f"cannot be run as a detector ({type(error).__name__}: {error})"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(detect: Any, pictures: Sequence[Image.Image]) -> dict[str, Any]:
    if not callable(detect):
        return {"unfit": "has no function `detect`; expected detect(pictures) -> lists of (label, score)"}
    try:
        return {"found": [[(str(label), float(score)) for label, score in one] for one in detect(pictures)]}
    except (Exception, SystemExit) as error:
        return {"failed": f"{type(error).__name__}: {error}"}


def _read(requests: IO[bytes], size: tuple[int, int]) -> Image.Image:
    width, height = size
    return Image.frombytes("RGB", (width, height), requests.read(3 * width * height))


if __name__ == "__main__":
    main(sys.argv[1])
