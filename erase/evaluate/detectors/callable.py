"""A detector of the user's: a Python file with a function `detect`, given by `--with callable=FILE`.

The file is run: give only one that you trust. A protocol cannot name a file, so no protocol runs code by itself.
"""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from erase.errors import ScoreFailed
from erase.evaluate.detections import Finding, Findings


@dataclass(frozen=True)
class Callable:
    """What `detect(pictures)` returns: for each picture a list of (label, score) pairs, none if nothing was found.

    Raises ScoreFailed if the file cannot be run or has no such function.
    """

    weights: Path

    version = "local"

    @cached_property
    def _detect(self) -> Any:
        try:
            found = runpy.run_path(str(self.weights)).get("detect")
        except Exception as error:
            raise ScoreFailed(
                f"{self.weights} cannot be run as a detector ({type(error).__name__}: {error})."
            ) from error
        if not callable(found):
            raise ScoreFailed(
                f"{self.weights} has no function `detect`; expected detect(pictures) -> lists of (label, score)."
            )
        return found

    def __call__(self, pictures: Sequence[Image.Image]) -> list[Findings]:
        return [tuple(Finding(str(label), float(score)) for label, score in one) for one in self._detect(pictures)]
