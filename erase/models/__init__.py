"""Views of text-to-image models: how a prompt is encoded, and which weights it reaches."""

from __future__ import annotations

from erase.models._model import Encoding, Model, Site
from erase.models._open import open_model

__all__ = ["Encoding", "Model", "Site", "open_model"]
