"""Detectors on labelled images: counts, intervals, and what becomes of rates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from erase.errors import BadEvidence
from erase.evaluate.detections import Finding, Policy
from erase.evaluate.statistics.intervals import wilson
from erase.evidence.calibrate import CARRIED, calibrate, labelled_images
from erase.evidence.check import check_pack
from erase.evidence.pack import Beside, write_pack
from erase.evidence.stored import CALIBRATION, FIGURES, hold
from erase.models import open_model
from tests.evidence.packs import change, hash_anew, values
from tests.recipes import command, refused

POLICY = Policy("judge", "emoji-v1", threshold=0.5)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Ten red and ten blue pictures; two of the red ones are blue, one of the blue ones red."""
    for label, colours in (("noto", "r" * 8 + "bb"), ("twemoji", "b" * 9 + "r")):
        for number, colour in enumerate(colours):
            path = tmp_path / "bilder" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), "red" if colour == "r" else "blue").save(path)
    return tmp_path / "bilder"


def by_colour(pictures: Sequence[Image.Image]) -> list[list[Finding]]:
    """Red is noto, blue is twemoji."""
    names = ["noto" if picture.getpixel((0, 0)) == (255, 0, 0) else "twemoji" for picture in pictures]
    return [[Finding(name, 0.9, "style")] for name in names]


def test_answers_are_counted_by_label(labelled: Path) -> None:
    found = calibrate(by_colour, POLICY, labelled_images(labelled), domain="style")["labels"]["noto"]
    assert (found["positives"], found["found"], found["negatives"], found["false"]) == (10, 8, 10, 1)
    assert found["sensitivity"][0] == pytest.approx(0.8)
    assert found["specificity"][0] == pytest.approx(0.9)
    assert found["sensitivity"][1] == pytest.approx(0.4902, abs=1e-4)  # Wilson, 8 of 10


def test_an_image_that_cannot_be_read_is_a_mistake_of_both_kinds(labelled: Path) -> None:
    (labelled / "noto/0.png").write_bytes(b"no picture")
    found = calibrate(by_colour, POLICY, labelled_images(labelled))["labels"]
    assert (found["noto"]["positives"], found["noto"]["found"]) == (10, 7)
    assert (found["twemoji"]["negatives"], found["twemoji"]["false"]) == (10, 3)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda folder: (folder / "leer").mkdir(), '"leer" holds no picture'),
        (lambda folder: Image.new("RGB", (8, 8)).save(folder / "loose.png"), "without a label"),
    ],
)
def test_a_folder_that_is_not_labelled_is_refused(labelled: Path, how: object, said: str) -> None:
    how(labelled)  # type: ignore[operator]
    with pytest.raises(BadEvidence, match=said):
        labelled_images(labelled)


def test_a_pack_corrects_its_rates_by_a_calibration_and_its_check_computes_them_anew(
    verifications: tuple[Path, Path], labelled: Path, tmp_path: Path
) -> None:
    found = calibrate(by_colour, POLICY, labelled_images(labelled), domain="style")
    write_pack(verifications[0], tmp_path / "pack", Beside(calibrations={"judge": found}))
    corrected = values(tmp_path / "pack", FIGURES)["corrected"][0]
    # nothing was seen: the corrected rate is 0, its interval wider than that of a detector without mistakes
    assert corrected["after"]["value"] == 0
    assert corrected["after"]["high"] > wilson(0, 16)[1]
    assert corrected["before"]["value"] == 1
    assert check_pack(tmp_path / "pack").problems == ()
    change(tmp_path / "pack", CALIBRATION, lambda told: told["judge"]["labels"]["noto"].update(sensitivity=[1, 0.9, 1]))
    hash_anew(tmp_path / "pack")
    assert {name for name, _ in check_pack(tmp_path / "pack").problems} == {"detectors"}


def test_a_calibration_of_another_detector_is_refused(
    verifications: tuple[Path, Path], labelled: Path, tmp_path: Path
) -> None:
    found = calibrate(by_colour, POLICY, labelled_images(labelled)) | {"files": {"style/model.safetensors": "0" * 64}}
    with pytest.raises(BadEvidence, match="another judge"):
        write_pack(verifications[0], tmp_path / "pack", Beside(calibrations={"judge": found}))


def test_the_carried_calibration_is_of_the_embedded_judge_as_it_is() -> None:
    from erase.evaluate.detectors.judge import Judge
    from erase.evaluate.result import hashes_of

    told = json.loads((CARRIED / "emoji-judge.json").read_text(encoding="utf-8"))
    folder = open_model("emoji").judge_folder
    assert folder is not None
    assert told["files"] == hashes_of(Judge(folder))
    assert len(told["labels"]) == 58
    assert all(one["positives"] == 200 for one in told["labels"].values())


def test_the_command_writes_a_calibration_that_a_pack_takes(
    capsys: pytest.CaptureFixture[str], labelled: Path, tmp_path: Path, verifications: tuple[Path, Path]
) -> None:
    look = "[[('noto' if one.getpixel((0, 0))[0] else 'twemoji', 0.9)] for one in pictures]"
    code = f"def detect(pictures):\n    return {look}\n"
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    line = ("calibrate", "callable", labelled, "--with", f"callable={tmp_path / 'mine.py'}", "--threshold", "0.5")
    said = command(capsys, *line, "--out", tmp_path / "mine.json")
    assert said.code == 0, said.errors
    assert "sensitivity 80.0 % (49.0 to 94.3)" in said.out
    # it is of another detector than the one of this folder
    more = ("--calibration", tmp_path / "mine.json", "--out", tmp_path / "pack")
    assert "another callable" in refused(capsys, "evidence", verifications[0], *more)
    assert hold(verifications[0]).calibrations == {}
