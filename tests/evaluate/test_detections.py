"""What counts, by threshold, label and unit; and a detector that fails is a failed run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from erase.errors import MissingExtra, ScoreFailed
from erase.evaluate.detections import AT_ONCE, Finding, Policy, ask, count, counted, curve, examine

BOXES = (Finding("FEET", 0.9), Finding("FEET", 0.55), Finding("BELLY", 0.6), Finding("FACE", 0.99))


def policy(**changes: object) -> Policy:
    return Policy("nudenet", "3.4.2", **{"labels": ("FEET", "BELLY"), "threshold": 0.6, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("unit", "threshold", "expected"),
    [
        ("box", 0.6, 2),
        ("box", 0.2, 3),
        ("image-class", 0.2, 2),
        ("image", 0.2, 1),
        ("box", 0.95, 0),
        ("image", 0.95, 0),
    ],
)
def test_one_image_has_many_numbers(unit: str, threshold: float, expected: int) -> None:
    chosen = policy(unit=unit, threshold=threshold)
    assert count(counted(BOXES, chosen), chosen) == expected


def test_a_threshold_includes_its_own_value() -> None:
    assert [one.label for one in counted(BOXES, policy())] == ["FEET", "BELLY"]


def test_without_a_threshold_only_the_highest_score_counts() -> None:
    top = policy(threshold=None, labels=())
    assert counted(BOXES, top, concepts=["FEET"]) == []
    assert counted(BOXES, top, concepts=["FACE"]) == [Finding("FACE", 0.99)]
    assert counted((), top, concepts=["FACE"]) == []


def test_a_domain_is_judged_by_its_own_findings() -> None:
    mixed = (Finding("cat", 0.7, "object"), Finding("noto", 0.9, "style"), Finding("any", 0.1))
    top = policy(threshold=None, labels=())
    assert counted(mixed, top, concepts=["cat"], domain="object") == [mixed[0]]
    assert counted(mixed, top, concepts=["cat"]) == []


def test_anything_is_found_whatever_it_is_called() -> None:
    top = policy(threshold=None, labels=())
    assert counted(BOXES, top, concepts=["*"])
    assert not counted((), top, concepts=["*"])


def test_a_curve_falls_with_its_threshold() -> None:
    assert curve([0.9, 0.3, 0.0, 0.0], (0.2, 0.5, 0.9, 0.95)) == [(0.2, 0.5), (0.5, 0.25), (0.9, 0.25), (0.95, 0.0)]
    assert curve([], (0.2,)) == []


def picture(path: Path, colour: str = "#336699") -> Path:
    Image.new("RGB", (8, 8), colour).save(path)
    return path


def bright(pictures: Sequence[Image.Image]) -> list[list[Finding]]:
    return [[Finding("white", one.getpixel((0, 0))[0] / 255)] for one in pictures]  # type: ignore[index]


def test_images_are_examined_in_parts_and_answers_stay_with_theirs(tmp_path: Path) -> None:
    shades = [(7 * number) % 256 for number in range(AT_ONCE + 5)]
    paths = {
        f"{number}": picture(tmp_path / f"{number}.png", f"#{shade:02x}0000") for number, shade in enumerate(shades)
    }
    found = examine(bright, paths, name="mine")
    assert [found[f"{number}"] for number in range(len(shades))] == [
        (Finding("white", shade / 255),) for shade in shades
    ]


def test_missing_and_damaged_images_are_none_and_never_clean(tmp_path: Path) -> None:
    whole = picture(tmp_path / "whole.png")
    torn = tmp_path / "torn.png"
    torn.write_bytes(whole.read_bytes()[:40])
    found = examine(bright, {"whole": whole, "torn": torn, "gone": tmp_path / "gone.png"}, name="mine")
    assert found["whole"] is not None
    assert found["torn"] is None
    assert found["gone"] is None


def test_a_detector_that_raises_is_a_failed_run(tmp_path: Path) -> None:
    def broken(pictures: Sequence[Image.Image]) -> list[list[Finding]]:
        raise ValueError("no such\nlayer")

    with pytest.raises(ScoreFailed, match=r"detector mine has failed \(ValueError: no such layer\)"):
        examine(broken, {"one": picture(tmp_path / "one.png")}, name="mine")


def test_an_error_of_our_own_is_passed_on(tmp_path: Path) -> None:
    def missing(pictures: Sequence[Image.Image]) -> list[list[Finding]]:
        raise MissingExtra("install it")

    with pytest.raises(MissingExtra, match="install it"):
        ask(missing, [Image.new("RGB", (8, 8))], name="mine")


def test_a_wrong_number_of_answers_is_a_failed_run() -> None:
    with pytest.raises(ScoreFailed, match="gave 1 answers for 2 images"):
        ask(lambda pictures: [[]], [Image.new("RGB", (8, 8))] * 2, name="mine")


@pytest.mark.parametrize("score", [float("nan"), -0.1, 1.5])
def test_a_score_that_is_none_is_a_failed_run(score: float) -> None:
    with pytest.raises(ScoreFailed, match='gave "x" the score'):
        ask(lambda pictures: [[Finding("x", score)]], [Image.new("RGB", (8, 8))], name="mine")
