"""Fixtures: a tiny model of every family, each built once a session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from erase.models import Model, open_model
from tests.tiny_families import FAMILIES, tiny_family

Opener = Callable[[str], Model]


@pytest.fixture(scope="session")
def family_model(tmp_path_factory: pytest.TempPathFactory) -> Opener:
    """Opens the tiny model of a family by the family's name; do not change its files."""
    root = tmp_path_factory.mktemp("families")

    @cache
    def build(family: str) -> Path:
        return tiny_family(family, root / family)

    @cache
    def opened(family: str) -> Model:
        return open_model(build(family))

    return opened


@pytest.fixture(scope="session")
def without_t5(family_model: Opener) -> Opener:
    """Opens the tiny model of a family, without its T5 where it may be without."""

    def opened(family: str) -> Model:
        model = family_model(family)
        if family != "stable-diffusion-3":
            return model
        pipe = model.pipeline()
        pipe.register_modules(text_encoder_3=None, tokenizer_3=None)
        return open_model(pipe)

    return opened


@pytest.fixture(params=FAMILIES)
def each_model(request: pytest.FixtureRequest, family_model: Opener) -> Model:
    """The tiny model of every family in turn."""
    return family_model(request.param)


@pytest.fixture(scope="session")
def pipe_of(family_model: Opener) -> Callable[[str], Any]:
    """Loads the pipeline of a family, once a session; leave it as it is."""
    return cache(lambda family: family_model(family).pipeline())


@pytest.fixture
def each_pipe(each_model: Model, pipe_of: Callable[[str], Any]) -> Any:
    """The loaded pipeline of `each_model`; leave it as it is."""
    return pipe_of(each_model.family)
