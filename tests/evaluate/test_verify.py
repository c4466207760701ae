"""The gate end to end on a tiny model: edits and models that are as they should not be, each with its own reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from erase import registry
from erase.edit import Edit, EditInfo
from erase.errors import BadEdit, BadTask, ScoreFailed
from erase.evaluate.detect import Given
from erase.evaluate.detections import Finding
from erase.evaluate.protocol import Protocol, load_protocol
from erase.evaluate.questions import make_cases
from erase.evaluate.verify import Edited, Result, draw, is_flat, open_edited, task_from, verify
from erase.models import Model
from erase.task import Target, Task

TASK = Task((Target("noto", "style", anchor="blob", synonyms=("twemoji",)),), keeps=("cat",))
PROTOCOL = """\
version: "1"
description: a test
source: a test
detector: {name: judge, version: emoji-v1, threshold: 0.5}
sampler: {steps: 2, guidance: 1.0, batch: 16}
seeds: [0, 1, 2, 3]
prompts:
  - {role: erased, aspect: name, templates: ["a {object} in {word} style"], axes: {object: [cat, dog, car, fish]}}
  - role: erased
    aspect: synonyms
    fill: synonyms
    templates: ["a {object} in {word} style"]
    axes: {object: [cat, dog, car, fish]}
  - role: kept
    aspect: others
    fill: related
    related: {noto: [blob, firefox]}
    seeds: [0, 1]
    templates: ["a {object} in {word} style"]
    axes: {object: [cat, dog, car, fish]}
"""
Fake = Callable[[Sequence[Image.Image]], list[list[Finding]]]


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    path = tmp_path_factory.mktemp("protocol") / "mine.yaml"
    path.write_text(PROTOCOL, encoding="utf-8")
    return load_protocol(str(path))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every test of this file leaves its images, so that the base model draws once."""
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def edit(model: Model) -> Edit:
    """An edit that moves every site far, so that all images differ, at a third of its strength too."""
    generator = torch.Generator().manual_seed(0)
    deltas = {site.name: 3 * torch.randn(site.rows, site.columns, generator=generator) for site in model.sites()}
    info = EditInfo("noise", {}, json.loads(json.dumps(asdict(TASK))), model.family, model.fingerprint)
    return Edit(info, deltas=deltas)


def answering(answer: Callable[[str, int], float], prompts: dict[bytes, tuple[str, int]]) -> Fake:
    """A judge that knows by its pixels which image it sees, and answers by side and prompt."""

    def detect(pictures: Sequence[Image.Image]) -> list[list[Finding]]:
        found = []
        for picture in pictures:
            prompt, side = prompts[picture.tobytes()]
            style = prompt.split()[3]
            name = "noto" if style == "twemoji" else style
            found.append([Finding(name, answer(prompt, side), "style")])
        return found

    return detect


def run(
    model: Model, edited: Edited, protocol: Protocol, *, folder: Path, answer: Callable[[str, int], float]
) -> Result:
    """The verdict when the judge answers by a function of prompt and side (0 before, 1 after)."""
    cases, known = make_cases(protocol, TASK), {}
    for side, drawn in enumerate((Edited(model, None, None), edited)):
        for (prompt, _), path in draw(drawn, protocol, cases, folder=folder / "images"):
            with Image.open(path) as image:
                known.setdefault(image.convert("RGB").tobytes(), (prompt, side))
    judge = Given(detectors={"judge": answering(answer, known)})
    (folder / "protocol.json").unlink(missing_ok=True)  # the tests share a folder, in which the base model draws once
    return verify(model, edited, protocol, task=TASK, given=judge, folder=folder)


def good(prompt: str, side: int) -> float:
    """A detector's answer where an edit does what it should."""
    target = "noto" in prompt or "twemoji" in prompt
    return 0.1 if target and side == 1 else 0.9


def kinds(result: Result) -> list[str]:
    return [reason.kind for reason in result.verdict.reasons]


def test_an_edit_that_does_what_it_should_passes(model: Model, edit: Edit, protocol: Protocol, images: Path) -> None:
    result = run(model, Edited(model, edit, TASK), protocol, folder=images, answer=good)
    assert result.verdict.reasons == ()
    assert result.verdict.exit_code == 0
    assert [check.n for check in result.verdict.checks] == [16, 16, 16]


