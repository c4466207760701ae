"""UCE's debiasing: the feedback loop against the paper's update, and what it says of itself."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPModel

from erase.context import RunContext
from erase.edit import Edit
from erase.errors import BadOption, ScoreFailed
from erase.evaluate.label_samples import Observer
from erase.export.parts.recipe import recipe
from erase.methods.closed_form.debias import Wanted
from erase.methods.uce import UCE
from erase.models import Model, open_model
from erase.task import Target, Task
from tests.methods.formulas import relative, ridge_step
from tests.tiny import tiny_judge, tiny_stable_diffusion
from tests.tiny_edits import tiny_edit

ATTRIBUTES = ("noto", "blob")
TASK = Task((Target("cat", "object", prompts=("a {}",)), Target("dog", "object", prompts=("a {}",))), keeps=("a car",))


def wanted(count: int, tolerance: float) -> Wanted:
    names = tuple(f"attribute {number}" for number in range(count))
    return Wanted(names, torch.full((count,), 1 / count, dtype=torch.float64), rounds=1, tolerance=tolerance, step=1.0)


def test_as_many_images_as_tell_a_share_to_within_the_tolerance() -> None:
    """Two standard errors, sqrt(p (1 - p) / n), are the tolerance: 2 sqrt(0.25 / 400) and 2 sqrt(7 / 64 / 175)."""
    assert wanted(2, 0.05).images_for_tolerance() == 400
    assert wanted(8, 0.05).images_for_tolerance() == 175
    assert wanted(8, 0.0).images_for_tolerance() == 0


def test_too_few_images_for_the_tolerance_are_told(caplog: pytest.LogCaptureFixture) -> None:
    wanted(8, 0.05).check_images(175)
    assert not caplog.messages
    wanted(8, 0.05).check_images(16)
    assert caplog.messages == [
        "16 images of a concept tell its shares to within 0.17, and tolerance is 0.05; for that, look at 175."
    ]


class Seen:
    """Somebody who looks and always says what was written down before, round after round."""

    def __init__(self, *rounds: list[list[float]]) -> None:
        self.rounds, self.edits = list(rounds), list[Edit | None]()

    def __call__(self, edit: Edit | None, prompts: Sequence[str], **how: Any) -> list[list[float]]:
        assert tuple(prompts) == ("a cat", "a dog")
        assert tuple(how["labels"]) == ATTRIBUTES
        self.edits.append(edit)
        return self.rounds[len(self.edits) - 1]


def debiased(model: Model, seen: Seen, **options: Any) -> Edit:
    method = UCE(mode="debias", attributes=ATTRIBUTES, tokens="last", protect="none", **options)
    return method(model, TASK, work=RunContext(observe=seen))


def test_each_round_is_the_papers_update_with_all_differences_so_far(model: Model) -> None:
    seen = Seen([[1.0, 0.0], [0.5, 0.5]], [[0.8, 0.2], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]])
    edit = debiased(model, seen, step=0.7)
    encoding = model.encode(["a cat", "a dog", *ATTRIBUTES, "a car"])
    last = [int(length) - 2 for length in encoding.lengths]
    cat, dog, noto, blob = (encoding.states[row, last[row]].double() for row in range(4))
    # Of the cat's shares 1/2 - 1 and then 1/2 - 0.8 were missing for noto; the dog's were reached from the start.
    for number, missing in ((1, -0.5), (2, -0.5 - 0.3)):
        new = torch.stack([cat + 0.7 * missing * (noto - blob), dog])
        found = seen.edits[number]
        assert found is not None
        for site in model.sites():
            weight = model.weight(site.name).double()
            expected = ridge_step(
                weight, torch.stack([cat, dog]), new, keeps=encoding.states[4], scales=(1.0, 1.0, 0.5)
            )
            assert relative(weight, expected) > 1e-3
            assert relative(weight @ found.text_maps[0].matrix(), expected) < 1e-6
    assert edit.content == seen.edits[-1].content  # type: ignore[union-attr]


def test_the_round_that_came_nearest_is_taken_and_its_record_tells_the_ratios(model: Model, tmp_path: Path) -> None:
    seen = Seen([[1.0, 0.0]] * 2, [[0.7, 0.3]] * 2, [[0.1, 0.9]] * 2, [[0.9, 0.1]] * 2)
    edit = debiased(model, seen, rounds=3, ratios=(0.6, 0.4))
    assert edit.content == seen.edits[1].content  # type: ignore[union-attr]
    expected = {"attributes": ["noto", "blob"], "wanted": [0.6, 0.4], "before": [[1.0, 0.0]] * 2}
    assert edit.info.record == {**expected, "after": [[0.7, 0.3]] * 2, "rounds": 3}
    edit.save(tmp_path / "edit.safetensors")
    again = Edit.load(tmp_path / "edit.safetensors")
    assert again.info.record == edit.info.record
    assert recipe(again)["record"] == edit.info.record


def test_it_ends_when_the_ratios_are_reached(model: Model) -> None:
    seen = Seen([[1.0, 0.0]] * 2, [[0.53, 0.47]] * 2)
    debiased(model, seen)
    assert len(seen.edits) == 2


@pytest.mark.parametrize("tokens", ["aligned", "all"])
def test_padding_takes_the_attributes_padding(model: Model, tokens: str) -> None:
    seen = Seen([[1.0, 0.0]] * 2, [[0.5, 0.5]] * 2)
    method = UCE(mode="debias", attributes=ATTRIBUTES, tokens=tokens, protect="none", preserve_scale=0.0, lamb=1e-6)  # type: ignore[arg-type]
    matrix = method(model, Task(TASK.targets), work=RunContext(observe=seen)).text_maps[0].matrix()
    cat, noto, blob = model.encode(["a cat", "noto", "blob"]).states.double()
    for place in (2, 3, 9):  # the word, its end, and padding; the attributes' words stand one before
        wanted = cat[place] - 0.5 * (noto[place - 1] - blob[place - 1])
        assert (cat[place] @ matrix.T - wanted).norm() < 0.05 * (wanted - cat[place]).norm()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mode": "debias"}, "attributes are none"),
        ({"mode": "debias", "attributes": ("noto", "noto")}, "two or more different"),
        ({"attributes": ("noto", "blob")}, "mode is erase"),
        ({"mode": "debias", "attributes": ATTRIBUTES, "ratios": (0.5, 0.2)}, "ratios"),
        ({"mode": "debias", "attributes": ATTRIBUTES, "ratios": (1.0,)}, "ratios"),
        ({"mode": "debias", "attributes": ATTRIBUTES, "clip_template": "style"}, "clip_template"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        UCE(**options)


def test_without_anybody_who_looks_it_is_refused(model: Model) -> None:
    with pytest.raises(BadOption, match="looks at images"):
        UCE(mode="debias", attributes=ATTRIBUTES)(model, TASK)


def test_who_looks_tells_shares_by_the_judges_clip_and_refuses_without_one(tmp_path: Path) -> None:
    folder = tiny_stable_diffusion(tmp_path / "model")
    tiny_judge(folder / "judge", styles=("noto", "blob"), objects=("cat", "dog"))
    model = open_model(folder)
    shares = Observer(model)(None, ["a cat", "a dog"], labels=ATTRIBUTES, images=3, template="{} style")
    assert [sum(row) for row in shares] == pytest.approx([1.0, 1.0])
    assert all(round(3 * share, 6) in (0, 1, 2, 3) for row in shares for share in row)
    shutil.rmtree(folder / "judge")
    with pytest.raises(ScoreFailed, match="comes without a judge"):
        Observer(open_model(folder))(None, ["a cat"], labels=ATTRIBUTES, images=1)


def test_all_rounds_look_through_one_pipeline_and_one_clip(
    tiny_model: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = {"pipelines": 0, "clips": 0}
    pipeline, from_pretrained = type(model).pipeline, CLIPModel.from_pretrained

    def load_pipeline(self: Model, *arguments: Any) -> Any:
        loaded["pipelines"] += 1
        return pipeline(self, *arguments)

    def load_clip(*arguments: Any, **more: Any) -> Any:
        loaded["clips"] += 1
        return from_pretrained(*arguments, **more)

    monkeypatch.setattr(type(model), "pipeline", load_pipeline)
    monkeypatch.setattr(CLIPModel, "from_pretrained", load_clip)
    opened = open_model(tiny_model)
    method = UCE(
        mode="debias",
        attributes=ATTRIBUTES,
        tokens="last",
        protect="none",
        images=2,
        rounds=3,
        tolerance=0.0,
        clip_template="{} style",
    )
    edit = method(opened, TASK, work=RunContext(observe=Observer(opened)))
    assert edit.info.record["rounds"] == 3
    assert loaded == {"pipelines": 1, "clips": 1}


def test_a_pipeline_that_was_looked_through_under_an_edit_is_as_before(model: Model) -> None:
    observer = Observer(model)
    how: dict[str, Any] = {"labels": ATTRIBUTES, "images": 4, "template": "{} style"}
    first = observer(None, ["a cat"], **how)
    before = {name: value.clone() for name, value in observer._pipe.unet.state_dict().items()}
    observer(tiny_edit(model), ["a cat"], **how)
    assert all(torch.equal(before[name], value) for name, value in observer._pipe.unet.state_dict().items())
    assert observer(None, ["a cat"], **how) == first


def test_an_attribute_that_the_clip_does_not_read_to_its_end_is_told_before_an_image(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(model), "pipeline", None)
    with pytest.raises(ScoreFailed, match="has more than the 14 tokens that the CLIP"):
        Observer(model)(None, ["a cat"], labels=("noto", "a lighthouse on a hill"), images=1)
