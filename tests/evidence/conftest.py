"""Packs that the tests of this folder share, and copies to damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from erase.evidence.pack import Beside, write_pack
from erase.models import Model
from tests.evidence.packs import verified


@pytest.fixture(scope="session")
def verifications(model: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of two verifications of the same base by the same protocol, of different edits."""
    folder = tmp_path_factory.mktemp("verified")
    return verified(model, folder / "one", seed=0), verified(model, folder / "other", seed=1)


@pytest.fixture(scope="session")
def packs(
    verifications: tuple[Path, Path], model: Model, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Unsigned packs of both; do not change them."""
    folder = tmp_path_factory.mktemp("packs")
    for name, source in zip(("one", "other"), verifications, strict=True):
        write_pack(source, folder / name, Beside(model=model))
    return folder / "one", folder / "other"


@pytest.fixture
def pack(packs: tuple[Path, Path], tmp_path: Path) -> Path:
    """A pack that the test may damage."""
    return Path(shutil.copytree(packs[0], tmp_path / "Beweis für Noto"))
