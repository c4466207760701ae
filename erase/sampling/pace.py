"""How long images will take, by two short draws of the same model: a rate for a step and what an image costs beside."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from erase.config.prompts import Row
from erase.models import Model
from erase.sampling.generate import sample
from erase.sampling.sampler import Sampler

MOST, PIXELS = 16, 2**18  # images of each short draw, and their pixels, but for one image
SHORT, LONGER = 1, 3  # steps


def seconds_for(model: Model, rows: Sequence[Row], sampler: Sampler, *, images: int) -> float:
    """About how many seconds so many images of such rows take; raises what `sample` raises.

    It loads the model and draws a few of the rows twice, with one step and with three, and writes nothing.
    """
    if not images or not rows:
        return 0.0
    pipe = model.pipeline()
    # The first image also pays for what is done once for all, and tells how many are drawn at a time.
    ((_, image),) = sample(model, rows[:1], replace(sampler, steps=SHORT), pipe=pipe)
    few = rows[: max(1, min(MOST, PIXELS // (image.width * image.height)))]
    spent = []
    for steps in (SHORT, LONGER):
        began = time.perf_counter()
        for _ in sample(model, few, replace(sampler, steps=steps), pipe=pipe):
            pass
        spent.append((time.perf_counter() - began) / len(few))
    step = max(0.0, (spent[1] - spent[0]) / (LONGER - SHORT))
    return images * (max(0.0, spent[0] - SHORT * step) + sampler.steps * step)


def about(seconds: float) -> str:
    """A duration as an estimate is said: to the second below a minute and a half, then in minutes, then in hours."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
