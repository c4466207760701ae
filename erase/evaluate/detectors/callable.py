"""A detector of the user's: a Python file with a function `detect`, given by `--with callable=FILE`.

The file is run: give only one that you trust. A protocol cannot name a file, so no protocol runs code by itself. It
runs in a process of its own, so that one that ends its process ends no verification. A detector that a Python program
hands over as a function (`Given.detectors`) does not, and nothing can notice `os._exit` there.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from erase.errors import ScoreFailed
from erase.evaluate.detections import Finding, Findings, failure

_WORKER = Path(__file__).with_name("_worker.py")


@dataclass(frozen=True)
class Callable:
    """What `detect(pictures)` returns: for each picture a list of (label, score) pairs, none if nothing was found.

    Raises ScoreFailed if the file cannot be run, has no such function, fails or ends.
    """

    weights: Path

    version = "local"

    @cached_property
    def _worker(self) -> subprocess.Popen[bytes]:
        worker = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER), str(self.weights)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        weakref.finalize(self, _end, worker)
        return worker

    def __call__(self, pictures: Sequence[Image.Image]) -> list[Findings]:
        worker = self._worker
        requests, answers = worker.stdin, worker.stdout
        if requests is None or answers is None:  # as neither is a pipe; they are
            raise failure("callable", "its process has no pipes")
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            requests.write(json.dumps([picture.size for picture in pictures]).encode() + b"\n")
            for picture in pictures:
                requests.write(picture.convert("RGB").tobytes())
            requests.flush()
        line = answers.readline()
        if not line.endswith(b"\n"):
            raise failure("callable", f"{self.weights} has ended its process with exit code {worker.wait()}")
        answer = json.loads(line)
        if "unfit" in answer:
            raise ScoreFailed(f"{self.weights} {answer['unfit']}.")
        if "failed" in answer:
            raise failure("callable", str(answer["failed"]))
        return [tuple(Finding(label, score) for label, score in one) for one in answer["found"]]


def _end(worker: subprocess.Popen[bytes]) -> None:
    """Ends a worker by asking it for nothing more; one that does not listen is killed."""
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        worker.wait(timeout=5)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
