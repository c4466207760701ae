"""Named options of a method: what its paper or its official code sets for each kind of concept."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Presets = Mapping[str, Mapping[str, Any]]
PRESETS = ("style", "object", "identity", "nsfw")


def presets(common: Mapping[str, Any], **others: Mapping[str, Any]) -> Presets:
    """A method's presets: what all have in common, and in what some differ from it."""
    return MappingProxyType({name: MappingProxyType({**common, **others.get(name, {})}) for name in PRESETS})
