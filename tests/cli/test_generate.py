"""`erase generate` from options: which rows it makes, and both sides of an edit."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.cli.generate import choose_rows
from erase.config.prompts import Row
from erase.errors import BadPrompts
from tests.recipes import PROMPTS, command, contents, refused
from tests.tiny_edits import tiny_edit

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def square(tmp_path: Path) -> str:
    file = tmp_path / "square.yaml"
    file.write_text(PROMPTS, encoding="utf-8")
    return str(file)


def rows(
    prompts: list[str], prompt_set: str | None = None, *, where: tuple[str, ...] = (), seeds: tuple[int, ...] = ()
) -> tuple[Row, ...]:
    return choose_rows(prompts, prompt_set, where=list(where), seeds=list(seeds))


def test_prompts_have_every_seed_and_a_sets_prompts_their_labels(square: str) -> None:
    assert rows(["a cat"]) == (Row("a cat", 0),)
    assert rows(["a cat"], seeds=(3, 5)) == (Row("a cat", 3), Row("a cat", 5))
    chosen = rows(["a cat"], square, where=("style=noto", "style=blob", "object=dog"), seeds=(2,))
    assert chosen == (
        Row("a cat", 2),
        Row("a dog in noto style", 2, {"style": "noto", "object": "dog"}),
        Row("a dog in blob style", 2, {"style": "blob", "object": "dog"}),
    )


def test_a_sets_own_seeds_are_taken_where_none_are_given(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,seed\na cat,41\n", encoding="utf-8")
    assert rows([], str(tmp_path / "rows.csv")) == (Row("a cat", 41),)
    assert rows([], str(tmp_path / "rows.csv"), seeds=(1,)) == (Row("a cat", 1),)


def test_a_choice_among_no_prompts_is_refused() -> None:
    with pytest.raises(BadPrompts, match="name the set by --prompts"):
        rows(["a cat"], where=("style=noto",))


def test_options_that_a_run_would_ignore_are_refused(capsys: Capture) -> None:
    assert "not both" in refused(capsys, "generate", "runs/mine", "--prompt", "a cat")
    assert "not both" in refused(capsys, "generate", "runs/mine", "--seed", 1)


def test_both_sides_are_made_and_a_second_time_nothing(capsys: Capture, tmp_path: Path) -> None:
    from erase.models import open_model
    from tests.tiny import tiny_stable_diffusion

    folder = tiny_stable_diffusion(tmp_path / "model")
    tiny_edit(open_model(folder)).save(tmp_path / "edit.safetensors")
    flags = ["-m", folder, "-p", "a cat", "-s", 1, "-e", tmp_path / "edit.safetensors", "--steps", 2, "--batch", 1]
    said = command(capsys, "generate", *flags, "-o", tmp_path / "out")
    assert said.code == 0
    assert said.out.splitlines() == [f"images  {tmp_path / 'out' / side}" for side in ("before", "after")]
    made = contents(tmp_path / "out")
    before, after = (next(data for name, data in made.items() if name.startswith(side)) for side in ("before", "after"))
    assert len(made) == 2
    assert before != after
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    assert command(capsys, "generate", *flags, "-o", tmp_path / "out").code == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")} == stamps


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64])
def test_a_seed_out_of_range_is_refused_before_anything_is_made(seed: int, capsys: Capture, tmp_path: Path) -> None:
    said = refused(capsys, "generate", "-p", "a cat", "-s", seed, "--out", tmp_path / "out")
    assert said == f"--seed is {seed}; expected a whole number from 0 to 2^63 - 1."
    assert not (tmp_path / "out").exists()


def test_a_batch_that_no_memory_holds_is_refused(capsys: Capture, tmp_path: Path) -> None:
    said = refused(capsys, "generate", "-p", "a cat", "--batch", 100_000_000_000, "--out", tmp_path / "out")
    assert "expected auto, or 1 to 4096" in said
