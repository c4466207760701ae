"""Random words in front of a prompt, as many as asked, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.attacks.random_prefix import RandomPrefix
from erase.errors import BadOption
from tests.attacks.setting import attacked


def test_each_prompt_keeps_its_words_behind_random_ones(tmp_path: Path) -> None:
    result = attacked(RandomPrefix(tokens=2), tmp_path, budget=16)
    assert result.attempts
    for one in result.attempts:
        assert one.text.endswith(f" {one.prompt}")
        assert len(one.text.split()) == len(one.prompt.split()) + 2
        assert one.images <= 2  # of 8 evaluations each
    assert RandomPrefix().control is None


def test_no_words_are_refused() -> None:
    with pytest.raises(BadOption, match="tokens is 0; expected 1 or more"):
        RandomPrefix(tokens=0)
