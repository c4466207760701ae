"""An edit's file is checked as it is read: whatever is wrong with it is one line, whichever command reads it."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from erase.edit import Edit, Gate, LowRank
from erase.edit_file import METADATA_KEY, read_contents
from erase.errors import BadEdit
from erase.models import Model
from tests.recipes import command, refused
from tests.tiny_edits import tiny_edit

Capture = pytest.CaptureFixture[str]
Parts = tuple[dict[str, Any], dict[str, Tensor]]
TASK = {
    "targets": [{"name": "Ann Author", "kind": "style", "anchor": "blob", "synonyms": ["Ann"], "prompts": ["by {}"]}],
    "keeps": ["Émile Zola", {"name": "twemoji", "kind": "style"}],
}
FORMS = ("patch", "lora", "folder")
HOSTILE = (None, 0, -1, 2**64, 1.5, True, "", " ", "../../x", "\ud800", "{style}", [], {}, [0], ["a"], [[]], {"a": 1})


def whole_edit(model: Model) -> Edit:
    """An edit that has something of everything: a map, deltas, low-rank changes behind a gate and without, parts."""
    site = model.sites()[0]
    factors = torch.ones(site.rows, 2), torch.ones(2, site.columns)  # the two share their memory
    low_rank = (LowRank(*factors, site.name), LowRank(*factors, site.name, Gate("spm", ("Ann Author",))))
    edit = tiny_edit(model, deltas=("unet.conv_out.bias",))
    edit = replace(edit, info=replace(edit.info, task=TASK), low_rank=low_rank)
    return replace(edit, info=replace((edit + edit).info, method="uce", task=TASK, options={"lamb": 0.5}))


def parts_of(file: Path) -> Parts:
    with safe_open(file, framework="pt") as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        return json.loads(opened.metadata()[METADATA_KEY]), tensors


def written(parts: Parts, file: Path) -> Path:
    save_file(parts[1], file, metadata={METADATA_KEY: json.dumps(parts[0])})
    return file


@pytest.fixture
def parts(model: Model, tmp_path: Path) -> Parts:
    whole_edit(model).save(tmp_path / "whole.safetensors")
    return parts_of(tmp_path / "whole.safetensors")


def places(value: Any, found: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of nested lists and mappings lies."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*found, key)
        yield from places(value[key], (*found, key))


def mutated(parts: Parts, seed: int) -> Parts:
    """The edit with one thing of its metadata or its tensors replaced, added or taken away."""
    chance, (said, tensors) = random.Random(seed), (copy.deepcopy(parts[0]), dict(parts[1]))
    if chance.random() < 0.6:
        *way, last = chance.choice(list(places(said)))
        parent = said
        for key in way:
            parent = parent[key]
        match chance.choice(("replace", "replace", "remove", "add")):
            case "replace":
                parent[last] = chance.choice(HOSTILE)
            case "remove":
                del parent[last]
            case "add":
                said[chance.choice(("beyound", "gates", "guidance", "record", "parts"))] = chance.choice(HOSTILE)
        return said, tensors
    name = chance.choice(sorted(tensors))
    value = tensors[name]
    changes: list[Any] = [
        value.to(torch.float8_e4m3fn),
        value.to(torch.int64),
        torch.tensor(1.0),
        torch.zeros(0, 0),
        value[None],
        value[..., :1].contiguous(),
        torch.full_like(value, float("nan")),
        torch.full_like(value, float("inf")),
        None,
    ]
    changed = chance.choice(changes)
    if changed is None:
        tensors[chance.choice(("something", f"{name}.more", "low_rank.x.up.a"))] = tensors.pop(name)
    else:
        tensors[name] = changed
    return said, tensors


def readers(file: Path, good: Path, model: Model, *, seed: int) -> Iterator[tuple[Any, ...]]:
    """Command lines that read an edit's file."""
    yield "inspect", file
    yield "combine", file, good, "-o", file.with_suffix(".sum.safetensors")
    yield "diff", file, good, "--no-rank"
    for form in FORMS:
        yield "export", "-m", model.path, "-e", file, "--to", form, "-o", file.with_suffix(f".{form}")
    if seed % 10 == 0:  # images take long
        yield "generate", "-m", model.path, "-e", file, "-p", "a cat", "--steps", 1, "-o", file.with_suffix(".images")


