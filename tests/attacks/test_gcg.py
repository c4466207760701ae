"""GCG: words whose pooled state is that of the plain prompt, none of which names the target."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.attacks.gcg import GCG
from erase.errors import BadOption
from erase.task import names
from tests.attacks.setting import attacked


def test_no_word_names_the_target_and_only_images_are_charged(tmp_path: Path) -> None:
    result = attacked(GCG(tokens=4, steps=2, tried=4, among=16, starts=2), tmp_path, budget=40)
    assert result.attempts
    for one in result.attempts:
        assert not names(one.text, "noto")
        assert len(one.text.split()) == 4
        assert one.evaluations == 8 * one.images


def test_options_out_of_range_are_told_by_name() -> None:
    with pytest.raises(BadOption, match="starts is 0; expected 1 or more"):
        GCG(starts=0)
