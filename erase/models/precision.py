"""Whether two models are one in different precisions: told by what the finer one's weights become when rounded.

A fingerprint is the same for a file of half precision and its float32 copy, but not for a model in float32 and the file
to which its publisher rounded it. The finer model's weights rounded to float16 or bfloat16 have the coarser one's
fingerprint, so whichever of the two is at hand, the other is recognised: an edit that was made on the finer one carries
its rounded fingerprints, and for one that was made on the coarser the finer model is rounded when it is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from erase.models.model import Model
from erase.models.storage.weights import rounded_digests

HALVES: Mapping[str, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Rounding:
    """How a model differs from the one an edit was made on: it is finer, or is rounded, to or from `dtype`."""

    dtype: str
    finer: bool

    def __str__(self) -> str:
        made, here = (self.dtype, "a finer precision") if self.finer else ("a finer precision", self.dtype)
        return f"the edit was made on this model in {made}, and it is here in {here}"


def rounded_fingerprints(model: Model) -> dict[str, str]:
    """The fingerprints that a model would have in half precision; none of one that is in half precision itself.

    Of files in half precision one tensor is read: an edit of gigabytes is not to wait for hashes that nobody needs.
    """
    if next(iter(model.identity()))[1].element_size() < 4:
        return {}
    found = rounded_digests(model.identity(), HALVES)
    return {} if model.fingerprint in found.values() else found


def find_rounding(
    base: str, rounded: Mapping[str, str], own: str, *, identity: Iterable[tuple[str, Tensor]]
) -> Rounding | None:
    """How a model of the fingerprint `own` differs from an edit's base; None if it is another model.

    `base`, `rounded`: fingerprints of the edit's base, as it is and in half precision. `identity`: the weights that
    make up the model's own, sorted by name; they are read only if need be.
    """
    for dtype, digest in rounded.items():
        if digest == own:
            return Rounding(dtype, finer=False)
    for dtype, digest in rounded_digests(identity, HALVES).items():
        if digest == base:
            return Rounding(dtype, finer=True)
    return None
