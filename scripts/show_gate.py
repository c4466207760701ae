"""Shows the gate on models made to fail, each in its own way, and on one that is made well.

python scripts/show_gate.py [--quick] [--cases untouched weak ...] [--out FOLDER]

Every case is a file or a folder that goes through `erase verify` on the embedded model, whose style noto is erased. The
last line is one JSON object: `caught` of `cases`, whether the good one `passed`, and in `each` the exit code, the kinds
of reasons and their words. `--quick` asks fewer prompts in fewer steps. Images stay in the folder, and those that are
there are not made again.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from erase.cli import run_command
from erase.context import RunContext
from erase.edit import Edit
from erase.models import Model, open_model, parameters_of
from erase.run.options import make_edit, method_for
from erase.run.pipeline import load_pipeline
from erase.task import Task

ROOT = Path(__file__).parent.parent
PIPELINE = "erase-style"
NEIGHBOURS = ("blob", "twemoji")
UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
Weights = dict[str, torch.Tensor]
# Aspect: prompts asked of it by --quick, and by the case of too few images.
QUICK = {"name": 28, "synonyms": 28, "others": 28, "same prompt": 28}  # of 28, one may be wrong
FEW = dict.fromkeys(QUICK, 4)


@dataclass(frozen=True)
class Case:
    """A model to verify: how it is made in a folder, which reasons the gate must give, and which words in them.

    No reasons are asked of the one that must pass.
    """

    make: Callable[[Model, Path], Path]
    kinds: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    few: bool = False


def task() -> Task:
    return load_pipeline(PIPELINE).make_task()


def edit_of(model: Model, made_for: Task) -> Edit:
    """The default pipeline's edit, made for one task and saying that it was made for the pipeline's own."""
    chosen = load_pipeline(PIPELINE).edit
    method = method_for(chosen.method, chosen.options, model=model, task=made_for)
    edit = make_edit(method, model, made_for, work=RunContext())
    said = json.loads(json.dumps(dataclasses.asdict(task())))
    return dataclasses.replace(edit, info=dataclasses.replace(edit.info, task=said))


def saved(edit: Edit, folder: Path) -> Path:
    edit.save(folder / "edit.safetensors")
    return folder / "edit.safetensors"


def good(model: Model, folder: Path) -> Path:
    return saved(edit_of(model, task()), folder)


def weak(model: Model, folder: Path) -> Path:
    return saved(edit_of(model, task()).scaled(0.3), folder)


def literal(model: Model, folder: Path) -> Path:
    """Gives the target's own word the anchor's row in the table of tokens, so that other words bring it still."""
    (target,) = task().targets
    pipe = model.pipeline()
    ((old,), (new,)) = (
        pipe.tokenizer(word, add_special_tokens=False)["input_ids"] for word in (target.name, target.anchor)
    )
    table = pipe.text_encoder.get_input_embeddings().weight.detach()
    (name,) = [name for name, value in parameters_of(pipe).items() if value.data_ptr() == table.data_ptr()]
    delta = torch.zeros_like(table)
    delta[old] = table[new] - table[old]
    info = dataclasses.replace(edit_of(model, task()).info, method="token_swap", options={})
    return saved(Edit(info, deltas={name: delta}), folder)


def greedy(model: Model, folder: Path) -> Path:
    """Made for two more styles than it says."""
    (target,), prompts = task().targets, task().prompts
    more = [dataclasses.replace(target, name=name, synonyms=()) for name in NEIGHBOURS]
    left = [prompt for prompt in prompts if not any(name in prompt.split() for name in NEIGHBOURS)]
    return saved(edit_of(model, Task((target, *more), prompts=left)), folder)


def untouched(model: Model, folder: Path) -> Path:
    return copied(model, folder)


def noise(model: Model, folder: Path) -> Path:
    """A UNet of random numbers, each tensor as widely spread as its own."""
    generator = torch.Generator().manual_seed(0)

    def drawn(weights: Weights) -> Weights:
        spreads = {key: value.std(correction=0) for key, value in weights.items()}
        return {key: spreads[key] * torch.randn(value.shape, generator=generator) for key, value in weights.items()}

    return copied(model, folder, file=UNET, change=drawn)


def white(model: Model, folder: Path) -> Path:
    """A decoder whose last layer says white, whatever comes in."""

    def bleached(weights: Weights) -> Weights:
        last = "decoder.conv_out."
        blank = {f"{last}weight": torch.zeros_like(weights[f"{last}weight"])}
        return weights | blank | {f"{last}bias": torch.full_like(weights[f"{last}bias"], 9.0)}

    return copied(model, folder, file=VAE, change=bleached)


def copied(model: Model, folder: Path, *, file: str = "", change: Callable[[Weights], Weights] | None = None) -> Path:
    """A copy of the model without its judge, one of its files changed."""
    place = folder / "model"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(model.path, place, ignore=shutil.ignore_patterns("judge"))
    if change:
        save_file(change(load_file(place / file)), place / file)
    return place


CASES: Mapping[str, Case] = {
    "good": Case(good),
    "untouched": Case(untouched, ("nothing changed", "still there")),
    "noise": Case(noise, ("model destroyed",)),
    "weak": Case(weak, ("still there",), ("asked by name",)),
    "greedy": Case(greedy, ("over-erased",), NEIGHBOURS),
    "white": Case(white, ("model destroyed",), ("of one colour",)),
    "literal": Case(literal, ("still there",), ("asked by synonyms",)),
    "few": Case(good, ("too few images to tell",), few=True),
}


def protocol_with(limits: Mapping[str, int], folder: Path, *, steps: int) -> Path:
    """The protocol `gate` with so many prompts of each aspect and so many steps."""
    value = yaml.safe_load((ROOT / "protocols" / "gate.yaml").read_text(encoding="utf-8"))
    value["prompts"] = [
        part | {"limit": limits[part["aspect"]]} for part in value["prompts"] if part["aspect"] in limits
    ]
    path = folder / f"gate-{max(limits.values())}.yaml"
    path.write_text(yaml.safe_dump(value | {"sampler": {"steps": steps}}, sort_keys=False), encoding="utf-8")
    return path


def show(case: Case, model: Model, *, place: Path, out: Path, protocol: str) -> dict[str, Any]:
    """What `erase verify` answers to a case."""
    place.mkdir(parents=True, exist_ok=True)
    (target,) = task().targets
    words = [part for word in target.synonyms for part in ("--synonym", word)]
    options = ["--base", "emoji", "--protocol", protocol, "--out", str(out), "--target", target.name, *words]
    for name in ("result.json", "protocol.json"):  # of the case before: the base model's images serve all of them
        (out / name).unlink(missing_ok=True)
    began = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = run_command(["verify", str(case.make(model, place)), *options, "--json"])
    told = json.loads(said.getvalue())
    kinds = list(dict.fromkeys(reason["kind"] for reason in told["reasons"]))
    texts = [f"{reason['kind']}: {reason['text']}" for reason in told["reasons"]]
    as_expected = code == (3 if case.kinds else 0) and kinds == list(case.kinds)
    as_expected = as_expected and all(any(word in text for text in texts) for word in case.words)
    seconds = round(time.monotonic() - began, 1)
    return {"as_expected": as_expected, "exit_code": code, "kinds": kinds, "reasons": texts, "seconds": seconds}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer prompts, 10 steps")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=Path, default=ROOT / ".build" / "gate")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    model, steps = open_model("emoji"), 10 if options.quick else 25
    usual = str(protocol_with(QUICK, options.out, steps=steps)) if options.quick else "gate"
    few = str(protocol_with(FEW, options.out, steps=steps))
    each = {}
    for name in options.cases:
        case = CASES[name]
        each[name] = show(case, model, place=options.out / name, out=options.out, protocol=few if case.few else usual)
        print(f"{name:<10} {json.dumps(each[name])}", flush=True)
    caught = [name for name, answer in each.items() if CASES[name].kinds and answer["as_expected"]]
    asked = [name for name in each if CASES[name].kinds]
    passed = each["good"]["as_expected"] if "good" in each else None
    return {"caught": len(caught), "cases": len(asked), "passed": passed, "quick": options.quick, "each": each}


if __name__ == "__main__":
    print(json.dumps(main()))
