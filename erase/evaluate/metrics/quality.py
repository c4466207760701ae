"""Quality of what must stay: CLIP scores image by image, and distances between all images before and after.

The distances are to the base model's own images of the same prompts, not to photographs, and say so in their names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from erase.errors import ScoreFailed
from erase.evaluate.aggregate import Total
from erase.evaluate.detect import Given, Key
from erase.evaluate.detections import AT_ONCE
from erase.evaluate.metrics.distances import cmmd, kid
from erase.evaluate.metrics.lpips import Lpips
from erase.evaluate.networks.clip import ClipFolder
from erase.evaluate.protocol import Case, Protocol
from erase.sampling.pictures import read_picture
from erase.sampling.pipelined import batched

Vectors = Mapping[Key, torch.Tensor]


@dataclass(frozen=True)
class ClipEncoder:
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


def clip_encoder_of(protocol: Protocol, cases: Sequence[Case], given: Given) -> ClipEncoder:
    """Those that a protocol's scorers need, for what must stay; raises ScoreFailed without a CLIP."""
    asked = [name for name in protocol.form.scorers if name != "lpips"]
    if not asked:
        return ClipEncoder(None)
    towers = ClipFolder(given.path("clip", purpose=f"the scorer {asked[0]}"))
    return ClipEncoder(towers, frozenset(case.row.key for case in cases if case.role == "kept"))


def clip_scores(
    protocol: Protocol, cases: Sequence[Case], eyes: ClipEncoder, *, before: Vectors, after: Vectors
) -> dict[int, tuple[float, float]]:
    """100 times the cosine of image and caption before and after, for each kept case by its number, if it is scored.

    A missing image has the score 0.
    """
    kept = {number: case for number, case in enumerate(cases) if case.role == "kept"}
    if "clip" not in protocol.form.scorers or eyes.towers is None or not kept:
        return {}
    captions = list(dict.fromkeys(case.caption for case in kept.values()))
    texts = dict(zip(captions, eyes.towers.texts(captions, cut=True), strict=True))

    def score(vectors: Vectors, case: Case) -> float:
        image = vectors.get(case.row.key)
        return 0.0 if image is None else 100 * float(image @ texts[case.caption])

    return {number: (score(before, case), score(after, case)) for number, case in kept.items()}


def set_distances(protocol: Protocol, eyes: ClipEncoder, *, before: Vectors, after: Vectors) -> tuple[Total, ...]:
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


def perceptual_distances(
    protocol: Protocol, cases: Sequence[Case], images: Mapping[str, Mapping[Key, Path]], *, given: Given
) -> tuple[Total, ...]:
    """LPIPS_e of the erased images to the base model's, LPIPS_u of those that must stay, LPIPS_da; if it is asked for.

    Raises ScoreFailed without weights, and if an image is missing: a distance has no worst case to count it as.
    """
    if "lpips" not in protocol.form.scorers:
        return ()
    measure = Lpips(given.path("lpips", purpose="the scorer lpips"))
    means = {}
    for role in ("erased", "kept"):
        keys = list(dict.fromkeys(case.row.key for case in cases if case.role == role))
        values: list[float] = []
        for batch in batched(keys, AT_ONCE):
            pairs = [(read_picture(images["before"][key]), read_picture(images["after"][key])) for key in batch]
            whole = [(one, other) for one, other in pairs if one is not None and other is not None]
            values += measure(whole)
        if len(values) < len(keys):
            raise ScoreFailed(f"{len(keys) - len(values)} of {len(keys)} pairs are missing; a distance needs them all.")
        means[role] = fmean(values) if values else math.nan
    return (
        Total("LPIPS_e to the base model's images", 0.0, means["erased"], "higher", "plain"),
        Total("LPIPS_u to the base model's images", 0.0, means["kept"], "lower", "plain"),
        Total("LPIPS_da", 0.0, means["erased"] - means["kept"], "higher", "plain"),
    )
