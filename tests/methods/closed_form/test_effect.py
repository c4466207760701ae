"""How far an edit moves its targets and what must stay, against the plain sum; what is said of it, and where."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from erase.context import RunContext
from erase.edit import Edit
from erase.effect import LEAST, MOST, Effect
from erase.methods.closed_form.effect import effect_of
from erase.methods.esd import ESD
from erase.methods.redirect import Redirect
from erase.methods.refact import ReFACT
from erase.methods.sld import SLD
from erase.methods.time import TIME
from erase.methods.uce import UCE
from erase.models import Model
from erase.run.options import make_edit
from erase.task import Target, Task
from tests.cli.test_verify import DETECTOR, PROTOCOL, arguments
from tests.conftest import OBJECTS, STYLES
from tests.methods.trained import FEW
from tests.recipes import command, refused, tiny_recipe, write_recipe
from tests.tiny import tiny_judge, tiny_stable_diffusion

Capture = pytest.CaptureFixture[str]
TASK = Task((Target("noto", "style", "blob", prompts=("a cat in {} style", "{}")),), ("twemoji", "a dog in the rose"))


def derived(edit: Edit, model: Model, task: Task) -> tuple[float, float]:
    """Both shares, one prompt, token and weight after the other, in float64."""
    weights = [model.weight(site.name).double() for site in model.sites()]
    changes = [edit.changed_tensor(site.name, model.weight(site.name)).double() for site in model.sites()]

    def states(prompt: str) -> list[torch.Tensor]:
        return list(model.encode([prompt]).states[0].double())

    def size(moves: list[torch.Tensor]) -> float:
        return float(sum(move.square().sum() for move in moves))

    def moved(prompt: str) -> list[torch.Tensor]:
        return [new @ r - old @ r for r in states(prompt) for old, new in zip(weights, changes, strict=True)]

    names = [template.format("noto") for template in task.targets[0].prompts]
    anchors = [template.format("blob") for template in task.targets[0].prompts]
    pairs = [pair for two in zip(names, anchors, strict=True) for pair in zip(*map(states, two), strict=True)]
    apart = size([weight @ (n - o) for o, n in pairs for weight in weights]) / len(names)
    own = sum(size(moved(prompt)) for prompt in names) / len(names)
    kept = sum(size(moved(prompt)) for prompt in task.kept) / len(task.kept)
    return float((own / apart) ** 0.5), float((kept / apart) ** 0.5)


@pytest.mark.parametrize("method", [UCE(lamb=3.0, protect="none"), UCE(technique="tensor"), Redirect(), TIME()])
def test_the_shares_are_those_of_every_weight_and_token(model: Model, method: UCE | Redirect | TIME) -> None:
    edit = method(model, TASK)
    effect = effect_of(edit, model, TASK)
    assert effect is not None
    assert (effect.moved, effect.kept) == pytest.approx(derived(edit, model, TASK), rel=1e-4)
    assert effect.moved is not None
    assert effect.kept is not None
    assert effect.moved > LEAST
    assert effect.kept > 1e-3


def test_an_edit_that_maps_targets_onto_anchors_moves_them_all_the_way(model: Model) -> None:
    one = Task((Target("noto", "style", "blob"),), ("twemoji",))
    effect = effect_of(UCE(lamb=1e-8, preserve_scale=0.0, phrasings="own")(model, one), model, one)
    assert effect is not None
    assert effect.moved == pytest.approx(1.0, abs=1e-3)


def test_an_edited_text_encoder_moves_outputs_through_its_states(model: Model) -> None:
    edit = ReFACT(steps=20)(model, TASK)
    effect = effect_of(edit, model, TASK)
    assert effect is not None
    pipe = model.pipeline()
    before = model.encode(["noto", "blob"]).states.double()
    with edit.apply(pipe), torch.no_grad():
        after = pipe.text_encoder(model.encode(["noto"]).ids).last_hidden_state.double()
    weights = [model.weight(site.name).double() for site in model.sites()]
    moved, apart = (
        sum(float((states @ weight.T).square().sum()) for weight in weights)
        for states in (after[0] - before[0], before[1] - before[0])
    )
    bare = Task((Target("noto", "style", "blob"),), ("twemoji",))
    assert (effect_of(edit, model, bare) or effect).moved == pytest.approx((moved / apart) ** 0.5, rel=1e-3)


def test_what_changes_no_outputs_of_a_prompt_has_no_effect_to_tell(model: Model) -> None:
    assert effect_of(SLD()(model, TASK), model, TASK) is None
    beside = Edit(UCE()(model, TASK).info, deltas={"unet.conv_out.bias": torch.ones(4)})
    assert effect_of(beside, model, TASK) is None


def test_it_is_told_in_the_words_of_both(model: Model) -> None:
    cases = {
        (0.0, 0.0): ["next to nothing"],
        (LEAST, MOST): [],
        (float("nan"), float("nan")): ["next to nothing", "harmed"],
        (1.0, 0.4): ["harmed"],
        (1.0, None): [],
    }
    for shares, kinds in cases.items():
        for seen in ("outputs", "predictions"):
            assert [one.kind for one in Effect(seen, *shares).problems] == kinds  # type: ignore[arg-type]


def test_it_goes_with_the_strength(model: Model) -> None:
    half = make_edit(UCE(), model, TASK, work=RunContext(), strength=-0.5)
    whole = make_edit(UCE(), model, TASK, work=RunContext())
    assert whole.info.effect is not None
    assert half.info.effect == whole.scaled(0.5).info.effect
    assert half.info.effect == effect_of(half, model, TASK)
    assert (whole + whole).info.effect is None
    assert Effect("predictions", 0.5, 0.1).scaled(0.5) is None


def test_a_training_keeps_what_it_has_seen(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    made = make_edit(ESD(**FEW), model, TASK, work=RunContext())
    assert made.info.effect is not None
    assert made.info.effect.seen == "predictions"
    weak = make_edit(ESD(**FEW), model, TASK, work=RunContext(), strength=0.0)
    assert weak.info.effect == Effect("predictions", 0.0, 0.0)
    assert "esd has changed next to nothing" in caplog.text


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    """A model whose states are as wide as its prompts are long, so that the empty prompt's span all of them."""
    folder = tiny_stable_diffusion(tmp_path / "narrow", width=16)
    tiny_judge(folder / "judge", styles=STYLES, objects=OBJECTS)
    return folder


