"""What must stay in general: the second moment of the states of a corpus of captions, one matrix per text encoder.

The reference code of MACE caches, for every layer, sum_j (W r_j) r_j^T and sum_j r_j r_j^T over all caption tokens r.
The second is the same for all layers and the first is W times it, so that one matrix is enough for every model that
shares the text encoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from erase.errors import BadWeights, ModelMismatch, PickleRefused
from erase.files import content_hash, write_atomically
from erase.methods.closed_form.encoder_probe import EncoderProbe
from erase.methods.closed_form.maps import spaces_of
from erase.methods.closed_form.ridge import gram
from erase.methods.closed_form.states import AT_ONCE, all_grams, last_states
from erase.models import Model, Reads
from erase.models.identity import canonical, identity_keys
from erase.models.storage.weights import weights_digest

KeepTokens = Literal["all", "last"]
METADATA_KEY = "erase.prior"
_INNER = "read by "  # in front of a weight's name
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".npz")


@dataclass(frozen=True)
class Source:
    """Where a prior comes from: its text encoder's fingerprint, its captions' hash, the tokens counted."""

    encoder: str
    captions_sha256: str
    captions: int
    tokens: int


@dataclass(frozen=True)
class Prior:
    """The sum of r r^T over a corpus's token states, padding included, [width, width] float64.

    `pooled` is the same of its pooled states, where the model's weights read any. `inner`: the second moment of what a
    weight inside the text encoder reads at the captions' own tokens, by the weight's name.
    """

    gram: Tensor
    source: Source
    pooled: Tensor | None = None
    inner: Mapping[str, Tensor] = field(default_factory=dict)

    def read_by(self, weight: str) -> Tensor:
        """The second moment of what a weight inside the text encoder reads; raises BadWeights if it was not counted."""
        if weight not in self.inner:
            there = ", ".join(sorted(self.inner)) or "none"
            raise BadWeights(
                f"the prior lacks what {weight} reads (it has {there}); build it with scripts/build_prior.py --layer, "
                "for the layer that is edited."
            )
        return self.inner[weight]

    @property
    def mean(self) -> Tensor:
        """The token states' second moment, [width, width]."""
        return self.gram / self.source.tokens

    @property
    def means(self) -> dict[Reads, Tensor]:
        """The second moments of all states that there are."""
        pooled: dict[Reads, Tensor] = {}
        if self.pooled is not None:
            pooled["pooled"] = self.pooled / self.source.captions
        return {"tokens": self.mean, **pooled}

    def save(self, path: Path) -> None:
        """Writes one safetensors file; the same prior gives the same bytes."""
        info = json.dumps(asdict(self.source), sort_keys=True)
        tensors = {"gram": self.gram} | ({} if self.pooled is None else {"pooled": self.pooled})
        tensors |= {f"{_INNER}{name}": moment for name, moment in self.inner.items()}
        write_atomically(path, save(tensors, metadata={METADATA_KEY: info}))


def build_prior(model: Model, captions: Sequence[str], *, layer: int | None = None) -> Prior:
    """The prior of captions on a model's text encoder, with what a layer's `mlp.fc2` reads if one is given.

    Raises PromptTooLong, BadWeights on no caption, and what `Tower.of` raises.
    """
    unique = list(dict.fromkeys(captions))
    if not unique:
        raise BadWeights("there is no caption to build a prior from; give a file with at least one.")
    total, tokens = all_grams(model, unique)
    source = Source(encoder_fingerprint(model), content_hash(unique), len(unique), tokens)
    inner = {} if layer is None else _inner_moment(EncoderProbe.of(model, layer), unique)
    return Prior(total["tokens"], source, total.get("pooled"), inner)


def _inner_moment(tower: EncoderProbe, captions: Sequence[str]) -> dict[str, Tensor]:
    total, count = gram(tower.inputs(captions[:1])[:0]), 0
    for begin in range(0, len(captions), AT_ONCE):
        seen = tower.inputs(captions[begin : begin + AT_ONCE])
        total, count = total + gram(seen), count + len(seen)
    return {tower.weight_name: total / count}


def load_prior(path: Path, model: Model) -> Prior:
    """The prior in a file; raises BadWeights, PickleRefused, ModelMismatch if it is another text encoder's."""
    if path.suffix in _PICKLES:
        raise PickleRefused(f"{path} may run code when it is read; expected the safetensors of scripts/build_prior.py.")
    if not path.is_file():
        raise BadWeights(f"prior {path} does not exist; build one from captions with scripts/build_prior.py.")
    try:
        with safe_open(path, framework="pt") as file:
            source = Source(**json.loads((file.metadata() or {})[METADATA_KEY]))
            total: Tensor = file.get_tensor("gram")
            keys = set(file.keys())
            pooled: Tensor | None = file.get_tensor("pooled") if "pooled" in keys else None
            inner = {key.removeprefix(_INNER): file.get_tensor(key) for key in keys if key.startswith(_INNER)}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise BadWeights(f"{path} is no prior ({error}); build one with scripts/build_prior.py.") from error
    if source.encoder != (expected := encoder_fingerprint(model)):
        raise ModelMismatch(
            f"prior {path} was built for the text encoder {source.encoder[:12]}, this model's is {expected[:12]}; "
            "build one for this model."
        )
    if "pooled" in spaces_of(model) and pooled is None:
        raise BadWeights(f"prior {path} lacks the pooled states that this model reads; build it again for this model.")
    return Prior(total, source, pooled, inner)


def encoder_fingerprint(model: Model) -> str:
    """Identity of the text encoders alone: a hash over their weights' values."""
    named: list[tuple[str, Tensor]] = []
    for component in model.text_components:
        weights = model.weights(component)
        keys = sorted(identity_keys(weights.places).values())
        named += [(f"{component}.{canonical(key)}", value) for key, value in weights.tensors(keys)]
    return weights_digest(sorted(named, key=lambda pair: pair[0]))


def held(
    model: Model,
    kept: Sequence[str],
    *,
    preserve_scale: float,
    prior: Prior | None = None,
    prior_scale: float = 0.0,
    keep_tokens: KeepTokens = "all",
) -> dict[Reads, Tensor]:
    """H of the ridge problem of each kind of states, float64 [width, width]: the kept texts' states, and a prior's.

    A prior counts as so many more states.
    """
    if keep_tokens == "last":
        moments = {reads: gram(states) for reads, states in last_states(model, kept).items()}
    else:
        moments, _ = all_grams(model, kept)
    moments = {reads: preserve_scale * moment for reads, moment in moments.items()}
    if prior is not None:
        moments = {reads: moment + prior_scale * prior.means[reads] for reads, moment in moments.items()}
    return moments
