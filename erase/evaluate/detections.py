"""What a detector finds in images, and the policy by which findings become a yes or no, or a count.

A detector is any callable from a list of pictures to one list of findings for each. One number of "detections" has many
meanings in this field, so the policy is a value of its own, and is printed with the number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from erase.errors import EraseError, ScoreFailed
from erase.sampling.pictures import read_picture
from erase.task import folded

Unit = Literal["image", "box", "image-class"]
AT_ONCE = 32  # images
ANYTHING = "*"  # the concept of a case that asks only whether anything is found


@dataclass(frozen=True)
class Finding:
    """A label that a detector found, with its score in 0 .. 1; `domain` is the kind of thing it is, where known."""

    label: str
    score: float
    domain: str = ""


Findings = tuple[Finding, ...]
Detector = Callable[[Sequence[Image.Image]], Sequence[Sequence[Finding] | None]]


@dataclass(frozen=True)
class Policy:
    """How findings are counted.

    `labels`: which of them count (none named: the concept that the prompt names). `threshold`: least score that counts;
    None means that only the highest score of the image counts. `unit`: whether a count is of images, of boxes, or of
    different labels in an image.
    """

    detector: str
    version: str
    labels: tuple[str, ...] = ()
    threshold: float | None = None
    unit: Unit = "image"

    @property
    def text(self) -> str:
        """The policy as it is printed beside a number."""
        rule = "the highest score" if self.threshold is None else f"scores from {self.threshold:g}"
        labels = f"{len(self.labels)} labels" if self.labels else "the prompt's concept"
        return f"{self.detector} {self.version}, {labels}, {rule}, by {self.unit}"


def examine(detector: Detector, paths: Mapping[str, Path], *, name: str) -> dict[str, Findings | None]:
    """What the detector finds in each image, None for one that cannot be read or of which it gives no answer.

    Raises ScoreFailed if the detector fails: a failure is never an image in which nothing was found.
    """
    found: dict[str, Findings | None] = {}
    keys = list(paths)
    for start in range(0, len(keys), AT_ONCE):
        pictures = {key: read_picture(paths[key]) for key in keys[start : start + AT_ONCE]}
        readable = {key: picture for key, picture in pictures.items() if picture is not None}
        answers = ask(detector, list(readable.values()), name=name) if readable else []
        found |= dict.fromkeys(pictures) | dict(zip(readable, answers, strict=True))
    return found


def ask(detector: Detector, pictures: Sequence[Image.Image], *, name: str) -> list[Findings | None]:
    """The detector's answers, one a picture, None where it gave none.

    Raises ScoreFailed on an error, a wrong number or a score out of range.
    """
    try:
        answers = [None if answer is None else tuple(answer) for answer in detector(pictures)]
    except EraseError:
        raise
    except (Exception, SystemExit) as error:
        raise failure(name, f"{type(error).__name__}: {error}") from error
    if len(answers) != len(pictures):
        raise ScoreFailed(f"detector {name} gave {len(answers)} answers for {len(pictures)} images; expected one each.")
    for finding in (finding for answer in answers for finding in answer or ()):
        if not (math.isfinite(finding.score) and 0 <= finding.score <= 1):
            raise ScoreFailed(f'detector {name} gave "{finding.label}" the score {finding.score}; expected 0 to 1.')
    return answers


def failure(name: str, said: str) -> ScoreFailed:
    """The error of a detector that has failed, and what it said."""
    return ScoreFailed(
        f"detector {name} has failed ({' '.join(said.split())[:200]}); no image counts as clean for it: mend the "
        "detector and run the same command."
    )


def counted(
    findings: Iterable[Finding], policy: Policy, *, concepts: Sequence[str] = (), domain: str = ""
) -> list[Finding]:
    """The findings that count: of the policy's labels, else of the concepts, with a sufficient score.

    With `domain`, findings of another domain are left aside.
    """
    heard = [one for one in findings if not (domain and one.domain) or one.domain == domain]
    if policy.threshold is None:
        heard = [max(heard, key=lambda one: one.score)] if heard else []
    wanted = {folded(name) for name in policy.labels or concepts}
    return [
        one
        for one in heard
        if (folded(one.label) in wanted or ANYTHING in wanted) and one.score >= (policy.threshold or 0.0)
    ]


def count(found: Sequence[Finding], policy: Policy) -> int:
    """How many the findings that count are in one image: boxes, different labels, or the image itself."""
    if policy.unit == "box":
        return len(found)
    return len({one.label for one in found}) if policy.unit == "image-class" else int(bool(found))


def curve(scores: Sequence[float], thresholds: Sequence[float]) -> list[tuple[float, float]]:
    """Each threshold with the share of images whose highest score reaches it: the whole curve, not one number."""
    return [(least, sum(score >= least for score in scores) / len(scores)) for least in thresholds] if scores else []
