"""Commands with inputs of each kind, and what came of each: what must never be is an exit code but 0, 2, 3 and 130."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from erase import registry
from erase.cli import run_command
from erase.errors import EraseError
from erase.models import open_model
from erase.run.options import make_edit
from tests.fuzz.values import changed, floats, like, mangled, numbers, texts, values
from tests.recipes import PROMPTS, tiny_recipe, write_recipe
from tests.tiny import tiny_judge, tiny_stable_diffusion
from tests.tiny_edits import tiny_edit

ROOT = Path(__file__).parents[2]
Command = list[str]
METADATA = "erase.edit"


class Stopped(EraseError):
    """All checks are passed; what follows takes long and is left out."""

    exit_code = 0


@dataclass(frozen=True)
class Outcome:
    """What a command ended with."""

    code: int
    errors: str
    command: Command

    @property
    def fault(self) -> str:
        """What is wrong with it; empty if nothing is."""
        told = [line for line in self.errors.splitlines() if line.startswith("error: ")]
        if self.code not in (0, 2, 3, 130):
            return f"exit code {self.code}"
        if "Traceback (most recent call last)" in self.errors:
            return "traceback"
        if any("unexpected " in line and "ERASE_TRACEBACK" in line for line in told):
            return "unforeseen error"
        if self.code == 2 and len(told) != 1:
            return "not one line"
        return ""


@dataclass(frozen=True)
class Bench:
    """A tiny model, a finished run of it and an edit, which no case changes."""

    model: Path
    run: Path
    edit: Path
    recipe: dict[str, Any]


def make_bench(folder: Path) -> Bench:
    """The bench, made in an empty folder."""
    model = tiny_stable_diffusion(folder / "model")
    axes = yaml.safe_load((ROOT / "prompts/emoji-square.yaml").read_text(encoding="utf-8"))["axes"]
    tiny_judge(model / "judge", styles=axes["style"], objects=axes["object"])
    recipe = tiny_recipe(folder, model) | {"export": ["patch", "folder"]}
    recipe["generate"] |= {"where": {"style": ["noto", "blob"]}, "steps": 1}
    with quiet() as said:
        code = run_command(["run", str(write_recipe(folder, recipe)), "--out", str(folder / "run")])
    if code != 0:
        raise RuntimeError(f"the run that all cases damage ended with {code}: {said.getvalue()}")
    edit = folder / "edit.safetensors"
    tiny_edit(open_model(model), deltas=("unet.conv_in.weight",)).save(edit)
    return Bench(model, folder / "run", edit, recipe)


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """What a command says on its error stream; nothing is shown, and warnings are no errors."""
    said = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield said


def _stop(*arguments: object, **more: object) -> Any:
    raise Stopped("checked")


def _make_quickly(method: Any, *arguments: Any, **more: Any) -> Any:
    """Edits in closed form are made; a training, and one that looks at images, is not."""
    from erase.methods.training.trainer import Optimised

    if isinstance(method, Optimised) or getattr(method, "mode", "") == "debias" or getattr(method, "rounds", 0) > 50:
        _stop()
    return make_edit(method, *arguments, **more)


def outcome(command: Command) -> Outcome:
    """What a command ends with; it makes no image and trains nothing."""
    patches = {
        "erase.sampling.generate.sample": _stop,
        "erase.run.store.Run.begin": _stop,
        "erase.run.options.make_edit": _make_quickly,
    }
    with quiet() as said, contextlib.ExitStack() as stack:
        for name, instead in patches.items():
            stack.enter_context(mock.patch(name, instead))
        code = run_command(command)
    return Outcome(code, said.getvalue(), command)


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A fresh folder, the working one while it lives."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield Path(folder)


@functools.cache
def shipped() -> tuple[dict[str, Any], ...]:
    """The pipelines of this project."""
    return tuple(
        yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "pipelines").rglob("*.yaml"))
    )


def pipelines(draw: st.DrawFn, bench: Bench, folder: Path) -> Command:
    """A shipped pipeline, or a tiny one, that was changed."""
    base = draw(st.sampled_from((*shipped(), bench.recipe, bench.recipe)))
    value = draw(changed(base | {"model": str(bench.model)}))
    text = yaml.safe_dump(value).encode("utf-8", "surrogatepass")
    (folder / "p.yaml").write_bytes(draw(mangled(text)))
    return ["run", "p.yaml"]


def prompts(draw: st.DrawFn, bench: Bench, folder: Path) -> Command:
    """A prompt file of one of the forms that are read, changed."""
    suffix = draw(st.sampled_from((".yaml", ".csv", ".csv", ".txt", ".jsonl", ".tsv")))
    (folder / f"prompts{suffix}").write_bytes(draw(mangled(draw(_prompt_file(suffix)))))
    where = draw(_seldom(st.one_of(st.just(["--where", "style=noto"]), texts.map(lambda text: ["--where", text]))))
    seeds = draw(_seldom(numbers.map(lambda seed: ["-s", str(seed)])))
    return ["generate", "-m", str(bench.model), "--prompts", f"prompts{suffix}", *where, *seeds]


def _seldom(flags: st.SearchStrategy[Command]) -> st.SearchStrategy[Command]:
    return st.integers(0, 3).flatmap(lambda drawn: st.just([]) if drawn else flags)


@st.composite
def _prompt_file(draw: st.DrawFn, suffix: str) -> bytes:
    if suffix == ".yaml":
        return yaml.safe_dump(draw(changed(yaml.safe_load(PROMPTS)))).encode("utf-8", "surrogatepass")
    if suffix == ".txt":
        return "\n".join(draw(st.lists(texts, max_size=5))).encode("utf-8", "surrogatepass")
    if suffix == ".jsonl":
        row = {"prompt": "a cat in noto style", "seed": 3, "style": "noto", "labels": {"object": "cat"}}
        rows = draw(st.lists(changed(row, most=1), max_size=4))
        return "\n".join(json.dumps(row) for row in rows).encode("utf-8", "surrogatepass")
    columns = st.sampled_from(("prompt", "seed", "evaluation_seed", "style", "object", "artist", "case_number", ""))
    heads = (
        ["prompt", *draw(st.lists(columns, max_size=4))] if draw(st.booleans()) else draw(st.lists(columns, max_size=3))
    )
    cells = st.one_of(texts, numbers.filter(lambda number: abs(number) < 2**70).map(str))
    text = io.StringIO(newline="")
    csv.writer(text, delimiter="\t" if suffix == ".tsv" else ",").writerows(
        [heads, *draw(st.lists(st.lists(cells, max_size=5), max_size=4))]
    )
    return text.getvalue().encode("utf-8", "surrogatepass")


def words(draw: st.DrawFn, bench: Bench, folder: Path) -> Command:
    """A task of odd words, on the command line or in a pipeline, whose edit is made."""
    kind = draw(st.sampled_from(("style", "object", "unsafe", "identity")))
    method = draw(st.sampled_from(("redirect", "redirect", "uce", "time", "rece", "mace", "speed", "adavd")))
    targets = draw(st.lists(texts, min_size=1, max_size=2, unique=True))
    if draw(st.booleans()):
        flags = [flag for target in targets for flag in ("-t", target)]
        flags += [flag for keep in draw(st.lists(texts, max_size=2)) for flag in ("-k", keep)]
        flags += [flag for anchor in draw(st.lists(texts, max_size=1)) for flag in ("-a", anchor)]
        return ["edit", "-m", str(bench.model), "--method", method, "--kind", kind, *flags, "-o", "e.safetensors"]
    several = st.lists(texts, max_size=2)
    named = [
        {"name": one, "anchor": draw(texts), "synonyms": draw(several), "prompts": draw(several)} for one in targets
    ]
    templates = draw(st.lists(st.one_of(texts, st.just("a picture of {} there")), max_size=2))
    task = {"kind": kind, "targets": named, "prompts": templates, "keeps": draw(several)}
    (folder / "p.yaml").write_text(
        yaml.safe_dump(bench.recipe | {"task": task, "edit": {"method": method}}), encoding="utf-8"
    )
    return ["run", "p.yaml"]


def options(draw: st.DrawFn, bench: Bench, folder: Path) -> Command:
    """Values of a method's or an export's options, of the right kind and of others."""
    name = draw(st.sampled_from(registry.known("methods")))
    method: Any = registry.load("methods", name)
    own = {one.name: one.default for one in fields(method)}
    keys = st.one_of(*[st.sampled_from([*own, "preset"])] * 5, texts)
    odd = st.one_of(numbers.filter(lambda number: not 50 < number < 2**63), floats, texts, values)
    flags: Command = []
    for key in draw(st.lists(keys, min_size=1, max_size=2)):
        value = draw(like(own.get(key)) if draw(st.booleans()) else odd)
        flags += ["--option", f"{key}={_as_yaml(value)}"]
    more = draw(_seldom(floats.map(lambda strength: ["--strength", str(strength)])))
    words = ["-t", "noto", "-a", "blob", "-k", "twemoji"]
    return ["edit", "-m", str(bench.model), "--method", name, *words, *flags, *more, "-o", "e.safetensors"]


def _as_yaml(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


RUN_COMMANDS: tuple[Callable[[Path, Bench], Command], ...] = (
    lambda run, bench: ["report", str(run)],
    lambda run, bench: ["score", str(run)],
    lambda run, bench: ["grid", str(run)],
    lambda run, bench: ["generate", str(run)],
    lambda run, bench: ["compare", str(run), str(bench.run), "-o", "c.html"],
    lambda run, bench: ["undo", str(run / "model"), "-o", "undone"],
    lambda run, bench: ["verify-manifest", str(run / "model")],
    lambda run, bench: ["inspect", str(run / "model")],
    lambda run, bench: ["diff", str(run / "model"), str(bench.model)],
    lambda run, bench: ["export", str(run), "--to", "lora", "-o", "lora"],
    lambda run, bench: ["push", str(run / "model"), "--to", "me/x", "--dry-run"],
)


def runs(draw: st.DrawFn, bench: Bench, folder: Path) -> Command:
    """A finished run's folder in which a file was changed."""
    run = folder / "run"
    shutil.copytree(bench.run, run)
    kinds = (
        "plan.jsonl",
        "scores.json",
        "recipe.yaml",
        "edit.safetensors",
        "model/manifest.json",
        "model/model_index.json",
    )
    file = draw(st.sampled_from([run / name for name in kinds] + sorted(run.glob("before/*.png"))[:1]))
    text = file.read_bytes()
    if file.suffix == ".json":
        text = json.dumps(draw(changed(json.loads(text)))).encode()
    elif file.suffix == ".jsonl":
        first, *others = [json.loads(line) for line in text.splitlines()]
        text = "\n".join(json.dumps(row) for row in [draw(changed(first)), *others]).encode()
    elif file.suffix == ".yaml":
        text = yaml.safe_dump(draw(changed(yaml.safe_load(text), most=1))).encode("utf-8", "surrogatepass")
    file.unlink()
    if draw(st.integers(0, 9)):
        file.write_bytes(draw(mangled(text)))
    return draw(st.sampled_from(RUN_COMMANDS))(run, bench)


