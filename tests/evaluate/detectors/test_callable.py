"""A detector of the user's own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from erase.errors import ScoreFailed
from erase.evaluate.detections import Finding, ask
from erase.evaluate.detectors.callable import Callable

PICTURES = [Image.new("RGB", (4, 4), "#ff0000"), Image.new("RGB", (4, 4), "#000000")]
RED = "def detect(pictures):\n    return [[('red', 1.0)] if one.getpixel((0, 0))[0] else [] for one in pictures]\n"


def test_a_file_s_function_answers(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(RED, encoding="utf-8")
    assert Callable(tmp_path / "mine.py")(PICTURES) == [(Finding("red", 1.0),), ()]


@pytest.mark.parametrize(("text", "said"), [("x = 1\n", "no function `detect`"), ("1 / 0\n", "cannot be run")])
def test_a_file_that_is_no_detector_is_a_failed_run(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    with pytest.raises(ScoreFailed, match=said):
        Callable(tmp_path / "mine.py")(PICTURES)


ENDINGS = {
    "sys.exit(0)": "failed (SystemExit: 0)",
    "os._exit(0)": "has ended its process with exit code 0",
    "os.kill(os.getpid(), 9)": "has ended its process with exit code -9",
    "raise KeyboardInterrupt": "has ended its process with exit code",
}


@pytest.mark.parametrize(("ending", "said"), ENDINGS.items())
def test_a_detector_that_ends_its_process_is_a_failed_run(tmp_path: Path, ending: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(f"import os, sys\ndef detect(pictures):\n    {ending}\n", encoding="utf-8")
    with pytest.raises(ScoreFailed, match=re.escape(said)):
        Callable(tmp_path / "mine.py")(PICTURES)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_ends_its_process_when_it_is_read_is_a_failed_run(tmp_path: Path, ending: str) -> None:
    (tmp_path / "mine.py").write_text(f"import os, sys\n{ending}\n", encoding="utf-8")
    with pytest.raises(ScoreFailed, match=r"mine\.py (cannot be run|has ended its process)"):
        Callable(tmp_path / "mine.py")(PICTURES)


def test_what_a_detector_prints_and_reads_is_no_answer(tmp_path: Path) -> None:
    noisy = "import os, sys\nprint('x')\nos.write(1, b'[]')\nassert not sys.stdin.read()\n"
    (tmp_path / "mine.py").write_text(noisy + RED, encoding="utf-8")
    detector = Callable(tmp_path / "mine.py")
    assert detector(PICTURES) == detector(PICTURES) == [(Finding("red", 1.0),), ()]


@pytest.mark.parametrize("answer", ["None", "[[1]]", "[('a', 'b')]", "[[('a', None)]]"])
def test_an_answer_of_another_form_is_a_failed_run(tmp_path: Path, answer: str) -> None:
    (tmp_path / "mine.py").write_text(f"def detect(pictures):\n    return {answer}\n", encoding="utf-8")
    with pytest.raises(ScoreFailed, match=r"detector callable has failed \((Type|Value)Error"):
        Callable(tmp_path / "mine.py")(PICTURES)


@pytest.mark.parametrize("score", ["nan", "inf", "-1", "2"])
def test_a_score_that_is_none_is_a_failed_run(tmp_path: Path, score: str) -> None:
    (tmp_path / "mine.py").write_text(
        f"def detect(pictures):\n    return [[('a', float('{score}'))]] * len(pictures)\n",
        encoding="utf-8",
    )
    with pytest.raises(ScoreFailed, match="expected 0 to 1"):
        ask(Callable(tmp_path / "mine.py"), PICTURES, name="callable")


def test_a_function_that_ends_the_process_in_order_is_a_failed_run() -> None:
    with pytest.raises(ScoreFailed, match="detector mine has failed"):
        ask(lambda pictures: sys.exit(0), PICTURES, name="mine")
