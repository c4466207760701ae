"""Quality of what must stay: CLIP scores image by image, and distances between all images before and after.

The distances are to the base model's own images of the same prompts, not to photographs, and say so in their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from erase.errors import ScoreFailed
from erase.evaluate.aggregate import Total
from erase.evaluate.detections import AT_ONCE
from erase.evaluate.detectors._clip import ClipFolder
from erase.evaluate.distances import cmmd, kid
from erase.evaluate.generate import row_key
from erase.evaluate.looking import Given, Key
from erase.evaluate.protocol import Case, Protocol
from erase.evaluate.shots import read_picture

Images = Mapping[str, Mapping[Key, Path]]  # by side, then by prompt and seed
Vectors = Mapping[Key, torch.Tensor]


def clip_scores(
    protocol: Protocol, cases: Sequence[Case], images: Images, *, given: Given
) -> dict[int, tuple[float, float]]:
    """100 times the cosine of image and caption before and after, for each kept case by its number, if it is scored.

    A missing image has the score 0. Raises ScoreFailed without a CLIP.
    """
    if "clip" not in protocol.form.scorers:
        return {}
    kept = {number: case for number, case in enumerate(cases) if case.role == "kept"}
    towers = ClipFolder(given.path("clip", purpose="the scorer clip"))
    captions = list(dict.fromkeys(case.caption for case in kept.values()))
    texts = dict(zip(captions, towers.texts(captions), strict=True)) if captions else {}
    vectors = {side: picture_vectors(towers, list(kept.values()), paths) for side, paths in images.items()}

    def score(side: str, case: Case) -> float:
        image = vectors[side].get(row_key(case.row))
        return 0.0 if image is None else 100 * float(image @ texts[case.caption])

    return {number: (score("before", case), score("after", case)) for number, case in kept.items()}


def set_distances(protocol: Protocol, cases: Sequence[Case], images: Images, *, given: Given) -> tuple[Total, ...]:
    """CMMD and KID of the kept images after the edit to those before it, by the CLIP given, if the protocol asks.

    Raises ScoreFailed without a CLIP, and if an image is missing: a distance has no worst case to count it as.
    """
    wanted = [name for name in ("cmmd", "kid") if name in protocol.form.scorers]
    if not wanted:
        return ()
    kept = [case for case in cases if case.role == "kept"]
    towers = ClipFolder(given.path("clip", purpose=f"the scorer {wanted[0]}"))
    vectors = [picture_vectors(towers, kept, images[side]) for side in ("before", "after")]
    count = len({row_key(case.row) for case in kept})
    if min(map(len, vectors)) < count:
        raise ScoreFailed(f"{count - min(map(len, vectors))} of {count} images are missing; a distance needs them all.")
    before, after = (torch.stack(list(part.values())).double().numpy() for part in vectors)
    totals = []
    if "cmmd" in wanted:
        totals.append(Total("CMMD to the base model's images", 0.0, cmmd(before, after), "lower", "plain"))
    if "kid" in wanted:
        size = min(1000, len(before))
        value = kid(before, after, subset=size).value
        totals.append(Total("KID of CLIP vectors to the base model's images", 0.0, value, "lower", "plain"))
    return tuple(totals)


def picture_vectors(towers: ClipFolder, cases: Sequence[Case], paths: Mapping[Key, Path]) -> Vectors:
    """The unit vector of each image that can be read, once each."""
    keys = list(dict.fromkeys(row_key(case.row) for case in cases))
    vectors: dict[Key, torch.Tensor] = {}
    for start in range(0, len(keys), AT_ONCE):
        pictures = {key: read_picture(paths[key]) for key in keys[start : start + AT_ONCE]}
        readable = {key: picture for key, picture in pictures.items() if picture is not None}
        if readable:
            vectors |= dict(zip(readable, towers.pictures(list(readable.values())), strict=True))
    return vectors
