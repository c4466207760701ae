"""Every method on Stable Diffusion 1.x in half precision: of full size on a card, on tiny networks where none is here.

pytest -m gpu
"""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from erase import registry
from erase.config.prompts import Row
from erase.context import RunContext
from erase.edit import Edit
from erase.models import Model, open_model
from erase.run.options import make_edit
from erase.sampling.attention import device_here
from erase.sampling.generate import sample
from erase.sampling.sampler import Sampler
from erase.task import Target, Task
from tests.loading import load_script

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]
SCRIPT = Path(__file__).parents[2] / "scripts" / "random_models.py"
DEVICE = device_here()
TINY = DEVICE == "cpu"
HALF = torch.bfloat16 if TINY else torch.float16
ROW = Row("a cat in Van Gogh style", 1)
TASK = Task([Target("Van Gogh", "style", "art", prompts=("a cat in {} style",))], ["Claude Monet"])
QUICK: dict[str, Any] = {"steps": 2, "batch": 1, "trajectories": 1, "sampling_steps": 2}
QUICK |= {"learning_rate": 2e-4 if TINY else 1e-4}
QUICK |= {"warm_up": 1, "attack_steps": 1, "keep_trajectories": 1, "text": "Van Gogh", "size": 64 if TINY else 512}
SAMPLER = Sampler(steps=4, guidance=7.5, size=64 if TINY else 512, batch=1)


@cache
def pipe() -> Any:
    """A random Stable Diffusion 1.x on the device, in half precision."""
    return load_script(SCRIPT).pipeline("stable-diffusion", tiny=TINY, device=DEVICE, dtype=HALF)


def model() -> Model:
    return open_model(pipe(), torch_dtype=HALF, device=DEVICE)


def made(method: str, opened: Model) -> Edit:
    build: Any = registry.load("methods", method)
    known = {one.name for one in dataclasses.fields(build)}
    options = {key: value for key, value in QUICK.items() if key in known}
    return make_edit(build(**options), opened, TASK, work=RunContext())


def drawn(opened: Model, sampler: Sampler = SAMPLER, *, edit: Edit | None = None) -> Any:
    """The picture of the target's prompt, by a pipeline of its own."""
    ((_, image),) = sample(opened, [ROW], sampler, edit=edit)
    return np.asarray(image).astype(float)


@pytest.mark.parametrize("method", registry.known("methods"))
def test_an_edit_in_half_precision_changes_the_targets_picture_and_goes_again(method: str) -> None:
    opened = model()
    before = drawn(opened)
    after = drawn(opened, edit=made(method, opened))
    assert before.std() > 2
    assert after.std() > 2
    assert np.abs(after - before).max() > 0
    assert np.array_equal(drawn(opened), before)


@pytest.mark.parametrize("how", ["layers", "model"])
def test_offloading_draws_the_same_picture(how: str) -> None:
    if how == "model" and DEVICE == "cpu":
        pytest.skip("whole networks wait beside a card alone")
    opened = model()
    other = drawn(opened, dataclasses.replace(SAMPLER, offload=how))
    assert np.abs(other - drawn(opened)).max() <= 2
