"""Model families, one file each: adding one is a file here and its test."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from erase.models.model import Model


@cache
def families() -> tuple[type[Model], ...]:
    """The model class of every file in this folder, in the files' order."""
    files = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    modules = [import_module(f"{__name__}.{name}") for name in files]
    return tuple(
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__ and hasattr(value, "pipeline_class")
    )