def test_an_untouched_model_fails(model: Model, edit: Edit, protocol: Protocol, images: Path) -> None:
    untouched = Edited(model, edit.scaled(0.0), TASK)
    result = run(model, untouched, protocol, folder=images, answer=good)
    assert kinds(result)[0] == "nothing changed"
    assert "still there" in kinds(result)


def test_noise_weights_fail(model: Model, tiny_copy: Path, protocol: Protocol, images: Path) -> None:
    file = tiny_copy / "unet/diffusion_pytorch_model.safetensors"
    generator = torch.Generator().manual_seed(1)
    noise = {key: torch.randn(value.shape, generator=generator) for key, value in load_file(file).items()}
    save_file(noise, file)
    # what a real judge would say of noise: nothing that was asked for
    result = run(
        model, open_edited(tiny_copy, model), protocol, folder=images, answer=lambda prompt, side: 0.9 * (side == 0)
    )
    assert kinds(result) == ["model destroyed"]


def test_white_images_fail_whatever_the_judge_says(
    model: Model, tiny_copy: Path, protocol: Protocol, images: Path
) -> None:
    file = tiny_copy / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["decoder.conv_out.weight"].zero_()
    weights["decoder.conv_out.bias"].fill_(9.0)
    save_file(weights, file)
    seen_everywhere = Given(detectors={"judge": lambda pictures: [[Finding("blob", 0.9)] for _ in pictures]})
    (images / "protocol.json").unlink(missing_ok=True)
    result = verify(model, open_edited(tiny_copy, model), protocol, task=TASK, given=seen_everywhere, folder=images)
    assert "model destroyed" in kinds(result)
    assert "of one colour" in next(r.text for r in result.verdict.reasons if r.kind == "model destroyed")


def test_a_literal_edit_fails_by_its_synonyms(model: Model, edit: Edit, protocol: Protocol, images: Path) -> None:
    result = run(
        model,
        Edited(model, edit, TASK),
        protocol,
        folder=images,
        answer=lambda prompt, side: 0.1 if "noto" in prompt and side == 1 else 0.9,
    )
    assert kinds(result) == ["still there"]
    assert "asked by synonyms" in result.verdict.reasons[0].text


def test_a_weak_edit_fails(model: Model, edit: Edit, protocol: Protocol, images: Path) -> None:
    def weak(prompt: str, side: int) -> float:
        return 0.9 if "cat" in prompt or "dog" in prompt else good(prompt, side)

    result = run(model, Edited(model, edit.scaled(0.3), TASK), protocol, folder=images, answer=weak)
    assert kinds(result) == ["still there", "still there"]
    assert "a cat in noto style; a dog in noto style" in result.verdict.reasons[0].text


def test_an_edit_that_takes_a_neighbour_along_fails(model: Model, edit: Edit, protocol: Protocol, images: Path) -> None:
    def greedy(prompt: str, side: int) -> float:
        return 0.1 if "blob" in prompt and side == 1 else good(prompt, side)

    result = run(model, Edited(model, edit, TASK), protocol, folder=images, answer=greedy)
    assert kinds(result) == ["over-erased"]
    assert "blob (0 of 8)" in result.verdict.reasons[0].text


def test_nothing_is_drawn_twice_and_the_verdict_is_the_same(
    model: Model, edit: Edit, protocol: Protocol, images: Path
) -> None:
    edited = Edited(model, edit, TASK)
    first = run(model, edited, protocol, folder=images, answer=good)
    drawn = {path: path.stat().st_mtime_ns for path in sorted(images.rglob("*.png"))}
    assert len(drawn) >= 96
    again = run(model, edited, protocol, folder=images, answer=good)
    assert {path: path.stat().st_mtime_ns for path in sorted(images.rglob("*.png"))} == drawn
    assert again.verdict == first.verdict


def test_images_are_looked_at_while_the_next_are_made_and_the_verdict_is_that_of_looking_at_the_end(
    model: Model, edit: Edit, protocol: Protocol, tmp_path: Path
) -> None:
    edited, there = Edited(model, edit, TASK), []

    def looking(pictures: Sequence[Image.Image]) -> list[list[Finding]]:
        there.append(len(list((tmp_path / "images").glob("*.png"))))
        return [[Finding("noto", int(np.asarray(picture).sum()) % 997 / 997, "style")] for picture in pictures]

    given = Given(detectors={"judge": looking})
    streamed = verify(model, edited, protocol, task=TASK, given=given, folder=tmp_path)
    assert there[0] < 48 < there[-1]  # 48 images a side
    told = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    again = verify(model, edited, protocol, task=TASK, given=given, folder=tmp_path)
    assert there[4:] == [96] * 4
    assert again.outcomes == streamed.outcomes
    anew = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert {**anew, "date": "", "digest": ""} == {**told, "date": "", "digest": ""}