def edits(draw: st.DrawFn, bench: Bench, folder: Path) -> Command:
    """An edit's file whose metadata, tensors or bytes were changed."""
    file = folder / "e.safetensors"
    if draw(st.booleans()):
        from safetensors import safe_open

        with safe_open(bench.edit, framework="pt") as opened:
            info = json.loads(opened.metadata()[METADATA])
        tensors = {key: draw(st.sampled_from(TENSORS))(value) for key, value in load_file(bench.edit).items()}
        save_file(tensors, file, metadata={METADATA: json.dumps(draw(changed(info)))})
    else:
        file.write_bytes(draw(mangled(bench.edit.read_bytes())))
    model, edit, good = str(bench.model), str(file), str(bench.edit)
    commands: list[Command] = [
        ["inspect", edit],
        ["diff", edit, good],
        ["combine", edit, good, "-o", "sum.safetensors"],
    ]
    commands += [["export", "-m", model, "-e", edit, "--to", to, "-o", "out"] for to in registry.known("exports")]
    commands += [["generate", "-m", model, "-p", "a cat", "-e", edit], ["verify", edit, "-b", model]]
    return draw(st.sampled_from(commands))


TENSORS: tuple[Callable[[Any], Any], ...] = (
    *[lambda value: value.contiguous()] * 6,
    lambda value: value.half(),
    lambda value: value.flatten().contiguous(),
    lambda value: value[:1].contiguous(),
    lambda value: value.sum(),
    lambda value: value * float("nan"),
    lambda value: value.long(),
)

KINDS: dict[str, Callable[[st.DrawFn, Bench, Path], Command]] = {
    "pipelines": pipelines,
    "prompts": prompts,
    "words": words,
    "options": options,
    "runs": runs,
    "edits": edits,
}


def case(kind: str, bench: Bench, draw: st.DrawFn) -> Outcome:
    """What a command with one input of a kind ends with."""
    with place() as folder:
        return outcome(KINDS[kind](draw, bench, folder))
