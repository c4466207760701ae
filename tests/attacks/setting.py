"""One small setting for every attack: the embedded model, a closed form's edit of one style, few prompts and steps."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from erase.attacks.search.experiment import Plan, run_attack
from erase.attacks.search.result import AttackResult
from erase.edit import Edit
from erase.evaluate.detect import Given
from erase.evaluate.protocol import Protocol, load_protocol
from erase.evaluate.verify import Edited
from erase.methods.negative_prompt import NegativePrompt
from erase.methods.uce import UCE
from erase.models import Model, open_model
from erase.sampling.sampler import Sampler
from erase.task import Target, Task

TASK = Task([Target("noto", "style", anchor="fluent")])
SAMPLER = Sampler(steps=4, guidance=4.0, batch=8)


@cache
def base() -> Model:
    return open_model("emoji")


@cache
def erased() -> Edit:
    return UCE()(base(), TASK)


@cache
def hidden() -> Edit:
    """An edit that only hides the style: guidance away from its name while an image is sampled."""
    return NegativePrompt()(base(), TASK)


@cache
def protocol() -> Protocol:
    return load_protocol("gate")


def attacked(
    attack: object, folder: Path, *, edit: Edit | None = None, budget: int = 60, prompts: int = 3, searches: int = 1
) -> AttackResult:
    """The result of an attack on the edit; `budget` are evaluations of the network a prompt."""
    model = base()
    return run_attack(
        attack,  # type: ignore[arg-type]
        model,
        Edited(model, edit or erased(), TASK),
        task=TASK,
        protocol=protocol(),
        given=Given({}, model.judge_folder),
        folder=folder,
        plan=Plan(budget, prompts, sampler=SAMPLER, searches=searches),
    )
