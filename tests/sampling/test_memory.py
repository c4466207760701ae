"""Batches that fit, halved where memory runs out without an image lost, and networks that wait for their turn."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from erase.config.prompts import Row
from erase.errors import BadOption, OutOfMemory
from erase.models import Model, open_model
from erase.sampling import draw, generate, memory, placing
from erase.sampling.generate import in_batches, sample
from erase.sampling.memory import GIB, Needs, Plan, needs_of, plan_of
from erase.sampling.sampler import Sampler
from tests.families import Opener
from tests.methods.test_contract import make
from tests.tiny_families import FAMILIES

ROWS = tuple(Row("a cat in noto style", seed) for seed in range(11))
SDXL = Needs(int(4.8 * GIB), int(0.16 * GIB), (int(0.23 * GIB), int(1.3 * GIB)), GIB, 2 * GIB, 1024 * 1024)


def drawn_with_room_for(room: int, sizes: list[int]) -> Any:
    """What draws each row's seed, and runs out of memory beyond so many at once."""

    def drawn(rows: Sequence[Row]) -> Tensor:
        sizes.append(len(rows))
        if len(rows) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return torch.tensor([row.seed for row in rows])

    return drawn


def plan(batch: int, *, filled: bool = False) -> Plan:
    return Plan(batch, filled, "none", 64, "a test")


@pytest.fixture
def fresh(model: Model) -> Model:
    """A model that never ran out of memory."""
    return open_model(model.path)


def test_a_batch_is_halved_where_memory_runs_out_and_no_image_is_made_twice_or_lost(fresh: Model) -> None:
    sizes: list[int] = []
    made = list(in_batches(fresh, ROWS, drawn_with_room_for(3, sizes), plan=plan(8), device="cpu"))
    assert [row.seed for row, _ in made] == [int(value) for _, value in made] == list(range(11))
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    again: list[int] = []
    list(in_batches(fresh, ROWS[:4], drawn_with_room_for(3, again), plan=plan(8), device="cpu"))
    assert again == [2, 2]  # what fits is remembered


def test_images_that_are_finished_are_given_before_memory_runs_out(fresh: Model) -> None:
    room = SimpleNamespace(left=4)

    def drawn(rows: Sequence[Row]) -> Tensor:
        room.left -= len(rows)
        if room.left < 0:
            raise MemoryError
        return torch.zeros(len(rows))

    made = in_batches(fresh, ROWS, drawn, plan=plan(4), device="cpu")
    assert [next(made)[0].seed for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(OutOfMemory, match=r"one image does not fit on cpu \(a test\); give a smaller --size"):
        next(made)


def test_another_error_is_not_taken_for_a_lack_of_memory(fresh: Model) -> None:
    def drawn(rows: Sequence[Row]) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        next(in_batches(fresh, ROWS, drawn, plan=plan(4), device="cpu"))


@pytest.mark.parametrize(("filled", "expected"), [(True, [4, 4, 4]), (False, [4, 4, 3])])
def test_a_number_is_always_so_many_and_auto_is_what_is_left(filled: bool, expected: list[int], fresh: Model) -> None:
    sizes: list[int] = []
    drawn = drawn_with_room_for(99, sizes)
    assert len(list(in_batches(fresh, ROWS, drawn, plan=plan(4, filled=filled), device="cpu"))) == len(ROWS)
    assert sizes == expected


def test_images_are_the_same_after_memory_ran_out(fresh: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [image.tobytes() for _, image in sample(fresh, ROWS[:3], Sampler(steps=2, batch=1))]
    real = draw.sample_batch

    def short(pipe: Any, rows: Sequence[Row], **more: Any) -> Tensor:
        if len(rows) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return real(pipe, rows, **more)

    monkeypatch.setattr(generate, "sample_batch", short)
    assert [image.tobytes() for _, image in sample(fresh, ROWS[:3], Sampler(steps=2, batch=4))] == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_counted_as_they_are_loaded(family: str, family_model: Opener) -> None:
    model = family_model(family)
    needs, pipe = needs_of(model, Sampler(size=16)), model.pipeline()
    sizes = {
        name: sum(4 * value.numel() for value in getattr(pipe, name).parameters())
        for name in (model.backbone, "vae", *model.text_components)
    }
    assert needs.backbone == pytest.approx(sizes[model.backbone], rel=0.02)  # stored positions are no parameter
    assert needs.decoder == pytest.approx(sizes["vae"], rel=0.01)
    assert sum(needs.encoders) == pytest.approx(sum(sizes[name] for name in model.text_components), rel=0.01)
    larger = needs_of(model, Sampler(size=32))
    assert larger.image > needs.image
    assert larger.pixels == 4 * needs.pixels


def test_a_picture_without_guidance_takes_half_of_one_with_it(model: Model) -> None:
    assert needs_of(model, Sampler()).image == 2 * needs_of(model, Sampler(guidance=1.0)).image


@pytest.mark.parametrize(
    ("free", "offload", "batch"),
    [(80, "none", 32), (24, "none", 16), (12, "none", 4), (8, "none", 2), (7, "model", 1), (4, "layers", 2)],
)
def test_what_fits_on_a_card_is_chosen_by_the_models_own_sizes(
    free: int, offload: str, batch: int, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "needs_of", lambda model, sampler: SDXL)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * GIB, 80 * GIB))
    chosen = plan_of(model, Sampler(), "cuda:0")
    assert (chosen.offload, chosen.batch, chosen.filled) == (offload, batch, False)
    assert f"{free}.0 GiB free, 6.5 GiB of weights" in chosen.why
    asked = plan_of(model, Sampler(batch=3, offload="model"), "cuda:0")
    assert (asked.offload, asked.batch, asked.filled) == ("model", 3, True)


