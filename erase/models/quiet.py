"""The libraries that load models kept from talking meanwhile: one voice speaks, ours."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any


@contextlib.contextmanager
def quietly(*, both: bool = True) -> Iterator[None]:
    """No progress bar and no warning of diffusers and transformers in the block; their settings come back after it.

    `both`: diffusers, too, which takes long to import; who only encodes does without.
    """
    names = ["transformers.utils.logging", *(["diffusers.utils.logging"] if both or "diffusers" in sys.modules else [])]
    libraries: list[Any] = [import_module(name) for name in names]
    before = [(one, one.is_progress_bar_enabled(), one.get_verbosity()) for one in libraries]
    try:
        for one in libraries:
            one.disable_progress_bar()
            one.set_verbosity_error()
        yield
    finally:
        for one, bar, level in before:
            one.set_verbosity(level)
            if bar:
                one.enable_progress_bar()
