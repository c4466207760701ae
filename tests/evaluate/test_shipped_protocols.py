"""Every protocol that is shipped runs to a verdict, on small files with the odd rows of the real ones."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import save_file

from erase import registry
from erase.cli.verify import show
from erase.config import declared
from erase.config.declared import read_manifest
from erase.edit import Edit
from erase.evaluate.detect import Given
from erase.evaluate.detections import Finding
from erase.evaluate.protocol import load_protocol
from erase.evaluate.result import check_result
from erase.evaluate.verify import Edited, Result, verify
from erase.models import Model
from erase.report.verified import write_pages
from erase.task import Target, Task
from tests.evaluate.metrics.test_lpips import lpips_weights, random_alexnet
from tests.tiny_edits import tiny_edit

# A prompt with what its row's seed says: quotes, commas and line breaks inside, nothing at all, more than is read.
LONG = "a very old lighthouse with a red roof, painted by hand on wet paper, " * 4
ODD = [
    ("a cat in noto style", "12"),
    ('a "quoted" dog,\nof two lines', "4261564198"),
    ("", "7.0"),
    ("a child with a dog", "3"),
    (LONG, "0"),
    ("   ", "99"),
    ("a r\u00f6se, blob style \U0001f339", "1"),
    ("a cat in noto style", "13"),
]
LABELS = {"style": ("Vincent van Gogh", "Claude Monet"), "object": ("cassette player", "church")}
TASKS = {
    "identity": Task((Target("Ada Lovelace", "identity"),), keeps=("Alan Turing",)),
    "object": Task((Target("cat", "object", "dog", ("kitty",)),), keeps=("car",)),
    "style": Task((Target("noto", "style", "blob", ("google",)),), keeps=("firefox",)),
    "unsafe": Task((Target("nudity", "unsafe"),), keeps=("car",)),
    "church": Task((Target("church", "object"),), keeps=("cassette player",)),
    "artist": Task((Target("Vincent van Gogh", "style"),), keeps=("Claude Monet",)),
}
KINDS = {
    "any-identity": ("identity",),
    "any-object": ("object",),
    "any-style": ("style",),
    "any-unsafe": ("unsafe",),
    "canvas/sauron-agg": ("style", "object"),
    "canvas/with-seed-images": ("style", "object"),
    "celebrity": ("identity",),
    "coco/vs-base-1k": ("object",),
    "composition": ("style", "object"),
    "dual-prompt": ("object",),
    "erasebench": ("style", "object"),
    "emoji": ("style", "object"),
    "gate": ("style", "object"),
    "lpips-e-u": ("artist",),
    "multilingual": ("object",),
    "neighbours": ("object",),
    "object": ("church",),
    "synonyms": ("style", "object"),
}
PROTOCOLS = registry.known("protocols")


def write_declared(folder: Path, name: str) -> Path:
    """A small file of a declared set's columns, and some that it does not name, with the odd rows."""
    form = read_manifest(name)
    path = folder / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["Unnamed: 0", *form.columns, "hard_negative"])
        for number, (prompt, seed) in enumerate(ODD):
            cells = dict.fromkeys(form.columns, "7.5") | {form.prompt: prompt, form.seed: seed}
            cells |= {column: LABELS[domain][number % 2] for domain, column in form.labels.items()}
            writer.writerow([number, *(cells[column] for column in form.columns), ""])
    return path


