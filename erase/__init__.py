"""Remove a concept from a diffusion model, and prove on images that it is gone and the rest is not."""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"
TYPE_CHECKING = False  # as typing's, whose import would take longer than all of this

if TYPE_CHECKING:
    from erase.edit import Edit
    from erase.errors import EraseError
    from erase.evaluate.sampler import Sampler
    from erase.models import Model, open_model
    from erase.pipeline import load_pipeline
    from erase.prompts import PromptSet, load_prompts
    from erase.task import Keep, Target, Task

__all__ = [
    "Edit",
    "EraseError",
    "Keep",
    "Model",
    "PromptSet",
    "Sampler",
    "Target",
    "Task",
    "__version__",
    "load_pipeline",
    "load_prompts",
    "open_model",
]

# Where each public name lives: it is imported when it is first asked for, so `import erase` loads no torch.
_HOMES = {
    "Edit": "erase.edit",
    "EraseError": "erase.errors",
    "Keep": "erase.task",
    "Model": "erase.models",
    "PromptSet": "erase.prompts",
    "Sampler": "erase.evaluate.sampler",
    "Target": "erase.task",
    "Task": "erase.task",
    "load_pipeline": "erase.pipeline",
    "load_prompts": "erase.prompts",
    "open_model": "erase.models",
}


def __getattr__(name: str) -> object:
    """The public name's value, imported on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'erase' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
