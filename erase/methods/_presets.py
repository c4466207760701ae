"""Named options of a method: what its paper or its official code sets for each kind of concept.

docs/train.md lists them all and says which are whose.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Presets = Mapping[str, Mapping[str, Any]]
PRESETS = ("style", "object", "identity", "nsfw")
# How ESD's code and those that followed it sample a trajectory.
SAMPLED: Mapping[str, Any] = MappingProxyType({"sampling_steps": 50, "sampling_guidance": 3.0})


def presets(common: Mapping[str, Any], **others: Mapping[str, Any]) -> Presets:
    """A method's presets: what all have in common, and in what some differ from it."""
    return MappingProxyType({name: MappingProxyType({**common, **others.get(name, {})}) for name in PRESETS})
