"""Processes of one thread beside each other: the same images as from one, whichever of them ends too early."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from erase.config.prompts import Row
from erase.edit import Edit
from erase.errors import DiskFull
from erase.methods.uce import UCE
from erase.models import Model, open_model
from erase.sampling import beside, generate
from erase.sampling.beside import Drawn, Helper, drawn_beside, processes_for
from erase.sampling.sampler import Sampler
from erase.task import Target, Task

ROWS = tuple(Row(prompt, seed) for prompt in ("a cat", "Émile Noël", 'a dog, "noto" style') for seed in range(4))
SAMPLER = Sampler(steps=2, batch=2)


@pytest.fixture
def edit(model: Model) -> Edit:
    return UCE(phrasings="own")(model, Task((Target("cat", "object", anchor="dog"),))).scaled(0.7)


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


class Beside:
    """Draws rows with one process beside this one, which has been handed a batch before this one makes its second."""

    def __init__(self, model: Model, edit: Edit | None, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model, self.edit, self.here, self.helpers = model, edit, list[Row](), list[Helper]()
        self._handed, tell = threading.Event(), Helper._tell

        def told(helper: Helper, value: Any) -> None:
            tell(helper, value)
            if helper not in self.helpers:
                self.helpers.append(helper)
            if isinstance(value, list):
                self._handed.set()
                self.on_batch(helper)

        monkeypatch.setattr(Helper, "_tell", told)

    def on_batch(self, helper: Helper) -> None:
        """What happens once the other process has a batch."""

    def draw(self, part: Sequence[Row]) -> Iterator[Drawn]:
        assert torch.get_num_threads() == 1
        if self.here and self.helpers[0]._thread.is_alive():
            assert self._handed.wait(120)
        self.here += part
        return generate.sample(self.model, part, SAMPLER, edit=self.edit)

    def __iter__(self) -> Iterator[Drawn]:
        return drawn_beside(self.model, ROWS, SAMPLER, edit=self.edit, draw=self.draw, processes=2)


def pixels(drawn: Iterator[Drawn] | Beside) -> dict[tuple[str, int], bytes]:
    found = [(row.key, image.tobytes()) for row, image in drawn]
    assert len(dict(found)) == len(found) == len(ROWS)
    return dict(found)


def test_two_processes_draw_what_one_draws_bit_for_bit(
    model: Model, edit: Edit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = pixels(generate.sample(model, ROWS, SAMPLER, edit=edit))
    shared = Beside(model, edit, monkeypatch)
    assert pixels(shared) == one
    assert 0 < len(shared.here) < len(ROWS)
    assert shared.here == list(ROWS[: len(shared.here)])  # this one from the start, the other from the end
    assert shared.helpers[0]._process.poll() is not None
    assert not caplog.records


def test_one_that_is_killed_loses_nothing_and_is_told_in_one_line(
    model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shared = Beside(model, None, monkeypatch)
    monkeypatch.setattr(shared, "on_batch", lambda helper: helper._process.kill())
    assert pixels(shared) == pixels(generate.sample(model, ROWS, SAMPLER))
    assert len(shared.here) == len(ROWS)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("a process that drew beside this one has ended (exit code ")
    assert line.endswith("; its images are made here.")


def test_one_that_finds_another_model_draws_nothing_and_says_so(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = open_model(tiny_copy)
    _ = model.content
    file = tiny_copy / "scheduler" / "scheduler_config.json"
    file.write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    shared = Beside(model, None, monkeypatch)
    drawn = iter(shared)
    made = [next(drawn)]
    shared.helpers[0]._thread.join(120)
    assert len([*made, *drawn]) == len(ROWS)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "has changed since the images were begun" in line


def test_whoever_stops_asking_ends_the_other_process(
    model: Model, monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    shared = Beside(model, None, monkeypatch)
    drawn = iter(shared)
    assert next(drawn)
    drawn.close()  # type: ignore[attr-defined]
    assert shared.helpers[0]._process.poll() is not None
    assert not shared.helpers[0]._thread.is_alive()
    assert torch.get_num_threads() == 2


def test_images_that_come_in_any_order_are_written_at_once_and_given_in_theirs(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backwards(model: Model, rows: Sequence[Row], sampler: Sampler, **named: Any) -> Iterator[Drawn]:
        for row in rows[::-1]:
            yield from generate.sample(model, [row], sampler)
        raise DiskFull("more was asked for than there is")

    monkeypatch.setattr(generate, "processes_for", lambda *inputs, **named: 2)
    monkeypatch.setattr(generate, "drawn_beside", backwards)
    counts: list[int] = []
    made = generate.stream(model, ROWS, tmp_path, sampler=SAMPLER, progress=lambda done, total: counts.append(done))
    first, path = next(made)
    assert first == ROWS[0]
    assert path.is_file()
    assert len(list(tmp_path.glob("*.png"))) == len(ROWS)  # those behind it were made first
    assert [first, *(row for row, _ in made)] == list(ROWS)
    assert counts == list(range(len(ROWS) + 1))


def test_several_processes_are_for_many_images_of_a_small_model_on_several_cores(
    model: Model, edit: Edit, monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    sampler, many = Sampler(), 96
    assert processes_for(model, sampler, edit=None, images=many) == 2
    assert processes_for(model, sampler, edit=edit, images=10_000) == 2  # no more than threads
    assert processes_for(model, sampler, edit=None, images=95) == 0
    assert processes_for(model, Sampler(steps=5), edit=None, images=many) == 0  # which are made in no time
    with monkeypatch.context() as patch:
        patch.setattr(beside, "memory_here", lambda: 2**28)
        assert processes_for(model, sampler, edit=None, images=many) == 0
    with monkeypatch.context() as patch:
        patch.setattr(beside, "SMALL", 1)
        assert processes_for(model, sampler, edit=None, images=many) == 0
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        assert processes_for(model, sampler, edit=None, images=many) == 0
    with monkeypatch.context() as patch:
        patch.setattr(beside, "device_here", lambda: "cuda")
        assert processes_for(model, sampler, edit=None, images=many) == 0
    torch.set_num_threads(1)
    assert processes_for(model, sampler, edit=None, images=many) == 0


def test_a_model_in_memory_is_drawn_by_one_process(model: Model, two_threads: None) -> None:
    loaded = open_model(model.pipeline())
    assert processes_for(loaded, Sampler(), edit=None, images=96) == 0
