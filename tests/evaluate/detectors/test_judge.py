"""The embedded judge: both of its classifiers, each finding with its domain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from erase.errors import ScoreFailed
from erase.evaluate.detectors.classifier import Classifier
from erase.evaluate.detectors.judge import Judge
from tests.conftest import OBJECTS, STYLES


def test_both_classifiers_are_asked(tiny_model: Path) -> None:
    rng = np.random.default_rng(1)
    shown = [Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)) for _ in range(2)]
    found = Judge(tiny_model / "judge")(shown)
    for answers in found:
        assert {one.label for one in answers if one.domain == "style"} == set(STYLES)
        assert {one.label for one in answers if one.domain == "object"} == set(OBJECTS)
    styles = Classifier(tiny_model / "judge/style", domain="style")(shown)
    assert [answers[: len(STYLES)] for answers in found] == styles


def test_a_folder_without_a_judge_is_a_failed_run(tmp_path: Path) -> None:
    with pytest.raises(ScoreFailed, match="is no judge: it has no folder style"):
        Judge(tmp_path)([Image.new("RGB", (16, 16))])
