"""A model of the package that borrows files is laid out as a whole folder, once, and mended where it was damaged."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from erase import registry
from erase.errors import CannotWrite
from erase.models.storage.embedded import embedded_folder


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A package with a model that is whole and another that borrows a file and a folder of it."""
    for name, text in {"whole/vae/weights": "12345", "whole/judge/clip/a": "a", "whole/judge/b": "b"}.items():
        (tmp_path / "models" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "models" / name).write_text(text, encoding="utf-8")
    (tmp_path / "models/lean/vae").mkdir(parents=True)
    (tmp_path / "models/lean/vae/config.json").write_text("{}", encoding="utf-8")
    borrowed = {"vae/weights": "whole/vae/weights", "judge": "whole/judge"}
    (tmp_path / "models/lean/borrowed.json").write_text(json.dumps(borrowed), encoding="utf-8")
    monkeypatch.setattr(registry, "PACKAGE", tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_text(encoding="utf-8") for file in files}


WHOLE = {"vae/config.json": "{}", "vae/weights": "12345", "judge/clip/a": "a", "judge/b": "b"}


def test_a_model_that_borrows_nothing_stays_where_it_is(package: Path) -> None:
    assert embedded_folder("whole") == package / "models/whole"


def test_a_model_that_borrows_is_laid_out_whole_under_its_name(package: Path) -> None:
    folder = embedded_folder("lean")
    assert folder.name == "lean"
    assert contents(folder) == WHOLE
    assert list(folder.parent.iterdir()) == [folder]


def test_a_folder_that_is_there_is_not_laid_out_again(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = embedded_folder("lean")
    monkeypatch.setattr("erase.models.storage.embedded._lay_out", lambda *_: pytest.fail("laid out again"))
    assert embedded_folder("lean") == folder


def test_a_folder_that_lost_a_file_is_mended(package: Path) -> None:
    folder = embedded_folder("lean")
    (folder / "judge/b").unlink()
    assert contents(embedded_folder("lean")) == WHOLE


def test_other_weights_are_laid_out_elsewhere(package: Path) -> None:
    before = embedded_folder("lean")
    (package / "models/whole/vae/weights").unlink()
    (package / "models/whole/vae/weights").write_text("54321", encoding="utf-8")
    after = embedded_folder("lean")
    assert after != before
    assert contents(after)["vae/weights"] == "54321"
    assert contents(before)["vae/weights"] == "12345"


def test_without_hard_links_files_are_copied(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert contents(embedded_folder("lean")) == WHOLE


def test_threads_that_lay_out_at_once_get_one_whole_folder(package: Path) -> None:
    found: list[dict[str, str]] = []
    threads = [threading.Thread(target=lambda: found.append(contents(embedded_folder("lean")))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [WHOLE] * 8


def test_a_cache_that_cannot_be_written_is_told_in_one_line(package: Path) -> None:
    (package / "cache").write_text("a file in the way", encoding="utf-8")
    with pytest.raises(CannotWrite, match=r"lean is laid out in .* set HF_HOME") as told:
        embedded_folder("lean")
    assert "\n" not in str(told.value)
