"""The comparison with the published loop: that the loop is the published one, and what both sides count."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from erase.methods.esd import ESD
from erase.methods.training.bank import Plan, Trajectory, sample_bank
from erase.methods.training.denoiser import Denoiser
from erase.methods.training.trainer import draws
from erase.models import Condition, Model
from erase.run.pipeline import load_pipeline
from erase.task import Target, Task
from tests.loading import load_script

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_trained.py"
METHOD = ESD(steps=3, learning_rate=1e-3)
TASK = Task((Target("noto", "style"),))


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return load_script(SCRIPT)


def stops(texts: int = 1) -> list[int]:
    """At which of 50 steps the published loop stops in each iteration, after it has drawn one of several texts."""
    generators = [draws(0, step) for step in range(3)]
    for generator in generators if texts > 1 else ():
        torch.randint(texts, (1,), generator=generator)
    return [int(torch.randint(50, (1,), generator=generator)) for generator in generators]


def test_the_loop_samples_one_trajectory_and_asks_a_teacher_in_each_iteration(bench: ModuleType, model: Model) -> None:
    edit, evaluations = bench.published(METHOD, model, TASK)
    assert evaluations == sum(2 * stop + 2 + 3 for stop in stops())
    assert {name for name, delta in edit.deltas.items() if delta.any()}
    assert all(".attn2." in name for name in edit.touches)


def test_its_latents_lie_on_the_banks_trajectory(bench: ModuleType, model: Model) -> None:
    denoiser, states = Denoiser.of(model), model.encode(["", "noto"]).states
    generator = draws(0, 1)
    stop = stops()[1]
    torch.randint(50, (1,), generator=generator)
    noise = torch.randn(1, *denoiser.shape, generator=generator)
    denoiser.noise = lambda seed: noise[0]  # type: ignore[method-assign]
    plan = Plan((Trajectory("noto", 0),), steps=50, guidance=METHOD.sampling_guidance)
    bank = sample_bank(denoiser, plan, {"": Condition(states[0]), "noto": Condition(states[1])})
    inputs, time = bench.partial_trajectory(Denoiser.of(model), states, method=METHOD, generator=draws(0, 1))
    assert int(time) == int(bank.times[0, stop])
    torch.testing.assert_close(inputs[0], bank.inputs[0, stop], rtol=1e-3, atol=1e-3)


def test_its_defaults_meet_a_tenth_of_the_evaluations(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_trained.py"])
    options = bench.parse()
    method = bench.method_of(options)
    bank = method.trajectories * method.sampling_steps * 2 + method.steps * 3
    literal = sum(2 * stop + 2 + 3 for stop in range(50)) / 50 * method.steps
    assert literal / bank > 10


@pytest.mark.slow
def test_it_runs_from_the_command_line(tiny_copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(tiny_copy / "judge")
    flags = ["--model", str(tiny_copy), "--quick", "--steps", "3", "--threads", "1"]
    command = [sys.executable, str(SCRIPT), *flags, "--out", str(tmp_path / "bench.json")]
    subprocess.run(command, check=True, capture_output=True, cwd=SCRIPT.parents[1])
    result = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert {"evaluations_ratio", "wall_ratio", "peak_ratio"} <= set(result)
    texts = len(load_pipeline("erase-style").task.prompts)
    assert texts > 1
    assert result["literal"]["evaluations"] == sum(2 * stop + 2 + 3 for stop in stops(texts))


@pytest.mark.slow
def test_the_peak_is_the_process_own_and_not_what_its_parent_held() -> None:
    held = bytearray(b"x" * (400 << 20))
    load = f"import runpy; most = runpy.run_path({str(SCRIPT)!r})['most_resident']; before = most(); "
    code = load + "x = b'x' * (200 << 20); print((most() - before) >> 20)"
    told = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=SCRIPT.parents[1]
    )
    assert 150 < int(told.stdout) < 210
    assert len(held) == 400 << 20
