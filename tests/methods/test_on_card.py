"""Stable Diffusion 1.x in half precision, of full size on a card: `pytest -m gpu`.

The same tests run on tiny networks on the CPU, most of them by `-m slow`, so that what is written for a card is tried
without one.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from erase import registry
from erase.config.prompts import Row
from erase.context import RunContext
from erase.edit import Edit
from erase.methods.guidance.gate import openness
from erase.models import Model, open_model
from erase.run.options import make_edit
from erase.sampling.attention import device_here
from erase.sampling.generate import image_path, sample
from erase.sampling.sampler import Sampler
from erase.task import Target, Task
from tests.loading import load_script
from tests.methods.test_contract import GUIDES

pytestmark = pytest.mark.filterwarnings("ignore")
SCRIPT = Path(__file__).parents[2] / "scripts" / "random_models.py"
PROMPT, OTHER = "a cat in Van Gogh style", "a dog on a beach"
TASK = Task([Target("Van Gogh", "style", "art", prompts=("a cat in {} style",))], ["Claude Monet"])
QUICK = ("uce", "esd", "sld", "spm")  # methods that the CPU tries in every run of the tests


@dataclass(frozen=True)
class Place:
    """Where a test computes, and on what: the published sizes or tiny ones."""

    device: str
    dtype: torch.dtype
    tiny: bool

    @property
    def sampler(self) -> Sampler:
        return Sampler(steps=4, guidance=7.5, size=64 if self.tiny else 512, batch=1)

    @property
    def options(self) -> dict[str, Any]:
        """Of a method, as many as it knows."""
        few = {"steps": 2, "batch": 1, "trajectories": 1, "sampling_steps": 2, "warm_up": 1, "attack_steps": 1}
        few |= {"keep_trajectories": 1, "size": 64 if self.tiny else 512}
        return few | {"learning_rate": 2e-4 if self.tiny else 1e-4, "text": "Van Gogh"}

    def model(self) -> Model:
        return open_model(pipe(self), torch_dtype=self.dtype, device=self.device)


CPU = Place("cpu", torch.bfloat16, tiny=True)


@cache
def pipe(place: Place) -> Any:
    """A random Stable Diffusion 1.x there, in half precision."""
    return load_script(SCRIPT).pipeline("stable-diffusion", tiny=place.tiny, device=place.device, dtype=place.dtype)


def on(*values: str, quick: Collection[str] = ()) -> list[Any]:
    """Each value on a card, and on the CPU, where all but the quick ones are slow."""
    card = [pytest.param("card", value, marks=pytest.mark.gpu) for value in values]
    return card + [pytest.param("cpu", value, marks=() if value in quick else pytest.mark.slow) for value in values]


@pytest.fixture
def place(where: str) -> Place:
    if where == "cpu":
        return CPU
    if (device := device_here()) == "cpu":
        pytest.skip("no card is here")
    return Place(device, torch.float16, tiny=False)


def made(method: str, place: Place, opened: Model) -> Edit:
    build: Any = registry.load("methods", method)
    known = {one.name for one in dataclasses.fields(build)}
    options = {key: value for key, value in place.options.items() if key in known}
    return make_edit(build(**options), opened, TASK, work=RunContext())


def drawn(opened: Model, sampler: Sampler, *, edit: Edit | None = None, prompt: str = PROMPT) -> Any:
    """The picture of a prompt, by a pipeline of its own."""
    ((_, image),) = sample(opened, [Row(prompt, 1)], sampler, edit=edit)
    return np.asarray(image).astype(float)


@pytest.mark.parametrize(("where", "method"), on(*registry.known("methods"), quick=QUICK))
def test_an_edit_in_half_precision_changes_the_targets_picture_and_goes_again(method: str, place: Place) -> None:
    opened = place.model()
    before = drawn(opened, place.sampler)
    after = drawn(opened, place.sampler, edit=made(method, place, opened))
    assert before.std() > 2
    assert after.std() > 2
    assert np.abs(after - before).max() > 0
    assert np.array_equal(drawn(opened, place.sampler), before)


@pytest.mark.parametrize(("where", "method"), on(*GUIDES, quick=("sld",)))
def test_a_guard_at_strength_zero_draws_the_models_own_picture(method: str, place: Place) -> None:
    opened = place.model()
    edit = made(method, place, opened)
    assert np.array_equal(drawn(opened, place.sampler, edit=edit.scaled(0.0)), drawn(opened, place.sampler))


@pytest.mark.parametrize(("where", "method"), on("spm", quick=("spm",)))
def test_a_gate_is_open_for_the_target_and_less_so_for_others(method: str, place: Place) -> None:
    opened = place.model()
    own, other = (drawn(opened, place.sampler, prompt=prompt) for prompt in (PROMPT, OTHER))
    edit = whole = made(method, place, opened)
    assert edit.gated
    full, scale = own, 1.0
    while np.abs(full - own).mean() < 8 and scale < 1e6:  # a few steps of training move little
        edit, scale = edit.scaled(4.0), scale * 4
        whole = dataclasses.replace(edit, low_rank=tuple(dataclasses.replace(one, gate=None) for one in edit.low_rank))
        full = drawn(opened, place.sampler, edit=whole)
    through = drawn(opened, place.sampler, edit=edit)
    # What is added beside a layer and what is added to its weights are rounded apart.
    assert np.abs(full - through).mean() < 0.25 * np.abs(full - own).mean()
    assert openness(opened, OTHER, ("Van Gogh",)) < 1.0 == openness(opened, PROMPT, ("Van Gogh",))
    less, fixed = (drawn(opened, place.sampler, edit=one, prompt=OTHER) for one in (edit, whole))
    assert np.abs(less - fixed).max() > 0
    assert np.abs(less - other).mean() < np.abs(fixed - other).mean() + 1.0


@pytest.mark.parametrize(("where", "how"), on("layers", "model", quick=("layers",)))
def test_offloading_draws_the_same_picture(how: str, place: Place) -> None:
    if how == "model" and place.device == "cpu":
        pytest.skip("whole networks wait beside a card alone")
    opened = place.model()
    other = drawn(opened, dataclasses.replace(place.sampler, offload=how))
    assert np.abs(other - drawn(opened, place.sampler)).max() <= 2


@pytest.mark.parametrize(("where", "attention"), on("xformers", quick=("xformers",)))
def test_another_attention_draws_what_sdpa_draws(attention: str, place: Place) -> None:
    if place.device == "cpu":
        attention = "sdpa"  # xformers has no kernels there
    else:
        pytest.importorskip("xformers", reason="xformers is not installed")
    opened = place.model()
    other = drawn(opened, dataclasses.replace(place.sampler, attention=attention))
    assert np.abs(other - drawn(opened, place.sampler)).max() <= 8


@pytest.mark.parametrize(("where", "precision"), on("float32", quick=("float32",)))
def test_the_device_draws_what_the_cpu_draws(precision: str, place: Place) -> None:
    tiny = Place(place.device, getattr(torch, precision), tiny=True)
    there = tiny.model()
    here = open_model(pipe(dataclasses.replace(tiny, device="cpu")), torch_dtype=tiny.dtype, device="cpu")
    # random numbers of a card are others, so one has the other's weights
    for part in ("unet", "vae", "text_encoder"):
        getattr(pipe(dataclasses.replace(tiny, device="cpu")), part).load_state_dict(
            {key: value.cpu() for key, value in getattr(pipe(tiny), part).state_dict().items()}
        )
    for prompt in (PROMPT, OTHER):
        apart = np.abs(drawn(there, tiny.sampler, prompt=prompt) - drawn(here, tiny.sampler, prompt=prompt))
        assert apart.max() <= 3


@pytest.mark.parametrize(("where", "command"), on("generate", quick=("generate",)))
def test_two_processes_draw_what_one_draws(command: str, place: Place, tmp_path: Path) -> None:
    pipe(place).save_pretrained(tmp_path / "model")
    size, dtype = str(place.sampler.size), str(place.dtype).removeprefix("torch.")
    asked = ["-m", tmp_path / "model", "--steps", "2", "--batch", "1", "--size", size, "--dtype", dtype]
    asked += ["-o", tmp_path / "images", "-p", PROMPT, "-p", "Émile Noël", "-s", "0", "-s", "1", "--quiet"]
    more = {"WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"} | ({"CUDA_VISIBLE_DEVICES": ""} if place.tiny else {})
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "erase", command, *map(str, asked)],
            env=os.environ | more | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    assert [one.wait(600) for one in started] == [0, 0]
    opened = open_model(tmp_path / "model", torch_dtype=place.dtype, device=place.device)
    sampler = dataclasses.replace(place.sampler, steps=2, guidance=Sampler().guidance)
    rows = [Row(prompt, seed) for prompt in (PROMPT, "Émile Noël") for seed in (0, 1)]
    paths = [image_path(opened, row, tmp_path / "images" / "before", sampler=sampler, edit=None) for row in rows]
    assert sorted((tmp_path / "images" / "before").glob("*.png")) == sorted(paths)
    for path, (_, alone) in zip(paths, sample(opened, rows, sampler), strict=True):
        with Image.open(path) as picture:
            assert np.abs(np.asarray(picture).astype(float) - np.asarray(alone).astype(float)).max() <= 2
