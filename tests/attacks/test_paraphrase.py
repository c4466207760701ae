"""Paraphrase: other wordings count only where the base draws the target for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.attacks.paraphrase import Paraphrase, reworded, spelled
from erase.errors import BadOption
from tests.attacks.setting import attacked


def test_a_name_is_put_out_whole_and_once() -> None:
    assert reworded("a cat by Van Gogh", ["Van Gogh", "Vincent"], "the man of the sunflowers") == (
        "a cat by the man of the sunflowers"
    )
    assert reworded("a Goghish cat", ["Gogh"], "x") == "a Goghish cat"


def test_spellings_differ_from_the_name() -> None:
    found = spelled("Renoir")
    assert len(set(found)) == len(found)
    assert "Renoir" not in found


def test_descriptions_of_a_file_are_tried_and_what_the_base_does_not_draw_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "descriptions.txt"
    file.write_text("noto: noto\nnoto: xqz\n", encoding="utf-8")
    attack = Paraphrase(descriptions=str(file), spellings=False)
    result = attacked(attack, tmp_path / "out", budget=60)
    assert result.attempts
    assert not any("xqz" in one.text for one in result.attempts)


def test_a_file_without_the_target_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "descriptions.txt"
    file.write_text("", encoding="utf-8")
    with pytest.raises(BadOption, match="describes no noto"):
        attacked(Paraphrase(descriptions=str(file)), tmp_path / "out", budget=60)
    with pytest.raises(BadOption, match="expected a local path that exists"):
        Paraphrase(rewriter=str(tmp_path / "none"))
