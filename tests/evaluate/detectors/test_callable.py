"""A detector of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from erase.errors import ScoreFailed
from erase.evaluate.detections import Finding
from erase.evaluate.detectors.callable import Callable

PICTURES = [Image.new("RGB", (4, 4), "#ff0000"), Image.new("RGB", (4, 4), "#000000")]
RED = "def detect(pictures):\n    return [[('red', 1.0)] if one.getpixel((0, 0))[0] else [] for one in pictures]\n"


def test_a_file_s_function_answers(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(RED)
    assert Callable(tmp_path / "mine.py")(PICTURES) == [(Finding("red", 1.0),), ()]


@pytest.mark.parametrize(("text", "said"), [("x = 1\n", "no function `detect`"), ("1 / 0\n", "cannot be run")])
def test_a_file_that_is_no_detector_is_a_failed_run(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ScoreFailed, match=said):
        Callable(tmp_path / "mine.py")(PICTURES)
