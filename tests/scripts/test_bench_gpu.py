"""The bench for a card: all parts run on tiny models, and a part that is stopped leaves its figures."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.loading import load_script

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_gpu.py"
PER_MODEL = (
    *("{}_images_per_second", "{}_over_plain_call", "{}_share_of_peak", "peak_gb_{}", "predicted_gb_{}"),
    *("{}_tflop_an_image", "{}_batch"),
)
OTHERS = (
    *("bf16_image_difference", "esd_bank_seconds", "esd_literal_seconds", "uce_1000_seconds"),
    *("identities_100_seconds", "flux_edit_seconds", "oom_recovered"),
)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return load_script(SCRIPT)


@pytest.mark.slow
def test_every_part_runs_on_tiny_models_and_gives_all_figures(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--tiny", "--out", str(out)]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    assert found == json.loads(out.read_text(encoding="utf-8"))
    names = {form.format(name) for form in PER_MODEL for name in ("sd1", "sdxl", "flux")}
    assert names | set(OTHERS) <= set(found)
    assert found["stopped"] == {}
    assert found["oom_recovered"] is True
    assert found["oom_batch_found"] == 2
    assert 0 < found["bf16_image_difference"] < 30
    assert min(found[f"{name}_images_per_second"] for name in ("sd1", "sdxl", "flux")) > 0


def options(out: Path) -> argparse.Namespace:
    return argparse.Namespace(device="cpu", tiny=True, out=out, parts=["sd1", "sdxl"])


def test_what_a_stopped_part_had_measured_is_kept(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "figures.json"
    figure = "import json, pathlib, sys, time; path = pathlib.Path(sys.argv[1]); "
    figure += (
        "path.write_text(json.dumps(json.loads(path.read_text()) | {sys.argv[2]: 1})); time.sleep(float(sys.argv[3]))"
    )
    commands = {
        "sd1": [sys.executable, "-c", figure, str(out), "first", "60"],
        "sdxl": [sys.executable, "-c", figure, str(out), "second", "0"],
    }
    monkeypatch.setattr(bench, "commands", lambda _: iter(commands.items()))
    monkeypatch.setitem(bench.BUDGETS, "sd1", 5)
    found = bench.run_parts(options(out))
    assert (found["first"], found["second"]) == (1, 1)
    assert found["stopped"] == {"sd1": "stopped after 5 seconds"}


def test_a_part_that_fails_is_told(bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "commands", lambda _: iter([("sd1", [sys.executable, "-c", "raise SystemExit(7)"])]))
    assert bench.run_parts(options(tmp_path / "figures.json"))["stopped"] == {"sd1": "failed with exit code 7"}


def test_all_parts_together_take_under_ten_minutes(bench: ModuleType) -> None:
    assert set(bench.BUDGETS) == set(bench.PARTS)
    assert sum(bench.BUDGETS.values()) < 600
