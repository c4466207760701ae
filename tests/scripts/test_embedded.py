"""The scripts that build the embedded model: captions, tokenizer, and a training that goes on where it was killed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

SCRIPTS = Path(__file__).parent.parent.parent / "scripts" / "embedded"


@pytest.fixture(autouse=True)
def _scripts_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resvg_py")
    monkeypatch.syspath_prepend(str(SCRIPTS))


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    import training

    monkeypatch.setattr(training, "BUILD", tmp_path)
    return training


def train(training: Any, name: str, *, stop: int, steps: int = 6) -> nn.Module:
    """Trains a small network and leaves after `stop` steps as a kill would, with the last checkpoint behind it."""
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    stage = training.Stage(name, {"model": model}, optimizer, steps, 1e-2, every_seconds=0.0)

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        if step == stop:
            raise KeyboardInterrupt
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        return (model(inputs) - inputs.roll(1, 1)).square().mean(), {}

    with contextlib.suppress(KeyboardInterrupt):
        stage.run(loss_of, lambda step: None)
    return model


def test_a_killed_training_ends_with_the_weights_of_an_uninterrupted_one(training: Any) -> None:
    whole = train(training, "whole", stop=-1)
    half = train(training, "halves", stop=3)
    rest = train(training, "halves", stop=-1)
    assert not torch.equal(half.weight, whole.weight)
    assert torch.equal(rest.weight, whole.weight)


def test_a_finished_training_trains_no_further(training: Any) -> None:
    train(training, "done", stop=-1)
    before = (training.BUILD / "done" / "checkpoint.pt").read_bytes()
    train(training, "done", stop=0)
    assert (training.BUILD / "done" / "checkpoint.pt").read_bytes() == before


def test_captions_name_what_they_should_and_nothing_else() -> None:
    import captions

    words, rng = captions.load_words(), np.random.default_rng(0)
    cat, noto = words.objects[0], words.styles[2]
    for _ in range(50):
        both = captions.caption(words, 2, 0, rng=rng)
        assert any(word in both for word in cat)
        assert any(word in both for word in noto)
        alone = captions.caption(words, None, 0, rng=rng)
        assert not any(style in alone.split() for group in words.styles for style in group if style != "black")
    assert captions.caption(words, None, None, rng=rng) == ""


def test_an_article_fits_its_word() -> None:
    from captions import fill

    assert fill("a {object} in {style} style", object="octopus", style="noto") == "an octopus in noto style"
    assert fill("a picture of a {object}", object="apple") == "a picture of an apple"
    assert fill("a {object}", object="cat") == "a cat"


def test_there_are_at_least_six_phrasings_and_the_square_is_large_enough() -> None:
    import captions

    words = captions.load_words()
    assert len(captions.BOTH) >= 6
    assert len(words.objects) >= 48
    assert len(words.styles) >= 8
    spoken = [word for group in (*words.objects, *words.styles) for word in group]
    assert len(set(spoken)) == len(spoken)


def test_a_shift_moves_the_picture_by_whole_pixels() -> None:
    from training import shifted

    icon = torch.ones(3, 72, 72)
    icon[:, 36, 36] = -1
    for down, right in ((0, 0), (2, -2)):
        view = shifted(icon, down, right)
        assert view.shape == (3, 64, 64)
        assert bool((view[:, 32 + down, 32 + right] == -1).all())


def test_a_disturbed_view_moves_scales_and_stays_a_picture() -> None:
    from pictures import disturbed, placed

    icon = torch.ones(3, 72, 72)
    icon[:, 30:42, 30:42] = -1
    moved = placed(icon, down=5.0, right=-3.0, scale=1.0)
    rows, columns = (moved[0] < 0).nonzero().float().mean(0).tolist()
    assert rows == pytest.approx(31.5 + 5, abs=0.3)
    assert columns == pytest.approx(31.5 - 3, abs=0.3)
    larger = placed(icon, down=0.0, right=0.0, scale=1.5)
    assert (larger[0] < 0).sum() > 2 * (placed(icon, down=0.0, right=0.0, scale=1.0)[0] < 0).sum()
    view = disturbed(icon, np.random.default_rng(0))
    assert view.shape == (3, 64, 64)
    assert float(view.abs().max()) < 1.6


def test_the_style_classifier_is_never_trained_on_the_views_that_test_it() -> None:
    from pictures import JUDGE_SCALES, JUDGE_SHIFTS, within

    rng = np.random.default_rng(0)
    shifts, scales = ([within(ranges, rng) for _ in range(2000)] for ranges in (JUDGE_SHIFTS, JUDGE_SCALES))
    assert not [shift for shift in shifts if 5 <= shift <= 6]
    assert not [scale for scale in scales if 0.80 <= scale <= 0.86 or 1.17 <= scale <= 1.22]
    assert min(shifts) < 1 < 7 < max(shifts)
    assert min(scales) < 0.75 < 1.3 < max(scales)
