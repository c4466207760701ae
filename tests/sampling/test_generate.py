"""An image depends on its model, edit, prompt, seed and sampler alone, and is made once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from erase.config.prompts import Row
from erase.errors import ModelMismatch
from erase.models import Model, open_model
from erase.sampling.generate import generate, image_id, sample
from erase.sampling.sampler import Sampler
from tests.evaluate.pictures import read_pixels
from tests.recipes import contents
from tests.tiny_edits import tiny_edit

ROWS = tuple(
    Row(f"a {thing} in {style} style", seed)
    for thing in ("cat", "car")
    for style in ("noto", "blob")
    for seed in (0, 7)
)[:7]
QUICK = Sampler(steps=2, batch=3)


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def whole(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of ROWS, made in one go."""
    folder = tmp_path_factory.mktemp("whole")
    generate(model, ROWS, folder, sampler=QUICK)
    return folder


@contextmanager
def recorded(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Tensor]]:
    """The latents of every call of the UNet inside the block."""
    seen: list[torch.Tensor] = []
    load = model.pipeline

    def pipeline(*, moved: bool) -> Any:
        pipe = load(moved=moved)
        pipe.unet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
        return pipe

    with monkeypatch.context() as patch:
        patch.setattr(model, "pipeline", pipeline)
        yield seen


def test_every_row_has_its_own_picture(whole: Path) -> None:
    images = contents(whole)
    assert len(images) == len(ROWS) == len(set(images.values()))


def test_the_order_of_the_rows_changes_no_byte(model: Model, whole: Path, tmp_path: Path) -> None:
    paths = generate(model, ROWS[::-1], tmp_path, sampler=QUICK)
    assert contents(tmp_path) == contents(whole)
    assert [path.stem for path in paths] == [image_id(model, row, QUICK, edit=None) for row in ROWS[::-1]]


def test_an_image_made_alone_has_the_same_bytes(model: Model, whole: Path, tmp_path: Path) -> None:
    (path,) = generate(model, ROWS[4:5], tmp_path, sampler=QUICK)
    assert path.read_bytes() == (whole / path.name).read_bytes()


def test_images_that_were_there_before_change_no_byte_of_the_others(model: Model, whole: Path, tmp_path: Path) -> None:
    generate(model, (ROWS[5], ROWS[1]), tmp_path, sampler=QUICK)
    generate(model, ROWS, tmp_path, sampler=QUICK)
    assert contents(tmp_path) == contents(whole)


@pytest.mark.parametrize("batch", [1, 8])
def test_another_batch_moves_no_pixel_by_more_than_one_step_of_255(
    model: Model, whole: Path, tmp_path: Path, batch: int
) -> None:
    generate(model, ROWS, tmp_path, sampler=Sampler(steps=2, batch=batch))
    assert sorted(contents(tmp_path)) == sorted(contents(whole))
    assert max(int(abs(pixels(path) - pixels(whole / path.name)).max()) for path in tmp_path.iterdir()) <= 1


def test_a_run_that_was_killed_goes_on_without_touching_a_finished_image(
    model: Model, whole: Path, tmp_path: Path
) -> None:
    def killed(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(model, ROWS, tmp_path, sampler=QUICK, progress=killed)
    finished = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in tmp_path.iterdir()}
    assert len(finished) == 4
    counts: list[tuple[int, int]] = []
    generate(model, ROWS, tmp_path, sampler=QUICK, progress=lambda *count: counts.append(count))
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in finished} == finished
    assert contents(tmp_path) == contents(whole)
    assert counts == [(4, 7), (5, 7), (6, 7), (7, 7)]


