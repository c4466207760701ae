"""Views of text-to-image models: how a prompt is encoded, and which weights it reaches."""

from __future__ import annotations

from erase.models._encoding import Condition, Encoding, Stretch
from erase.models._model import Model
from erase.models._open import open_model, saved
from erase.models._pipes import conditions_of, fingerprint_of, parameters_of, predict
from erase.models._quiet import quietly
from erase.models._sites import Reads, Role, Site

__all__ = [
    "Condition",
    "Encoding",
    "Model",
    "Reads",
    "Role",
    "Site",
    "Stretch",
    "conditions_of",
    "fingerprint_of",
    "open_model",
    "parameters_of",
    "predict",
    "quietly",
    "saved",
]
