"""Double projection (DP): each target's state is exchanged for its safe part, in the directions that no keep uses.

Paper: "Double Projection", CVPR 2026, arXiv 2604.10032; no official code was found, and the map below is derived from
its two projections. With C the targets' states as columns, C* what they become, K the states to keep and U an
orthonormal basis of what K leaves, P = U U^T, every weight that reads the states becomes W M with

    M = I + (C* - C) (C^T P C)^-1 C^T P.

M C = C* and M K = K hold exactly, and M - I has the rank of C: one for each state that is edited, so that its LoRA is
tiny. The first projection is P; the second takes C* = S (S^T S)^+ S^T C, the part of a target that the safe states S
span. Here S are the states that the anchors have in the target's place.

Differences from it, where an option says so:
- of keeps that fill the space, the main directions are held (`hold`), not all; or the last words' states alone
  (`keep_tokens: last`), of which a hundred fit into CLIP's 768 dimensions, where all 77 of twenty prompts do not;
- `value: anchor` takes the anchor's state itself for C*;
- `tokens: all` edits every state from the first token that differs, padding included, of all shared phrasings; then
  C^T P C has no inverse and a ridge is added, `lamb` times its largest eigenvalue;
- the start token and the empty prompt are among the keeps.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from erase.edit import Edit
from erase.errors import BadOption
from erase.methods.closed_form.maps import map_both
from erase.methods.closed_form.phrasings import Phrasings, tell
from erase.methods.closed_form.prior import KeepTokens, held
from erase.methods.closed_form.ridge import SAME, Factors, gram, smaller, span
from erase.methods.closed_form.spectrum import complement, main_directions
from erase.methods.closed_form.states import Pairs, empty_states, paired_states
from erase.models import Model, Reads
from erase.options import NotNegative, Options, Share
from erase.task import Task

_log = logging.getLogger(__name__)
FAR = 1e6  # a condition number from which on the targets lie close to what is kept


@dataclass(frozen=True)
class DP(Options):
    """Options of double projection.

    `value`: what a target becomes, the part of it that the anchors' states span (`safe`) or the anchor (`anchor`),
    which goes further.
    `hold`: the share of the keeps' energy that does not move at all; more keeps better and leaves less to erase by.
    `lamb`: a ridge, as a share of the targets' largest direction; more moves less where targets lie close to keeps.
    `tokens`: which token states are edited, as in UCE; more of them erase further and have a higher rank.
    `keep_tokens`: which states of a keep are held, all of them or its last word's alone.
    `phrasings`: as in UCE.
    """

    # The paper's: the words of the targets alone, and their safe part.
    paper: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"value": "safe", "hold": 1.0, "lamb": 0.0, "tokens": "last", "keep_tokens": "last", "phrasings": "own"}
    )

    value: Literal["safe", "anchor"] = "anchor"
    hold: Share = 0.9
    lamb: NotNegative = 1e-3
    tokens: Literal["last", "aligned", "all"] = "all"
    keep_tokens: KeepTokens = "all"
    phrasings: Phrasings = "shared"

    def __call__(self, model: Model, task: Task) -> Edit:
        told = tell(model, task, phrasings=self.phrasings)
        pairs, empty = paired_states(model, told.pairs, self.tokens), empty_states(model)
        kept = held(model, ["", *told.kept], preserve_scale=1.0, keep_tokens=self.keep_tokens)
        conditions: dict[str, float] = {}

        def solved(reads: Reads) -> Factors:
            fixed = torch.cat([empty[reads].double()[:1], main_directions(kept[reads], self.hold).T])
            factors, conditions[reads] = double_projection(pairs[reads], complement(fixed), method=self)
            return factors

        edit = map_both(self, model, task, solve=solved)
        if (worst := max(conditions.values())) > FAR:
            _log.warning(
                "dp: targets lie close to what is kept (condition number %.0e); lower hold or raise lamb", worst
            )
        return replace(edit, info=replace(edit.info, record={"condition": conditions}))


def double_projection(pairs: Pairs, free: Tensor, *, method: DP) -> tuple[Factors, float]:
    """Factors of M - I in float64, and the condition number of what was inverted.

    `free` is U [width, directions]. Raises BadOption if nothing of the targets lies in it.
    """
    old, new = pairs.old.double(), pairs.new.double()
    if method.value == "safe":
        basis = span(new)
        new = old @ basis @ basis.T
    left, sizes, right = torch.linalg.svd(old @ free, full_matrices=False)  # of C^T U, whose square is C^T P C
    if not len(sizes) or float(sizes[0]) <= SAME * float(gram(old).trace().sqrt()):
        raise BadOption("dp: what is held leaves no direction to tell the targets by; lower hold.")
    seen = sizes > SAME * sizes[0]
    left, sizes, right = left[:, seen], sizes[seen], right[seen]
    ridge = method.lamb * sizes[0] ** 2
    down = (left * (sizes / (sizes**2 + ridge))) @ right @ free.T
    condition = float((sizes[0] ** 2 + ridge) / (sizes[-1] ** 2 + ridge))
    return smaller((new - old).T, down), condition
