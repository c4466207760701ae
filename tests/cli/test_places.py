"""Places where nothing can be written are told before any work, and nothing is left by looking."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from erase.cli._runs import check_writable
from erase.errors import CannotWrite
from tests.recipes import refused
from tests.tiny_edits import tiny_edit

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    return tmp_path / "file"


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path: Path, file: Path) -> None:
    for target in (tmp_path / "new/deep/edit.safetensors", tmp_path, file):
        check_writable(target)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_a_system_folder_is_told(capsys: Capture) -> None:
    with pytest.raises(CannotWrite, match="give another place by --out"):
        check_writable(Path("/proc/x/edit.safetensors"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="this user may write everywhere")
def test_a_folder_without_the_right_to_write_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CannotWrite, match="Permission denied"):
        check_writable(tmp_path / "x")


@pytest.mark.parametrize("name", ["file/x", "a" * 300, "b/" + "a" * 240 + ".safetensors"])
@pytest.mark.parametrize(
    "command",
    [
        ["edit", "-t", "noto"],
        ["generate", "-p", "a cat"],
        ["verify", "EDIT", "-t", "noto"],
        ["run"],
        ["combine", "EDIT"],
        ["export", "-m", "emoji", "-e", "EDIT"],
        ["compare", "a", "b"],
        ["fetch", "small-imagenet"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_refuses_a_place_that_cannot_be_written(
    command: list[str], name: str, capsys: Capture, tmp_path: Path, file: Path, model: object
) -> None:
    tiny_edit(model).save(tmp_path / "edit.safetensors")  # type: ignore[arg-type]
    words = [str(tmp_path / "edit.safetensors") if word == "EDIT" else word for word in command]
    assert "nothing can be written at" in refused(capsys, *words, "--out", tmp_path / name)


def test_a_working_folder_that_is_no_more_is_told(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    line = f"cd {gone} && rmdir {gone} && exec {sys.executable} -m erase edit -t noto"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