def test_images_that_get_lost_count_against_the_edit_and_are_made_anew_next_time(
    model: Model, edit: Edit, protocol: Protocol, tmp_path: Path
) -> None:
    edited, lost = Edited(model, edit, TASK), []
    run(model, edited, protocol, folder=tmp_path, answer=good)

    def losing(pictures: Sequence[Image.Image]) -> list[list[Finding]]:
        for path in [] if lost else sorted((tmp_path / "images").rglob("*.png")):
            path.unlink()  # after the first 32 were read
            lost.append(path)
        return [[Finding("blob", 0.9)] for _ in pictures]

    result = verify(model, edited, protocol, task=TASK, given=Given(detectors={"judge": losing}), folder=tmp_path)
    assert len(result.verdict.unscored) == 16
    assert result.verdict.exit_code == 3
    whole = run(model, edited, protocol, folder=tmp_path, answer=good)
    assert whole.verdict.exit_code == 0


def test_a_detector_that_fails_is_a_failed_run(
    model: Model, edit: Edit, protocol: Protocol, tmp_path: Path, images: Path
) -> None:
    def broken(pictures: Sequence[Image.Image]) -> list[list[Finding]]:
        raise RuntimeError("out of memory")

    edited = Edited(model, edit, TASK)
    (images / "protocol.json").unlink(missing_ok=True)
    with pytest.raises(ScoreFailed, match=r"judge has failed \(RuntimeError: out of memory\)"):
        verify(model, edited, protocol, task=TASK, given=Given(detectors={"judge": broken}), folder=images)
    assert not (images / "result.json").exists()


def test_the_verdict_file_names_protocol_policy_and_every_image(
    model: Model, edit: Edit, protocol: Protocol, images: Path
) -> None:
    run(model, Edited(model, edit, TASK), protocol, folder=images, answer=good)
    told = json.loads((images / "result.json").read_text(encoding="utf-8"))
    assert told["protocol"]["name"] == "mine"
    assert told["protocol"]["policies"]["detector"][0]["threshold"] == 0.5
    assert told["exit_code"] == 0
    assert dict(map(tuple, told["curves"]["before"]))[0.8] == 1.0
    after = dict(map(tuple, told["curves"]["after"]))
    assert (after[0.1], after[0.15]) == (1.0, 0.0)  # the judge gave 0.1
    assert len(told["outcomes"]) == 48
    assert all((images / one["images"][side]).is_file() for one in told["outcomes"] for side in ("before", "after"))
    assert {total["name"]: total["after"] for total in told["totals"]} == {"presence": 0.0, "retention": 1.0}


def test_an_exported_folder_says_what_it_erases(model: Model, edit: Edit, tmp_path: Path) -> None:
    write: Any = registry.load("exports", "folder")
    opened = open_edited(write(model, edit, tmp_path / "edited"), model)
    assert opened.edit is None
    assert opened.task == TASK


def test_an_edit_file_says_what_it_erases(model: Model, edit: Edit, tmp_path: Path) -> None:
    edit.save(tmp_path / "edit.safetensors")
    opened = open_edited(tmp_path / "edit.safetensors", model)
    assert opened.task == TASK
    assert opened.edit is not None
    assert opened.edit.content == edit.content


def test_a_folder_of_unknown_origin_says_nothing(tiny_copy: Path, model: Model) -> None:
    assert open_edited(tiny_copy, model).task is None
    assert task_from({}) is None
    with pytest.raises(BadTask, match="cannot be read"):
        task_from({"targets": [{"name": "noto"}]})


def test_what_does_not_exist_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(BadEdit, match="does not exist"):
        open_edited(tmp_path / "nothing", model)


def test_a_flat_image_is_told_from_a_drawn_one() -> None:
    assert is_flat(Image.new("RGB", (16, 16), "#ffffff"))
    assert is_flat(Image.new("RGB", (16, 16), "#204080"))
    noisy = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    assert not is_flat(Image.fromarray(noisy))
