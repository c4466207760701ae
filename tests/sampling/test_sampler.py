"""Sampling settings: what is out of range is refused, and what an image does not depend on is left out."""

from __future__ import annotations

from typing import Any

import pytest

from erase.errors import BadOption
from erase.sampling.sampler import Sampler


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps is 0; expected 1 to 1000"),
        ({"steps": 1001}, "steps is 1001; expected 1 to 1000"),
        ({"batch": 0}, "batch is 0"),
        ({"guidance": -0.5}, r"guidance is -0\.5; expected 0 to 100"),
        ({"true_guidance": 0.5}, r"true_guidance is 0\.5; expected 1"),
        ({"size": "12 by 3"}, r'size is "12 by 3"; expected pixels'),
        ({"size": -8}, r'size is "-8"; expected pixels'),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"scheduler": "ddimm"}, 'scheduler is "ddimm"; expected one of ddim, '),
    ],
)
def test_settings_out_of_range_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadOption, match=said):
        Sampler(**options)


def test_an_image_depends_on_every_setting_but_the_batch() -> None:
    always = {"steps": 5, "guidance": 2.0, "scheduler": "", "attention": "sdpa"}
    assert Sampler(steps=5, guidance=2.0, batch=4).settings == always
    changed = Sampler(steps=5, guidance=2.0, batch=4, size="64x32", negative="a blob", clip_skip=1)
    assert changed.settings == always | {"size": "64x32", "negative": "a blob", "clip_skip": 1}


def test_a_size_is_one_side_or_width_and_height() -> None:
    assert Sampler(size=64).sides == Sampler(size="64").sides == {"height": 64, "width": 64}
    assert Sampler(size="64x32").sides == {"height": 32, "width": 64}
    assert Sampler().sides == {}
    assert Sampler(size=64).settings == Sampler(size="64").settings  # an option's text makes no other image


def test_the_ends_of_the_ranges_are_taken() -> None:
    assert Sampler(steps=1, guidance=1.0, batch=1).settings != Sampler(steps=1000, guidance=100.0).settings