def test_what_is_whole_is_found_without_loading_the_model(
    model: Model, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(whole)
    with recorded(model, monkeypatch) as calls:
        generate(model, ROWS, whole, sampler=QUICK)
    assert calls == []
    assert contents(whole) == before


@pytest.mark.parametrize("left", [0, 20, 200, -13, -1])
def test_a_truncated_image_is_made_again(model: Model, whole: Path, tmp_path: Path, left: int) -> None:
    (path,) = generate(model, ROWS[:1], tmp_path, sampler=QUICK)
    path.write_bytes(path.read_bytes()[:left])
    generate(model, ROWS[:1], tmp_path, sampler=QUICK)
    assert path.read_bytes() == (whole / path.name).read_bytes()


def test_an_image_with_a_flipped_byte_is_made_again(model: Model, whole: Path, tmp_path: Path) -> None:
    (path,) = generate(model, ROWS[:1], tmp_path, sampler=QUICK)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    generate(model, ROWS[:1], tmp_path, sampler=QUICK)
    assert path.read_bytes() == (whole / path.name).read_bytes()


def test_before_and_after_start_from_the_same_noise(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(model, monkeypatch) as calls:
        list(sample(model, ROWS[:3], QUICK))
        list(sample(model, ROWS[:3], QUICK, edit=tiny_edit(model)))
    assert torch.equal(calls[0], calls[2])
    assert not torch.equal(calls[1], calls[3])
    expected = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(7))
    assert torch.equal(calls[0][1:2], expected)


def test_an_edit_of_no_strength_draws_the_same_pictures_under_other_names(
    model: Model, whole: Path, tmp_path: Path
) -> None:
    for edit, same in ((tiny_edit(model).scaled(0.0), True), (tiny_edit(model), False)):
        paths = generate(model, ROWS[:3], tmp_path / str(same), edit=edit, sampler=QUICK)
        plain = [whole / f"{image_id(model, row, QUICK, edit=None)}.png" for row in ROWS[:3]]
        assert {path.stem for path in paths}.isdisjoint(path.stem for path in plain)
        pixels = [[read_pixels(path) for path in side] for side in (paths, plain)]
        for one, other in zip(*pixels, strict=True):
            assert one is not None
            assert other is not None
            assert torch.equal(one, other) == same


@pytest.mark.parametrize(("guidance", "images"), [(1.0, 3), (4.0, 6)])
def test_without_guidance_the_unet_sees_each_image_once(
    model: Model, monkeypatch: pytest.MonkeyPatch, guidance: float, images: int
) -> None:
    with recorded(model, monkeypatch) as calls:
        list(sample(model, ROWS[:2], Sampler(steps=4, guidance=guidance, batch=3)))
    assert [len(latents) for latents in calls] == [images] * 4


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_images_are_those_of_diffusers_own_pipeline(tiny_copy: Path, guidance: float, prediction: str) -> None:
    file = tiny_copy / "scheduler" / "scheduler_config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"prediction_type": prediction}), encoding="utf-8"
    )
    model = open_model(tiny_copy)
    sampler = Sampler(steps=6, guidance=guidance, batch=4)
    edit = tiny_edit(model)
    ours = [np.asarray(image).astype(float) for _, image in sample(model, ROWS[:3], sampler, edit=edit)]
    pipe = model.pipeline()
    edit.apply(pipe)
    theirs = pipe(
        [row.prompt for row in ROWS[:3]],
        generator=[torch.Generator().manual_seed(row.seed) for row in ROWS[:3]],
        num_inference_steps=6,
        guidance_scale=guidance,
        output_type="np",
    ).images
    assert theirs.std() > 0.05
    assert abs(np.stack(ours) - 255 * theirs).max() <= 1.0


def test_an_edit_of_the_text_encoder_reaches_the_images(model: Model) -> None:
    edit = tiny_edit(model, size=0.5, deltas=("text_encoder.embeddings.token_embedding.weight",))
    edit = type(edit)(edit.info, (), edit.deltas)
    ((_, before),) = sample(model, ROWS[:1], QUICK)
    ((_, after),) = sample(model, ROWS[:1], QUICK, edit=edit)
    pipe = model.pipeline()
    edit.apply(pipe)
    generator = torch.Generator().manual_seed(0)
    theirs = pipe(
        ROWS[0].prompt, generator=generator, num_inference_steps=2, guidance_scale=4.0, output_type="np"
    ).images[0]
    assert before.tobytes() != after.tobytes()
    assert abs(np.asarray(after).astype(float) - 255 * theirs).max() <= 1.0


