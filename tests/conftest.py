"""Shared fixtures: one tiny random model a session, and a fresh copy for tests that damage it."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
import torch

from erase.models import Model, open_model
from tests.families import each_model, each_pipe, family_model, pipe_of, without_t5  # noqa: F401
from tests.finished import finished, recipe, run  # noqa: F401
from tests.tiny import tiny_judge, tiny_stable_diffusion

STYLES = ("noto", "blob", "twemoji", "firefox")
OBJECTS = ("cat", "dog", "car", "fish", "bomb", "rose")


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)  # tiny models run several times slower on more


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets no socket connect and no name be looked up."""

    def refuse(*arguments: object, **more: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion folder with a judge in it; do not change it."""
    folder = tiny_stable_diffusion(tmp_path_factory.mktemp("models") / "tiny")
    tiny_judge(folder / "judge", styles=STYLES, objects=OBJECTS)
    return folder


@pytest.fixture
def tiny_copy(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that the test may damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture(scope="session")
def model(tiny_model: Path) -> Model:
    return open_model(tiny_model)
