"""Our figures beside the papers': the script runs from end to end on a tiny random model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from erase.errors import BadPrompts
from tests.loading import load_script

SCRIPT = Path(__file__).parents[2] / "scripts" / "reproduce.py"


@pytest.mark.slow
def test_every_method_has_its_figure_beside_the_papers(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--quick", "--out", str(tmp_path)]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    found = json.loads(run.stdout.splitlines()[-1])["experiments"]
    assert {name: one["paper"] for name, one in found.items()} == {"uce": 182, "esd": 123, "mace": 111, "speed": 0.937}
    for name in ("uce", "esd", "mace"):
        assert found[name]["base"] == 2  # a finding in each of two images, by the stand-in
        assert (tmp_path / name / "verified" / "result.json").is_file()
    assert found["speed"]["figure"] == "H_c"
    assert 0 <= found["speed"]["ours"] <= 1


def test_people_are_read_from_two_files_and_minors_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    script = load_script(SCRIPT)
    with pytest.raises(BadPrompts, match=r"has no erased\.txt"):
        script.people(tmp_path)
    (tmp_path / "erased.txt").write_text("Brad Pitt\n\nTom Hanks\na child actor\n", encoding="utf-8")
    (tmp_path / "kept.txt").write_text("Beyoncé\n", encoding="utf-8")
    task = script.people(tmp_path)
    assert task.names == ("Brad Pitt", "Tom Hanks")
    assert [keep.name for keep in task.keeps] == ["Beyoncé"]
