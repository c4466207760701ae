"""What a command shows: bars in a terminal, lines elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from erase.cli._watch import ShownProgress


def shown(*, terminal: bool) -> str:
    """What is printed while 40 images are made at once."""
    stream = io.StringIO()
    with ShownProgress(Console(file=stream, force_terminal=terminal, width=100)) as watch:
        watch.begin("generate", "making the images")
        for done in range(41):
            watch.count("before", done, 40)
    return stream.getvalue()


def test_without_a_terminal_there_are_plain_lines_and_not_one_an_image() -> None:
    lines = shown(terminal=False).splitlines()
    assert lines[0] == "generate  making the images"
    assert lines[-1] == "  before: 40 of 40 images"
    assert len(lines) <= 3
    assert not any("\x1b" in line for line in lines)


def test_in_a_terminal_there_is_a_bar_that_ends_full() -> None:
    text = shown(terminal=True)
    assert "40/40" in text
    assert "\x1b[" in text


def test_a_training_shows_its_steps_and_its_loss() -> None:
    for terminal in (False, True):
        stream = io.StringIO()
        with ShownProgress(Console(file=stream, force_terminal=terminal, width=120)) as watch:
            for done in range(1, 6):
                watch.count("training", done, 5, unit="steps", note=f"loss 0.{done}")
        assert "steps" in stream.getvalue()
        assert "loss 0.5" in stream.getvalue()
        assert "images" not in stream.getvalue()
