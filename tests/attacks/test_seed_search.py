"""The plain prompt with other seeds: no word of it is changed."""

from __future__ import annotations

from pathlib import Path

from erase.attacks.seed_search import SeedSearch
from tests.attacks.setting import attacked


def test_the_prompt_stays_and_what_is_found_on_a_seed_is_told_apart_from_success(tmp_path: Path) -> None:
    result = attacked(SeedSearch(), tmp_path, budget=24)
    assert result.attempts
    for one in result.attempts:
        assert one.text == one.prompt
        assert one.success == one.before  # on the fresh seed the plain prompt draws one image