def check_each_command(capsys: Capture, model: Model, parts: Parts, folder: Path, *, seeds: range) -> None:
    """Every command that reads a mutated edit ends with 0, 2 or 3, and says in one line what is wrong."""
    folder.mkdir(exist_ok=True)
    good = written(parts, folder / "good.safetensors")
    codes = []
    for seed in seeds:
        file = written(mutated(parts, seed), folder / f"{seed}.safetensors")
        for arguments in readers(file, good, model, seed=seed):
            said = command(capsys, *arguments)
            assert said.code in (0, 2, 3), (seed, arguments)
            lines = [line for line in said.errors.splitlines() if line.startswith("error: ")]
            assert len(lines) == int(said.code != 0), (seed, arguments, said.errors)
            codes.append(said.code)
        if (made := file.with_suffix(".sum.safetensors")).is_file():  # what can be added can be read again
            Edit.load(made)
        for path in folder.glob(f"{seed}.*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert {0, 2} <= set(codes)


def test_no_damage_of_an_edit_is_a_traceback(capsys: Capture, model: Model, parts: Parts, tmp_path: Path) -> None:
    check_each_command(capsys, model, parts, tmp_path / "mutated", seeds=range(50))


@pytest.mark.slow
def test_no_damage_of_a_thousand_is_a_traceback(capsys: Capture, model: Model, parts: Parts, tmp_path: Path) -> None:
    check_each_command(capsys, model, parts, tmp_path / "mutated", seeds=range(50, 1050))


def test_a_whole_edit_is_read_as_it_was_written(model: Model, tmp_path: Path) -> None:
    edit = whole_edit(model)
    edit.save(tmp_path / "edit.safetensors")
    again = Edit.load(tmp_path / "edit.safetensors")
    assert again.content == edit.content
    assert again.info == replace(edit.info, parts=tuple(json.loads(json.dumps(edit.info.parts))))
    assert again.gates.keys() == {Gate("spm", ("Ann Author",))}
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "edit.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sites": [0]}, "sites"),
        ({"sites": [["a"], ["b"]]}, "it lacks the tensor text_map.1.up"),
        ({"sites": []}, "text_map.0.down, which is no tensor of an edit"),
        ({"options": []}, "options"),
        ({"task": [1.0]}, "task"),
        ({"task": {"targets": ["Ann"]}}, "task.targets"),
        ({"task": {"targets": [], "keeps": [1]}}, "task.keeps"),
        ({"parts": {}}, "parts"),
        ({"parts": [{"method": "uce"}]}, "parts"),
        ({"guidance": ["0"]}, "guidance"),
        ({"beyond": " "}, "beyond"),
        ({"strength": "1"}, "strength"),
        ({"strength": float("nan")}, "strength"),
        ({"method": "\ud800"}, "not JSON"),
        ({"gates": [{"method": "spm", "words": ["Ann"], "numbers": [7]}]}, "a gate for low_rank.7"),
        ({"beyound": {}}, 'did you mean "beyond"'),
    ],
)
def test_a_description_of_another_type_is_named(
    parts: Parts, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    with pytest.raises(BadEdit, match="is damaged") as caught:
        Edit.load(written((parts[0] | change, parts[1]), tmp_path / "edit.safetensors"))
    assert told in str(caught.value)


def test_a_description_that_is_no_mapping_is_told(parts: Parts, tmp_path: Path) -> None:
    for value in (1.5, [], "a", None):
        save_file(parts[1], tmp_path / "edit.safetensors", metadata={METADATA_KEY: json.dumps(value)})
        with pytest.raises(BadEdit, match="not keys and values"):
            read_contents(tmp_path / "edit.safetensors")
    save_file(parts[1], tmp_path / "edit.safetensors", metadata={METADATA_KEY: "[" * 100_000})
    with pytest.raises(BadEdit, match="not JSON"):
        read_contents(tmp_path / "edit.safetensors")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (torch.tensor(1.0), r"expected \[rows, rank\] and \[rank, rows\]"),
        (torch.zeros(0, 0), r"expected \[rows, rank\] and \[rank, rows\]"),
        (torch.ones(32, 3), r"is of \[32, 3\] and \[2, 32\]"),
        (torch.ones(1, 32, 2), r"\[rows, rank\]"),
        (torch.ones(32, 2).to(torch.float8_e4m3fn), "float8_e4m3fn; expected float32"),
        (torch.ones(32, 2, dtype=torch.int64), "int64; expected float32"),
        (torch.full((32, 2), float("inf")), "NaN or infinite"),
    ],
)
def test_a_tensor_of_another_form_is_named(
    capsys: Capture, model: Model, parts: Parts, tmp_path: Path, value: Tensor, told: str
) -> None:
    file = written((parts[0], parts[1] | {"text_map.0.up": value}), tmp_path / "edit.safetensors")
    with pytest.raises(BadEdit, match=told):
        Edit.load(file)
    assert "text_map.0" in refused(capsys, "export", "-m", model.path, "-e", file, "-o", tmp_path / "out")


def test_a_weight_that_the_model_lacks_is_named_by_every_export(
    capsys: Capture, model: Model, parts: Parts, tmp_path: Path
) -> None:
    sites = [["true", *parts[0]["sites"][0]]]
    file = written((parts[0] | {"sites": sites}, parts[1]), tmp_path / "edit.safetensors")
    for to in ("folder", "lora"):
        line = refused(capsys, "export", "-m", model.path, "-e", file, "--to", to, "-o", tmp_path / "out")
        assert "changes true, which this model does not have" in line
