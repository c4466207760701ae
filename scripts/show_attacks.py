"""Shows what every attack reaches on `emoji`: against an edit that only hides a style, and against closed forms.

python scripts/show_attacks.py [--quick] [--prompts 24] [--budget 1000] [--attacks tina completion ...]
    [--methods esd stereo ...] [--task noto]

The positive control is an edit that only hides the style: the last token of its bare name alone is redirected (`uce`,
preset paper). An attack that does not break it proves nothing by failing elsewhere. The negative control is the UNet
that was trained without the style (scripts/embedded/train_retrained.py), where its weights are found. The last line
is one JSON object: `attacks` with, by attack and edit, `success`, `control`, `before` and `n`; `broken_by_positive`,
the attacks that bring the hidden style back in more than half of the images; `negative_rate`, the largest success on
the retrained model; `controls_ok`, whether the attacks that go around the prompt break the first and fail on the
second (null without the retrained weights); `defended_excess`, the largest excess of a text attack over its control
on the best closed form.
`--quick` takes eight prompts and a budget of 300. `--methods` attacks edits of these methods instead, with the options
that the model has for them, or with those given as JSON: `esd:{"steps": 300}`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from measure_erasure import ROOT

from erase import registry
from erase.attacks.search.attack import Attack
from erase.attacks.search.experiment import Plan, run_attack
from erase.attacks.search.result import AttackResult
from erase.context import RunContext
from erase.edit import Edit
from erase.errors import EraseError
from erase.evaluate.detect import Given
from erase.evaluate.edited import Edited
from erase.evaluate.protocol import load_protocol
from erase.methods.redirect import Redirect
from erase.methods.uce import UCE
from erase.models import Model, open_model
from erase.run.options import attack_with, make_edit, method_for, method_with
from erase.sampling.sampler import Sampler
from erase.task import Target, Task

CONTROLS = ("random_prefix", "seed_search")
TASKS = {
    "noto": Task(
        [Target("noto", "style", anchor="fluent", synonyms=("google",))], ["blob", "twemoji", "mono", "contrast"]
    ),
    "cat": Task(
        [Target("cat", "object", anchor="dog", synonyms=("kitty", "feline"))], ["dog", "apple", "car", "house"]
    ),
}
AROUND = ("tina", "completion")  # which ask the network and not the words


def edits_of(model: Model, options: argparse.Namespace) -> dict[str, Edit]:
    task = TASKS[options.task]
    if options.methods:
        made = {}
        for name in options.methods:
            method, _, given = name.partition(":")
            found = method_with(method, json.loads(given)) if given else method_for(method, {}, model=model, task=task)
            made[method] = found
        work = RunContext(banks=options.folder / "banks")
        return {name: make_edit(method, model, task, work=work) for name, method in made.items()}
    return {"hidden": UCE(**UCE.paper)(model, task), "uce": UCE()(model, task), "redirect": Redirect()(model, task)}


def attacked(
    attack: Attack, edited: Edited, model: Model, *, folder: Path, options: argparse.Namespace
) -> AttackResult:
    return run_attack(
        attack,
        model,
        edited,
        task=TASKS[options.task],
        protocol=load_protocol("gate"),
        given=Given({}, model.judge_folder),
        folder=folder,
        plan=Plan(options.budget, options.prompts, sampler=Sampler(steps=options.steps, batch=16)),
    )


def figures_of(result: AttackResult) -> dict[str, Any]:
    return {
        "success": round(result.success.value, 4),
        "interval": [round(result.success.low, 4), round(result.success.high, 4)],
        "control": round(result.control.value, 4),
        "before": round(result.before.value, 4),
        "n": result.success.n,
    }


def summed_up(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the figures say, as the last line has it."""
    broken = [name for name, sides in found.items() if sides.get("hidden", {}).get("success", 0) > 0.5]
    negative = [sides["retrained"]["success"] for sides in found.values() if "retrained" in sides]
    text = [
        sides["redirect"]["success"] - sides["redirect"]["control"]
        for name, sides in found.items()
        if "redirect" in sides and name not in CONTROLS and attack_with(name, {}).changes == "text"
    ]
    asked = [name for name in AROUND if name in found]
    return {
        "controls_ok": (all(name in broken for name in asked) and max(negative) < 0.5) if negative else None,
        "attacks": found,
        "broken_by_positive": broken,
        "negative_rate": max(negative) if negative else None,
        "defended_excess": round(max(text), 4) if text else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=10, help="of sampling each image")
    parser.add_argument("--attacks", nargs="+", default=None)
    parser.add_argument("--task", choices=list(TASKS), default="noto")
    parser.add_argument("--methods", nargs="+", default=[], metavar="METHOD")
    parser.add_argument("--retrained", type=Path, default=ROOT / ".build" / "retrained" / "model")
    parser.add_argument("--folder", type=Path, default=ROOT / ".build" / "attacks")
    options = parser.parse_args()
    if options.quick:
        options.prompts, options.budget = 8, 300
    model = open_model("emoji")
    victims = {name: Edited(model, edit, TASKS[options.task]) for name, edit in edits_of(model, options).items()}
    if options.retrained.is_dir():
        victims["retrained"] = Edited(open_model(options.retrained), None, TASKS[options.task])
    found: dict[str, dict[str, Any]] = {}
    for name in options.attacks or registry.known("attacks"):
        found[name] = {}
        for side, edited in victims.items():
            try:
                result = attacked(
                    attack_with(name, {}),
                    edited,
                    model,
                    folder=options.folder / options.task / side / name,
                    options=options,
                )
            except EraseError as problem:
                print(f"{name:<18} {side:<10} {problem}", flush=True)
                continue
            found[name][side] = figures_of(result)
            print(f"{name:<18} {side:<10} {found[name][side]}", flush=True)
    print(json.dumps(summed_up(found)))


if __name__ == "__main__":
    main()