def test_small_models_on_the_cpu_are_sampled_as_ever(model: Model) -> None:
    chosen = plan_of(model, Sampler(), "cpu")
    assert (chosen.batch, chosen.filled, chosen.offload) == (32, True, "none")


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_that_wait_for_their_turn_draw_the_same(family: str, family_model: Opener) -> None:
    size = 16 if family == "flux" else 0
    pictures = []
    for offload in ("none", "layers"):
        sampler = Sampler(steps=2, batch=2, size=size, offload=offload)
        pictures.append([image.tobytes() for _, image in sample(family_model(family), ROWS[:2], sampler)])
    assert pictures[0] == pictures[1]


def test_the_states_of_many_prompts_are_held_in_parts_and_images_stay_the_same(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("cat", "dog", "car", "fish", "rose", "bomb", "house", "tree", "boat", "bird", "lamp")
    rows, sampler = [Row(f"a {word}", seed) for word in words for seed in (0, 1)], Sampler(steps=1, batch=4)
    expected = [(row, image.tobytes()) for row, image in sample(model, rows, sampler)]
    seen: list[list[str]] = []
    real = generate.conditions_of

    def counted(pipe: Any, prompts: list[str], **more: Any) -> Any:
        seen.append(prompts)
        return real(pipe, prompts, **more)

    monkeypatch.setattr(generate, "conditions_of", counted)
    monkeypatch.setattr(generate, "STATES", 1)
    assert [(row, image.tobytes()) for row, image in sample(model, rows, sampler)] == expected
    assert [len(prompts) for prompts in seen] == [8, 3]
    assert sorted(prompt for part in seen for prompt in part) == sorted(f"a {word}" for word in words)


def test_what_cannot_wait_beside_the_device_is_told(model: Model) -> None:
    with pytest.raises(BadOption, match="offload: model needs a card"):
        next(sample(model, ROWS[:1], Sampler(offload="model")))
    with pytest.raises(BadOption, match="needs its network whole"):
        next(sample(model, ROWS[:1], Sampler(offload="layers"), edit=make("sld", model)))


def test_text_encoders_leave_the_card_when_the_prompts_are_encoded(
    family_model: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = family_model("stable-diffusion-3").pipeline()
    moves: list[tuple[str, str]] = []
    names = {id(part): name for name, part in pipe.components.items()}
    monkeypatch.setattr(torch.nn.Module, "to", lambda part, device: moves.append((names[id(part)], str(device))))
    monkeypatch.setattr(placing, "free_cache", lambda device: moves.append(("cache", device)))
    with placing.encoding(pipe, "cuda:1", "none"):
        moves.append(("prompts", "encoded"))
    placing.place(pipe, "cuda:1", "none", pixels=1024 * 1024)
    texts = ["text_encoder", "text_encoder_2", "text_encoder_3"]
    assert moves == [
        *((name, "cuda:1") for name in texts),
        ("prompts", "encoded"),
        *((name, "cpu") for name in texts),
        ("cache", "cuda:1"),
        ("transformer", "cuda:1"),
        ("vae", "cuda:1"),
    ]
    assert pipe.vae.use_slicing


def test_a_choice_to_offload_is_told_in_words(
    fresh: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(generate, "plan_of", lambda *given: Plan(1, False, "layers", 64, "0.1 GiB free"))
    with caplog.at_level(logging.WARNING):
        list(sample(fresh, ROWS[:1], Sampler(steps=1)))
    assert "cpu: 0.1 GiB free" in caplog.text