def test_an_edit_that_may_move_nothing_says_so_wherever_it_is_seen(
    capsys: Capture, caplog: pytest.LogCaptureFixture, narrow: Path, tmp_path: Path
) -> None:
    file = tmp_path / "edit.safetensors"
    said = command(
        capsys, "edit", "-m", narrow, "--method", "uce", "-t", "noto", "-a", "blob", "-k", "twemoji", "-o", file
    )
    assert said.code == 0
    (line,) = [record.message for record in caplog.records if "next to nothing" in record.message]
    assert line.startswith("uce has changed next to nothing: outputs for the targets' prompts have moved by ")
    effect = Edit.load(file).info.effect
    assert effect is not None
    assert effect.moved is not None
    assert effect.moved < 1e-3
    assert json.loads(command(capsys, "inspect", file, "--json").out)["effect"].startswith("next to nothing")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(PROTOCOL), encoding="utf-8")
    (tmp_path / "mine.py").write_text(DETECTOR, encoding="utf-8")
    command(capsys, "export", "-m", narrow, "-e", file, "-o", tmp_path / "edited")
    for edited in (file, tmp_path / "edited"):
        said = command(capsys, *arguments(tmp_path, edited, narrow))
        reasons = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))["reasons"]
        assert said.code == 3
        assert "next to nothing" in [reason["kind"] for reason in reasons]
        shutil.rmtree(tmp_path / "out")


def test_a_run_of_such_an_edit_ends_with_3_without_any_bounds(capsys: Capture, narrow: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_recipe(tmp_path, narrow))
    for _ in range(2):  # and when it was finished already
        line = refused(capsys, "run", recipe, "-o", tmp_path / "run", code=3)
        assert "uce has changed next to nothing: outputs for the targets' prompts" in line
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "The edit has changed next to nothing." in report


def test_an_edit_that_moves_what_must_stay_is_harm(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    free = UCE(preserve_scale=0.0, lamb=1e-4, protect="none", erase_scale=10.0)
    made = make_edit(free, model, TASK, work=RunContext(), strength=3.0)
    assert made.info.effect is not None
    assert "harmed" in [one.kind for one in made.info.effect.problems]
    assert "uce has harmed what must stay: outputs for what must stay have moved by" in caplog.text
