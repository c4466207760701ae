"""Every setting of the sampler has an option of its name on what draws, and a protocol drawn otherwise says so."""

from __future__ import annotations

import inspect

import pytest

from erase.cli._drawing import draws
from erase.cli.generate import generate
from erase.cli.run import run
from erase.cli.verify import verify
from erase.config.drawing import DrawingForm
from erase.errors import BadOption
from erase.evaluate.protocol import load_protocol
from erase.sampling.sampler import Sampler


@pytest.mark.parametrize("command", [generate, run, verify])
def test_every_setting_has_an_option(command: object) -> None:
    taken = inspect.signature(command).parameters  # type: ignore[arg-type]
    assert set(DrawingForm.model_fields) <= set(taken)
    assert "drawing" not in taken


def test_every_key_is_a_setting_of_the_sampler_with_its_default() -> None:
    assert DrawingForm().drawing == {name: getattr(Sampler(), name) for name in DrawingForm.model_fields}


def test_a_command_is_given_what_was_set_alone() -> None:
    seen = {}

    @draws
    def command(*, drawing: dict[str, object]) -> None:
        seen.update(drawing)

    command(**dict.fromkeys(DrawingForm.model_fields) | {"steps": 3, "negative": ""})
    assert seen == {"steps": 3, "negative": ""}


def test_a_protocol_that_is_drawn_otherwise_has_another_hash_and_the_same_name() -> None:
    protocol = load_protocol("emoji")
    other = protocol.drawn({"size": "64", "guidance": 2.0})
    assert (other.title, other.sampler.size, other.sampler.guidance) == (protocol.title, "64", 2.0)
    assert other.sha256 != protocol.sha256
    assert protocol.drawn({}).sha256 == protocol.sha256
    with pytest.raises(BadOption, match="steps is 0"):
        protocol.drawn({"steps": 0})
