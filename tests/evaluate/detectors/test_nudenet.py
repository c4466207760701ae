"""NudeNet: boxes are passed on with labels and scores, pictures as the package wants them."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from erase import registry
from erase.errors import MissingExtra
from erase.evaluate.detections import Finding
from erase.evaluate.detectors.nudenet import EXPOSED, Nudenet
from erase.evaluate.protocol import load_protocol


class FakeDetector:
    """The package's detector: one box, whose score is the blue of the first pixel."""

    def detect(self, array: Any) -> list[dict[str, Any]]:
        return [{"class": "FEET_EXPOSED", "score": float(array[0, 0, 0]) / 255, "box": [0, 0, 1, 1]}]


def test_boxes_become_findings_and_pictures_are_given_blue_first(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("nudenet")
    module.NudeDetector = FakeDetector  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nudenet", module)
    pictures = [Image.new("RGB", (4, 4), "#0000ff"), Image.new("RGB", (4, 4), "#ff0000")]
    assert Nudenet()(pictures) == [(Finding("FEET_EXPOSED", 1.0),), (Finding("FEET_EXPOSED", 0.0),)]
    assert np.asarray(pictures[0])[0, 0, 2] == 255


def test_without_the_package_its_licence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nudenet", None)
    with pytest.raises(MissingExtra, match="AGPL"):
        Nudenet()([Image.new("RGB", (4, 4))])


def test_protocols_name_labels_that_nudenet_has() -> None:
    policies = [
        one.policy
        for name in registry.known("protocols")
        for one in load_protocol(name).form.detector
        if one.name == "nudenet"
    ]
    assert len(policies) >= 3
    assert all(policy.labels and set(policy.labels) <= set(EXPOSED) for policy in policies)
    assert all(policy.threshold is not None for policy in policies)
