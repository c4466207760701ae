"""Sampling settings: what is out of range is refused, and what an image does not depend on is left out."""

from __future__ import annotations

from typing import Any

import pytest

from erase.errors import BadOption
from erase.sampling.sampler import Sampler


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps is 0; expected 1 or more"),
        ({"steps": 1001}, "at most 1000"),
        ({"batch": 0}, "batch is 0"),
        ({"guidance": 0.5}, r"guidance is 0\.5; expected 1"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"scheduler": "euler"}, 'scheduler is "euler"; expected ddim'),
    ],
)
def test_settings_out_of_range_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadOption, match=said):
        Sampler(**options)


def test_an_image_depends_on_every_setting_but_the_batch() -> None:
    assert Sampler(steps=5, guidance=2.0, batch=4).settings == {
        "steps": 5,
        "guidance": 2.0,
        "scheduler": "ddim",
        "attention": "sdpa",
    }


def test_the_ends_of_the_ranges_are_taken() -> None:
    assert Sampler(steps=1, guidance=1.0, batch=1).settings != Sampler(steps=1000, guidance=100.0).settings
