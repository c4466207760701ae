"""How often a detector is right, on labelled images: sensitivity and specificity of each label with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from erase.errors import BadEvidence
from erase.evaluate.detections import AT_ONCE, Detector, Policy, count, counted, examine
from erase.evaluate.result import hashes_of
from erase.evaluate.statistics.corrected import Answers
from erase.evaluate.statistics.intervals import wilson
from erase.evidence.stored import Held, part, read
from erase.files import content_hash, sha256_of

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
CARRIED = Path(__file__).parent / "calibrations"


def labelled_images(folder: Path) -> dict[str, list[Path]]:
    """The pictures in each sub-folder, which is named by what they show.

    Raises BadEvidence for a folder that holds no two such, or pictures beside its sub-folders.
    """
    if not folder.is_dir():
        raise BadEvidence(f"{folder} is no folder; expected one with a sub-folder of pictures for each label.")
    loose = [path.name for path in folder.iterdir() if path.is_file() and path.suffix.lower() in PICTURES]
    if loose:
        raise BadEvidence(
            f"{folder} holds pictures without a label (first: {sorted(loose)[0]}); put them in sub-folders."
        )
    found = {
        one.name: sorted(path for path in one.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
        for one in sorted(folder.iterdir())
        if one.is_dir()
    }
    if len(found) < 2 or not all(found.values()):
        empty = next((name for name, paths in found.items() if not paths), None)
        what = f'the sub-folder "{empty}" holds no picture' if empty else f"{len(found)} sub-folders are in {folder}"
        raise BadEvidence(f"{what}; expected two labels or more, each a sub-folder with its pictures.")
    return found


def calibrate(
    detector: Detector,
    policy: Policy,
    labelled: Mapping[str, Sequence[Path]],
    *,
    domain: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The answers of a detector by label: of images that show it and of all others, with Wilson's intervals.

    An image that cannot be read counts as a mistake, whichever it is. Raises ScoreFailed if the detector fails.
    """
    pictures = [(label, path) for label, paths in labelled.items() for path in paths]
    found = []
    for begin in range(0, len(pictures), AT_ONCE):
        batch = {str(number): path for number, (_, path) in enumerate(pictures[begin : begin + AT_ONCE])}
        found += list(examine(detector, batch, name=policy.detector).values())
        if progress is not None:
            progress(len(found), len(pictures))
    labels = {}
    for label in labelled:
        seen = [
            None if one is None else count(counted(one, policy, concepts=(label,), domain=domain), policy) > 0
            for one in found
        ]
        shown = [answer for answer, (own, _) in zip(seen, pictures, strict=True) if own == label]
        others = [answer for answer, (own, _) in zip(seen, pictures, strict=True) if own != label]
        answers = Answers(
            len(shown), sum(bool(one) for one in shown), len(others), sum(one is not False for one in others)
        )
        labels[label] = told(answers)
    hashes = content_hash([[label, sha256_of(path)] for label, path in pictures])
    return {
        "detector": policy.detector,
        "version": policy.version,
        "threshold": policy.threshold,
        "files": hashes_of(detector),
        "images": {"count": len(pictures), "sha256": hashes},
        "labels": labels,
    }


def told(answers: Answers) -> dict[str, Any]:
    """Counts, and what follows from them: both rates with their 95 % intervals."""
    right = answers.negatives - answers.false
    return dataclasses.asdict(answers) | {
        "sensitivity": [answers.sensitivity, *wilson(answers.found, answers.positives)],
        "specificity": [answers.specificity, *wilson(right, answers.negatives)],
    }


def carried_for(held: Held) -> dict[str, Any]:
    """The calibrations that this package carries of the detectors of a result: of the very same files alone."""
    found = {}
    for path in sorted(CARRIED.glob("*.json")):
        value = read(path)
        if fits(held, value):
            found[str(value["detector"])] = value
    return found


def fits(held: Held, calibration: Mapping[str, Any]) -> bool:
    """Whether a calibration is of a detector that a result rests on: its files, its version and its threshold."""
    name = calibration.get("detector")
    files = part(part(held.result, "hashes"), "detectors").get(str(name))
    forms = [form for form in (*held.protocol.form.detector, *held.protocol.form.keeper) if form.name == name]
    return (
        files is not None
        and files == calibration.get("files")
        and all(
            (one.version, one.threshold) == (calibration.get("version"), calibration.get("threshold")) for one in forms
        )
    )