def test_an_image_is_named_by_all_that_it_depends_on(model: Model) -> None:
    row, edit = ROWS[0], tiny_edit(model)
    names = [
        image_id(model, row, QUICK, edit=None),
        image_id(model, row, QUICK, edit=edit),
        image_id(model, row, QUICK, edit=edit.scaled(0.5)),
        image_id(model, Row("a dog", 0), QUICK, edit=None),
        image_id(model, Row(row.prompt, 1), QUICK, edit=None),
        image_id(model, row, Sampler(steps=3), edit=None),
        image_id(model, row, Sampler(steps=2, guidance=2.0), edit=None),
    ]
    assert len(set(names)) == len(names)


def test_an_image_is_named_by_nothing_else(model: Model, tiny_copy: Path) -> None:
    name = image_id(model, ROWS[0], QUICK, edit=None)
    assert image_id(model, Row(ROWS[0].prompt, 0, {"style": "noto"}), Sampler(steps=2, batch=9), edit=None) == name
    (tiny_copy / "README.md").write_text("a card", encoding="utf-8")
    (tiny_copy / "judge" / "README.md").write_text("a card", encoding="utf-8")
    assert image_id(open_model(tiny_copy), ROWS[0], QUICK, edit=None) == name


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_models_that_differ_only_where_no_edit_reaches_have_images_of_their_own(
    model: Model, tiny_copy: Path, part: str
) -> None:
    (file,) = (tiny_copy / part).glob("*.safetensors")
    weights = load_file(file)
    key = "conv_out.bias" if part == "unet" else "decoder.conv_out.bias"
    save_file(weights | {key: weights[key] + 1}, file, metadata={"format": "pt"})
    other = open_model(tiny_copy)
    assert other.fingerprint == model.fingerprint
    assert image_id(other, ROWS[0], QUICK, edit=None) != image_id(model, ROWS[0], QUICK, edit=None)


def test_a_model_with_another_noise_schedule_has_images_of_its_own(model: Model, tiny_copy: Path) -> None:
    file = tiny_copy / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"beta_end": 0.05}), encoding="utf-8")
    assert image_id(open_model(tiny_copy), ROWS[0], QUICK, edit=None) != image_id(model, ROWS[0], QUICK, edit=None)


def test_a_row_that_stands_twice_is_made_once(model: Model, tmp_path: Path) -> None:
    counts: list[tuple[int, int]] = []
    paths = generate(
        model, (ROWS[0], ROWS[1], ROWS[0]), tmp_path, sampler=QUICK, progress=lambda *count: counts.append(count)
    )
    assert paths[0] == paths[2] != paths[1]
    assert counts[-1] == (2, 2)


def test_a_prompt_that_is_too_long_is_drawn_from_what_the_model_reads(model: Model, tmp_path: Path) -> None:
    one, other = generate(model, (Row("cat " * 40, 0), Row("cat " * 50, 0)), tmp_path / "images", sampler=QUICK)
    assert one.read_bytes() != other.read_bytes()  # each says its own prompt
    with Image.open(one) as first, Image.open(other) as second:
        assert first.tobytes() == second.tobytes()


def test_an_edit_of_another_model_makes_no_image(model: Model, tiny_copy: Path, tmp_path: Path) -> None:
    (file,) = (tiny_copy / "text_encoder").glob("*.safetensors")
    save_file({key: value * 1.01 for key, value in load_file(file).items()}, file, metadata={"format": "pt"})
    with pytest.raises(ModelMismatch):
        generate(model, ROWS, tmp_path / "images", edit=tiny_edit(open_model(tiny_copy)), sampler=QUICK)
    assert not (tmp_path / "images").exists()


def test_a_file_says_which_prompt_and_seed_it_shows(model: Model, tmp_path: Path) -> None:
    (path,) = generate(model, (Row("a café cat", 11),), tmp_path, sampler=QUICK)
    with Image.open(path) as image:
        assert (image.text["prompt"], image.text["seed"], image.size) == ("a café cat", "11", (16, 16))
