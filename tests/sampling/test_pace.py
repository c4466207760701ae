"""What is said of how long images take: counted from short draws, and as people say it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from erase.config.prompts import Row
from erase.models import open_model
from erase.sampling import pace
from erase.sampling.pace import about, seconds_for
from erase.sampling.sampler import Sampler

ROWS = [Row(f"a cat {number}", 0) for number in range(6)]


def test_a_rate_for_each_step_and_a_cost_for_each_image_are_told_apart(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def draw(model: Any, rows: Sequence[Row], sampler: Sampler, *, pipe: Any) -> Iterator[tuple[Row, Image.Image]]:
        for row in rows:
            clock[0] += 0.5 + 0.25 * sampler.steps  # half a second an image, a quarter a step
            yield row, Image.new("RGB", (64, 64))

    monkeypatch.setattr(pace, "sample", draw)
    monkeypatch.setattr(pace.time, "perf_counter", lambda: clock[0])
    model = open_model(tiny_model)
    assert seconds_for(model, ROWS, Sampler(steps=30), images=100) == pytest.approx(100 * (0.5 + 0.25 * 30))
    assert seconds_for(model, ROWS, Sampler(steps=30), images=0) == 0.0


def test_a_real_model_is_drawn_shortly_and_takes_some_time(tiny_model: Path) -> None:
    assert seconds_for(open_model(tiny_model), ROWS[:2], Sampler(steps=2), images=10) > 0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "about 1 s"), (74.6, "about 75 s"), (100, "about 2 min"), (3000, "about 50 min"), (9000, "about 2.5 h")],
)
def test_a_duration_is_said_with_about(seconds: float, said: str) -> None:
    assert about(seconds) == said
