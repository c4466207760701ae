"""Views of text-to-image models: how a prompt is encoded, and which weights it reaches."""

from __future__ import annotations

from erase.models.encoding import Condition, Encoding, Guidance, TokenSequence
from erase.models.model import Model
from erase.models.open import family_of_pipe, open_model, saved
from erase.models.pipes import (
    conditions_of,
    fingerprint_of,
    identity_of,
    latents_of,
    masked_ends,
    parameters_of,
    predict,
)
from erase.models.quiet import quietly
from erase.models.reader import PromptReader, check_reader
from erase.models.sites import Reads, Role, Site
from erase.models.storage.source import read_json as settings_in

__all__ = [
    "Condition",
    "Encoding",
    "Guidance",
    "Model",
    "PromptReader",
    "Reads",
    "Role",
    "Site",
    "TokenSequence",
    "check_reader",
    "conditions_of",
    "family_of_pipe",
    "fingerprint_of",
    "identity_of",
    "latents_of",
    "masked_ends",
    "open_model",
    "parameters_of",
    "predict",
    "quietly",
    "saved",
    "settings_in",
]
