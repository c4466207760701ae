"""Networks that judge pictures, from local folders: of safetensors alone, without any code that lies there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from erase.errors import BadModel, BadWeights, PickleRefused, ScoreFailed
from erase.models.storage.source import PLAIN_DATA
from erase.models.storage.weights import weight_files
from erase.models.text import first_line


def load_network(kind: str, folder: Path, *, what: str) -> Any:
    """The network in a folder, of a class of transformers, in float32 and ready to run.

    `what` it is, for errors. Raises ScoreFailed, PickleRefused.
    """
    import transformers

    try:
        variant, _ = weight_files(folder)
        network = getattr(transformers, kind).from_pretrained(
            folder, dtype=torch.float32, variant=variant or None, **PLAIN_DATA
        )
    except PickleRefused:
        raise
    except (BadModel, BadWeights, OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ScoreFailed(f"the {what} in {folder} cannot be loaded: {first_line(error)}") from error
    return network.eval()
