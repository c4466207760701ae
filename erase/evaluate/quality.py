"""Quality of what must stay: CLIP scores image by image, and distances between all images before and after.

The distances are to the base model's own images of the same prompts, not to photographs, and say so in their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from erase.errors import ScoreFailed
from erase.evaluate.aggregate import Total
from erase.evaluate.detectors._clip import ClipFolder
from erase.evaluate.distances import cmmd, kid
from erase.evaluate.generate import row_key
from erase.evaluate.looking import Given, Key
from erase.evaluate.protocol import Case, Protocol
from erase.evaluate.shots import read_picture

Vectors = Mapping[Key, torch.Tensor]


@dataclass(frozen=True)
class Eyes:
    """The CLIP by which quality is measured, and the images that it looks at; it sees nothing without a scorer."""

    towers: ClipFolder | None
    keys: frozenset[Key] = frozenset()

    def vectors(self, images: Sequence[tuple[Key, Path]]) -> Vectors:
        """The unit vector of each of the images that it looks at and can read."""
        asked = {key: path for key, path in images if key in self.keys} if self.towers else {}
        pictures = {key: read_picture(path) for key, path in asked.items()}
        readable = {key: picture for key, picture in pictures.items() if picture is not None}
        if self.towers is None or not readable:
            return {}
        return dict(zip(readable, self.towers.pictures(list(readable.values())), strict=True))


def eyes_of(protocol: Protocol, cases: Sequence[Case], given: Given) -> Eyes:
    """Those that a protocol's scorers need, for what must stay; raises ScoreFailed without a CLIP."""
    if not protocol.form.scorers:
        return Eyes(None)
    towers = ClipFolder(given.path("clip", purpose=f"the scorer {protocol.form.scorers[0]}"))
    return Eyes(towers, frozenset(row_key(case.row) for case in cases if case.role == "kept"))


def clip_scores(
    protocol: Protocol, cases: Sequence[Case], eyes: Eyes, *, before: Vectors, after: Vectors
) -> dict[int, tuple[float, float]]:
    """100 times the cosine of image and caption before and after, for each kept case by its number, if it is scored.

    A missing image has the score 0.
    """
    kept = {number: case for number, case in enumerate(cases) if case.role == "kept"}
    if "clip" not in protocol.form.scorers or eyes.towers is None or not kept:
        return {}
    captions = list(dict.fromkeys(case.caption for case in kept.values()))
    texts = dict(zip(captions, eyes.towers.texts(captions), strict=True))

    def score(vectors: Vectors, case: Case) -> float:
        image = vectors.get(row_key(case.row))
        return 0.0 if image is None else 100 * float(image @ texts[case.caption])

    return {number: (score(before, case), score(after, case)) for number, case in kept.items()}


def set_distances(protocol: Protocol, eyes: Eyes, *, before: Vectors, after: Vectors) -> tuple[Total, ...]:
    """CMMD and KID of the kept images after the edit to those before it, by the CLIP given, if the protocol asks.

    Raises ScoreFailed if an image is missing: a distance has no worst case to count it as.
    """
    wanted = [name for name in ("cmmd", "kid") if name in protocol.form.scorers]
    if not wanted:
        return ()
    lacking = len(eyes.keys) - min(len(before), len(after))
    if lacking:
        raise ScoreFailed(f"{lacking} of {len(eyes.keys)} images are missing; a distance needs them all.")
    one, other = (np.stack([part[key].double().numpy() for key in sorted(eyes.keys)]) for part in (before, after))
    totals = []
    if "cmmd" in wanted:
        totals.append(Total("CMMD to the base model's images", 0.0, cmmd(one, other), "lower", "plain"))
    if "kid" in wanted:
        value = kid(one, other, subset=min(1000, len(one))).value
        totals.append(Total("KID of CLIP vectors to the base model's images", 0.0, value, "lower", "plain"))
    return tuple(totals)
