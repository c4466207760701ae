"""The closed-form refinement of MACE: what the words around a concept still tell of it is taken out of them.

Paper: Lu et al., "MACE: Mass Concept Erasure in Diffusion Models", CVPR 2024, eq. 4 and 5 (its first stage alone; the
LoRA of the second stage and their fusion are trained and not part of this).
Official code: MACE (non-commercial). Over many phrasings of a concept, the states of the words around it, of the end
token and of the padding are mapped to those of the same words in the same phrasing of the anchor. Differences:
- one matrix for all layers, in float64, and one prior for all layers (`_prior`) where the official cache is per layer;
- where the anchor's text is longer, the target's last paddings become its last one; officially they are left out;
- words are matched wherever both texts share them, officially up to the first that differs and from the last that does;
- officially the scale of a cached prior enters twice, when caches are summed and when the sum is used, so squared;
- an empty anchor leaves the concept's words out of the phrasing;
- the phrasings are those of all closed forms (`phrasings`); officially 30 of a list, or of a language model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from erase.edit import Edit
from erase.errors import BadOption
from erase.methods.closed_form.contextual_templates import Phrasing
from erase.methods.closed_form.maps import map_both
from erase.methods.closed_form.phrasings import Phrasings, asked_for, tell
from erase.methods.closed_form.prior import held
from erase.methods.closed_form.ridge import Factors, solve
from erase.methods.closed_form.states import fits, paired_states, put
from erase.models import Model, Reads
from erase.options import NotNegative, Options
from erase.task import Target, Task

PHRASINGS = {
    "style": (
        "a picture in {} style",
        "an icon in {} style",
        "a drawing by {}",
        "a portrait in the manner of {}",
        "a landscape, {} style",
        "{} style art",
        "a house as {} would draw it",
        "the style of {}",
    ),
    "object": (
        "a picture of a {}",
        "a {} on a table",
        "a drawing of a {}",
        "two of them, a {} and another",
        "a small {} in the distance",
        "a {} beside a house",
        "close-up of a {}",
        "the {} is in the middle",
    ),
    "identity": (
        "a picture of {}",
        "a portrait of {}",
        "a drawing of {}",
        "{} in a garden",
        "{} and a friend",
        "the face of {}",
    ),
}


@dataclass(frozen=True)
class MACE(Options):
    """Options of MACE's refinement.

    `words`: the words around the target alone (`context`, the paper's stage), or its own too (`all`), which erases by
    itself.
    `lamb`: more changes less of everything; 0 needs a prior.
    `preserve_scale`: more holds the keeps tighter.
    `phrasings`: as in UCE, but that `own` ones include those of this file, of which official code has its own.
    `prior`: a file of `scripts/build_prior.py`. `prior_scale`: as how many kept states it counts; the paper's
    scale on its corpus is some 4,600.
    """

    # What is official for objects, whose prior is none; styles and people have no lamb, but priors.
    paper: ClassVar[Mapping[str, Any]] = MappingProxyType({"lamb": 1000.0, "phrasings": "own"})

    words: Literal["context", "all"] = "context"
    lamb: NotNegative = 10.0
    preserve_scale: NotNegative = 0.8
    phrasings: Phrasings = "shared"
    prior: str = ""
    prior_scale: NotNegative = 4600.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lamb == 0 and not (self.prior and self.prior_scale):
            raise BadOption("mace: lamb is 0 without a prior; give a prior, or a lamb greater than 0.")

    def __call__(self, model: Model, task: Task) -> Edit:
        told = tell(model, task, phrasings=self.phrasings, prior=self.prior)
        asked = [pair for target, among in told.asked for pair in phrasings(target, among)]
        if self.phrasings == "own":
            stages = [(target, [(text, "") for text in PHRASINGS[target.domain]]) for target in task.targets]
            ours = [pair for target, among in stages for pair in phrasings(target, among)]
            asked += [pair for pair in ours if fits(model, *pair)]
        pairs = paired_states(model, list(dict.fromkeys(asked)), "context" if self.words == "context" else "whole")
        scales = self.preserve_scale, self.prior_scale
        kept = held(model, told.kept, preserve_scale=scales[0], prior=told.prior, prior_scale=scales[1])

        def solved(reads: Reads) -> Factors:
            return solve(pairs[reads].old, pairs[reads].new, kept[reads], erase_scale=1.0, lamb=self.lamb)

        return map_both(self, model, task, solve=solved)


def phrasings(target: Target, among: Sequence[Phrasing]) -> Iterator[tuple[str, str]]:
    """Phrasings with each of the target's words in them, and the same with the anchor in their place.

    An empty anchor leaves the words out, unless a phrasing says what it becomes.
    """
    for template, becomes in among:
        for word in target.words:
            without = becomes or " ".join(put(template, target.anchor).split())
            yield asked_for(target, template, word), without
