"""Remove a concept from a diffusion model, and prove on images that it is gone and the rest is not."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"
TYPE_CHECKING = False  # as typing's, whose import would take longer than all of this

if TYPE_CHECKING:
    from typing import Any

    from erase.api import edit, export, run, verify
    from erase.config.prompts import PromptSet, load_prompts
    from erase.edit import Edit
    from erase.errors import EraseError
    from erase.models import Model, open_model
    from erase.run.pipeline import load_pipeline
    from erase.sampling.sampler import Sampler
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
    "edit",
    "export",
    "load_pipeline",
    "load_prompts",
    "open_model",
    "run",
    "verify",
]

# Where each public name lives: it is imported when it is first asked for, so `import erase` loads no torch.
_HOMES = {
    "Edit": "erase.edit",
    "EraseError": "erase.errors",
    "Keep": "erase.task",
    "Model": "erase.models",
    "PromptSet": "erase.config.prompts",
    "Sampler": "erase.sampling.sampler",
    "Target": "erase.task",
    "Task": "erase.task",
    "edit": "erase.api",
    "export": "erase.api",
    "load_pipeline": "erase.run.pipeline",
    "load_prompts": "erase.config.prompts",
    "open_model": "erase.models",
    "run": "erase.api",
    "verify": "erase.api",
}


def __getattr__(name: str) -> object:
    """The public name's value, imported on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'erase' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Part(ModuleType):
    """A module that is called as the function of its name: `erase.edit` is both `erase/edit.py` and a function."""

    def __call__(self, *given: object, **options: object) -> object:
        return self.__wrapped__(*given, **options)

    @property
    def __wrapped__(self) -> Any:  # what `inspect.signature` looks for
        return getattr(import_module("erase.api"), self.__name__.rpartition(".")[2])


class _Package(ModuleType):
    """The package, of which an import sets parts of the same names as its functions."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == "erase.api":
            value.__class__ = _Part
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