@pytest.fixture
def small_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifests that take small files for the declared ones."""
    monkeypatch.setattr(
        declared, "read_manifest", lambda name: read_manifest(name).model_copy(update={"rows": len(ODD), "sha256": ""})
    )


@pytest.fixture(scope="module")
def edit(model: Model) -> Edit:
    return tiny_edit(model)


class Stub:
    """A detector that finds every label it may have to tell, and those of its policy, in every other picture."""

    def __init__(self, *labels: str) -> None:
        self.labels, self.seen = labels, 0

    def __call__(self, pictures: Sequence[Image.Image]) -> list[list[Finding]]:
        self.seen += len(pictures)
        return [[Finding(label, 0.9) for label in self.labels if sum(one.tobytes()) % 2] for one in pictures]


def run(name: str, task: Task, model: Model, edit: Edit, *, folder: Path) -> Result:
    protocol = load_protocol(name)
    sampler = protocol.form.sampler.model_copy(update={"steps": 1, "batch": 32})
    parts = [part.model_copy(update={"limit": len(ODD)}) for part in protocol.form.prompts]
    protocol = replace(protocol, form=protocol.form.model_copy(update={"sampler": sampler, "prompts": tuple(parts)}))
    labels = [*task.names, *task.kept, *(one for form in protocol.form.detector for one in form.labels)]
    stubs = {form.name: Stub(*labels) for form in (*protocol.form.detector, *protocol.form.keeper)}
    paths = {one: write_declared(folder, one) for one in protocol.needs}
    assert model.judge_folder is not None
    paths["clip"] = model.judge_folder / "clip"
    if "lpips" in protocol.form.scorers:
        paths["lpips"] = folder / "lpips.safetensors"
        save_file(lpips_weights(random_alexnet()), paths["lpips"])
    given = Given(paths, model.judge_folder, stubs)
    result = verify(model, Edited(model, edit, task), protocol, task=task, given=given, folder=folder / "out")
    assert all(stub.seen for stub in stubs.values())
    return result


@pytest.mark.usefixtures("small_sets")
@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in PROTOCOLS for kind in KINDS.get(name, ("unsafe",))]
)
def test_a_shipped_protocol_runs_to_a_verdict_on_every_row_that_it_asks(
    name: str, kind: str, model: Model, edit: Edit, tmp_path: Path
) -> None:
    result = run(name, TASKS[kind], model, edit, folder=tmp_path)
    told = json.loads((tmp_path / "out/result.json").read_text(encoding="utf-8"))
    assert result.verdict.unscored == ()
    assert {case.role for case in result.cases} == {"erased", "kept"}
    assert told["exit_code"] == result.verdict.exit_code
    drawn = {(tmp_path / "out" / image) for image in told["images"]}
    assert drawn == set((tmp_path / "out/images").iterdir())
    assert all(len(sha) == 64 for sha in told["images"].values())
    assert {one["source"] for one in told["asked"]} == {case.source for case in result.cases}
    write_pages(result)
    report = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    assert report["verdict"]["state"] == ("failed" if result.verdict.reasons else "passed")
    (ua,) = [one for one in report["figures"] if one["name"] == "ua" and one["side"] == "after"]
    erased = {(one.prompt, one.seed): one for one in result.outcomes if one.role == "erased"}
    assert ua["n"] == len(erased)
    assert check_result(tmp_path / "out/result.json").reasons == result.verdict.reasons


def test_there_are_protocols_of_every_kind_and_all_are_run() -> None:
    assert len(PROTOCOLS) >= 16
    assert set(KINDS) < set(PROTOCOLS)
    assert {name for name in PROTOCOLS if name not in KINDS} == {name for name in PROTOCOLS if name.startswith("i2p/")}


@pytest.mark.usefixtures("small_sets")
def test_empty_cut_and_left_out_rows_are_counted_in_the_verdict_and_told(
    model: Model, edit: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    result = run("i2p/open-nsfw-0.5", TASKS["unsafe"], model, edit, folder=tmp_path)
    asked = {
        one["source"]: one for one in json.loads((tmp_path / "out/result.json").read_text(encoding="utf-8"))["asked"]
    }
    cut = sum(model.is_cut(prompt) for prompt in {prompt for prompt, _ in ODD} - {"a child with a dog"})
    assert 0 < cut < len(ODD) - 2
    odd = {"empty": 2, "cut": cut, "left_out": 1, "unasked": 0, "erased": 0}
    assert asked["i2p"] == {"source": "i2p", "prompts": 6} | odd
    # a caption that says nothing cannot be seen in an image; the set is not sensitive
    assert asked["coco-30k"]["unasked"] == 2
    assert asked["coco-30k"]["left_out"] == 0
    blank = [one for one in result.outcomes if not one.prompt.strip()]
    assert [(one.prompt, one.seed, one.role) for one in blank] == [("", 7, "erased"), ("   ", 99, "erased")]
    assert all(one.is_whole for one in blank)
    console = Console(width=200)
    show(console, result)
    said = capsys.readouterr().out
    assert f"i2p, 6 prompts drawn: 1 rows that name minors were left out; 2 empty; {cut} longer than" in said
    assert "coco-30k, 5 prompts drawn: 2 empty captions were not asked for" in said


@pytest.mark.parametrize("name", [one for one in registry.known("declared") if read_manifest(one).form == "csv"])
def test_a_declared_set_takes_the_odd_rows_of_the_real_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = read_manifest(name)
    path = write_declared(tmp_path, name)
    monkeypatch.setattr(
        declared, "read_manifest", lambda name: form.model_copy(update={"rows": len(ODD), "sha256": ""})
    )
    prompts: Any = declared.load_declared(name, path)
    assert prompts.left_out == int(form.sensitive)
    kept = [row for row in ODD if not (form.sensitive and "child" in row[0])]
    assert [(line.prompt, line.seed) for line in prompts.lines] == [(text, int(float(seed))) for text, seed in kept]
