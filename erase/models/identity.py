"""How the tensors that make up a model's identity are named, whichever version of a library wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from erase.models.storage.weights import SCALES


def identity_keys(keys: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
    """A text encoder's keys by their canonical spelling, without buffers and without what is stored twice."""
    named = {canonical(key): key for key in keys if not key.endswith(("position_ids", *SCALES))}
    if "shared.weight" in named:  # T5's table of tokens, which some files hold under both of its names
        named.pop("encoder.embed_tokens.weight", None)
    return named


def canonical(key: str) -> str:
    """A text encoder's key without the prefix that some versions of transformers write and others do not."""
    return key.removeprefix("text_model.")
