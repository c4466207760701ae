"""Bad input: each kind gets one clear line and exit code 2, and leaves nothing half-written and nothing lost."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from erase import registry
from tests.recipes import command, contents, refused, tiny_recipe, write_recipe
from tests.tiny import tiny_stable_diffusion

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path) -> dict[str, Any]:
    return tiny_recipe(tmp_path, tiny_model)


def run_refused(capsys: Capture, place: Path, recipe: object, *, code: int = 2) -> str:
    """The line with which `erase run` refuses a pipeline, having written nothing."""
    file = write_recipe(place.parent, recipe)
    line = refused(capsys, "run", file, code=code)
    assert contents(place) == {}
    return line


@pytest.mark.parametrize(
    ("change", "kind", "nearest"),
    [
        ({"edit": {"method": "ucee"}}, "methods", "uce"),
        ({"generate": {"prompts": "emoji-sqare", "seeds": [0]}}, "prompts", "emoji-square"),
        ({"export": ["foldr"]}, "exports", "folder"),
    ],
)
def test_an_unknown_name_in_a_pipeline(
    capsys: Capture, place: Path, recipe: dict[str, Any], change: dict[str, Any], kind: str, nearest: str
) -> None:
    line = run_refused(capsys, place, recipe | change)
    assert f'did you mean "{nearest}"?' in line
    assert all(name in line for name in registry.known(kind))


def test_an_unknown_model(capsys: Capture, place: Path, recipe: dict[str, Any]) -> None:
    line = run_refused(capsys, place, recipe | {"model": "emojy"})
    assert 'model "emojy" does not exist, and no such path exists' in line
    assert all(name in line for name in registry.known("models"))


def test_an_unknown_pipeline(capsys: Capture, place: Path) -> None:
    line = refused(capsys, "run", "erase-stile")
    assert 'did you mean "erase-style"?' in line
    assert all(name in line for name in registry.known("pipelines"))


def test_a_file_that_does_not_exist(capsys: Capture, place: Path) -> None:
    assert "no such path exists" in refused(capsys, "run", "nowhere/mine.yaml")
    assert "does not exist" in refused(capsys, "export", "--model", "emoji", "--edit", "no.safetensors")
    assert "is not a run" in refused(capsys, "score", "nowhere")


def test_an_unknown_key(capsys: Capture, place: Path, recipe: dict[str, Any]) -> None:
    line = run_refused(capsys, place, recipe | {"modle": "emoji"})
    assert 'unknown key "modle" in the file; did you mean "model"?' in line
    assert (
        "Known: name, description, model, loras, task, edit, generate, verify, attack, score, grid, gate, export"
        in line
    )


@pytest.mark.parametrize("text", ["- a\n- list\n", "name: [unclosed\n", "just words", "", "a: b: c"])
def test_a_yaml_that_is_not_one(capsys: Capture, place: Path, text: str) -> None:
    line = run_refused(capsys, place, text)
    assert "mine.yaml" in line
    assert "not valid YAML" in line or "expected keys and values" in line


def test_a_binary_file_in_place_of_a_yaml(capsys: Capture, place: Path) -> None:
    (place.parent / "mine.yaml").write_bytes(b"\x80\x04\x95 a pickle")
    assert "cannot be read as UTF-8 text" in refused(capsys, "run", place.parent / "mine.yaml")


def test_an_unknown_option_of_a_method(capsys: Capture, place: Path, recipe: dict[str, Any]) -> None:
    line = run_refused(capsys, place, recipe | {"edit": {"method": "uce", "options": {"lam": 1.0}}})
    assert 'did you mean "lamb"?' in line


@pytest.mark.parametrize("value", ["much", -1.0, [1]])
def test_an_option_of_the_wrong_type_or_range(
    capsys: Capture, place: Path, recipe: dict[str, Any], value: object
) -> None:
    assert "lamb" in run_refused(capsys, place, recipe | {"edit": {"method": "uce", "options": {"lamb": value}}})


def test_a_sampler_out_of_range(capsys: Capture, place: Path, recipe: dict[str, Any]) -> None:
    recipe["generate"]["steps"] = 0
    assert "steps is 0" in run_refused(capsys, place, recipe)


def test_a_model_folder_without_a_unet(capsys: Capture, place: Path, recipe: dict[str, Any], tiny_copy: Path) -> None:
    shutil.rmtree(tiny_copy / "unet")
    assert "has no unet folder" in run_refused(capsys, place, recipe | {"model": str(tiny_copy)})


def test_a_folder_that_is_no_model(capsys: Capture, place: Path, recipe: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "model_index.json" in run_refused(capsys, place, recipe | {"model": str(tmp_path / "empty")})


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
@pytest.mark.parametrize("damage", ["truncated", "corrupt", "empty"])
def test_a_damaged_safetensors(
    capsys: Capture, place: Path, recipe: dict[str, Any], tiny_copy: Path, part: str, damage: str
) -> None:
    (file,) = (tiny_copy / part).glob("*.safetensors")
    data = file.read_bytes()
    file.write_bytes({"truncated": data[:-100], "corrupt": b"\xff" * 64 + data[64:], "empty": b""}[damage])
    line = run_refused(capsys, place, recipe | {"model": str(tiny_copy)})
    assert str(file) in line


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_weights_that_are_not_a_number(
    capsys: Capture, place: Path, recipe: dict[str, Any], tiny_copy: Path, part: str
) -> None:
    (file,) = (tiny_copy / part).glob("*.safetensors")
    tensors = load_file(file)
    key = sorted(key for key in tensors if key.endswith(("attn2.to_k.weight", "q_proj.weight")))[0]
    save_file(tensors | {key: torch.full_like(tensors[key], float("nan"))}, file, metadata={"format": "pt"})
    assert "NaN" in run_refused(capsys, place, recipe | {"model": str(tiny_copy)})


def test_a_pickle_in_place_of_a_safetensors(
    capsys: Capture, place: Path, recipe: dict[str, Any], tiny_copy: Path
) -> None:
    (file,) = (tiny_copy / "unet").glob("*.safetensors")
    file.unlink()
    (tiny_copy / "unet/diffusion_pytorch_model.bin").write_bytes(pickle.dumps({"weight": 1}))
    line = run_refused(capsys, place, recipe | {"model": str(tiny_copy)})
    assert "pickle" in line
    assert "can run code" in line


def test_a_pickle_in_place_of_an_edit(capsys: Capture, place: Path, tiny_model: Path) -> None:
    file = place.parent / "edit.pt"
    file.write_bytes(pickle.dumps({"weight": 1}))
    assert "pickle" in refused(capsys, "export", "--model", tiny_model, "--edit", file, "--out", "model")
    assert contents(place) == {}


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"targets": []}, "list of targets is empty"),
        ({"targets": ["noto"], "keeps": ["blob", "Noto"]}, "must stay and names the target"),
        ({"targets": [{"name": "noto", "synonyms": ["blob"]}], "keeps": ["blob"]}, "must stay and names the target"),
        ({"targets": [{"name": "noto", "anchor": "noto"}]}, "has itself in its anchor"),
        ({"targets": ["noto", "noto"]}, "is listed twice"),
    ],
)
def test_a_task_that_contradicts_itself(
    capsys: Capture, place: Path, recipe: dict[str, Any], task: dict[str, Any], said: str
) -> None:
    assert said in run_refused(capsys, place, recipe | {"task": {"kind": "style"} | task})


def test_a_task_from_options_that_contradicts_itself(capsys: Capture, place: Path, tiny_model: Path) -> None:
    flags = ["edit", "--model", tiny_model, "--out", "noto.safetensors"]
    assert "list of targets is empty" in refused(capsys, *flags)
    assert "itself in its anchor" in refused(capsys, *flags, "-t", "noto", "-a", "noto")
    assert "must stay and names the target" in refused(capsys, *flags, "-t", "noto", "-k", "noto")
    assert "2 anchors for 1 targets" in refused(capsys, *flags, "-t", "noto", "-a", "blob", "-a", "cat")
    assert '--kind is "stile"' in refused(capsys, *flags, "-t", "noto", "--kind", "stile")
    assert contents(place) == {}


def test_a_target_longer_than_the_encoder_takes(
    capsys: Capture, place: Path, recipe: dict[str, Any], tmp_path: Path
) -> None:
    name = "cat " * 20 + "rose"
    recipe["task"]["targets"][0] |= {"name": name}
    (tmp_path / "asked.csv").write_text(f"prompt,seed\n{name},0\n", encoding="utf-8")
    recipe["generate"]["prompts"] = str(tmp_path / "asked.csv")
    line = run_refused(capsys, place, recipe)
    assert "takes at most 14" in line


def test_an_edit_for_another_base(capsys: Capture, place: Path, tiny_model: Path, tmp_path: Path) -> None:
    other = tiny_stable_diffusion(tmp_path / "other", seed=1)
    assert command(capsys, "edit", "-m", other, "-t", "noto", "-a", "blob", "-o", "noto.safetensors").code == 0
    before = contents(place)
    assert set(before) == {"noto.safetensors"}
    edit = ["--model", tiny_model, "--edit", "noto.safetensors", "--out", "result"]
    assert "was made for the base model" in refused(capsys, "export", *edit)
    assert "was made for the base model" in refused(capsys, "generate", *edit, "--prompt", "a cat")
    assert contents(place) == before


def test_a_file_that_is_no_edit(capsys: Capture, place: Path, tiny_model: Path) -> None:
    save_file({"a": torch.zeros(1)}, place / "noto.safetensors")
    assert "expected an edit" in refused(capsys, "export", "-m", tiny_model, "-e", "noto.safetensors", "-o", "model")
    (place / "noto.safetensors").write_bytes((place / "noto.safetensors").read_bytes()[:10])
    assert "corrupt or truncated" in refused(capsys, "export", "-m", tiny_model, "-e", "noto.safetensors", "-o", "m")


def test_an_output_that_exists_is_not_lost(capsys: Capture, place: Path, tiny_model: Path) -> None:
    (place / "noto.safetensors").write_text("precious", encoding="utf-8")
    flags = ["-m", tiny_model, "-t", "noto", "-a", "blob", "-o", "noto.safetensors"]
    assert "exists already" in refused(capsys, "edit", *flags)
    assert contents(place) == {"noto.safetensors": b"precious"}


@pytest.mark.parametrize("where", ["recipe.yaml", "edit.safetensors", ".png", "plan.jsonl", "scores.json", "model"])
def test_a_full_disk_and_going_on_after_it(
    capsys: Capture, place: Path, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    file = write_recipe(place.parent, recipe)
    replace = os.replace

    def full(source: str | Path, target: str | Path) -> None:
        if str(target).endswith(where):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert "no space left" in refused(capsys, "run", file)
    left = contents(place)
    assert [name for name in left if "partial" in name or ".tmp-" in name] == []
    monkeypatch.setattr(os, "replace", replace)
    assert command(capsys, "run", file).code == 0
    assert {name: data for name, data in contents(place).items() if name in left} == left


def test_a_failed_gate_is_told_after_everything_was_written(
    capsys: Capture, place: Path, recipe: dict[str, Any]
) -> None:
    file = write_recipe(place.parent, recipe | {"gate": {"ira": 1.0}})
    line = refused(capsys, "run", file, code=3)
    assert "nothing changed: 2 of 2 images of the target are as before the edit" in line
    assert {"result.json", "scores.json", "grid.png", "edit.safetensors", "model/manifest.json"} <= set(
        contents(place / "runs/mine")
    )
    assert refused(capsys, "run", file, code=3) == line


def test_a_run_of_another_recipe_in_the_folder(capsys: Capture, place: Path, recipe: dict[str, Any]) -> None:
    file = write_recipe(place.parent, recipe)
    assert command(capsys, "edit", file).code == 0
    before = contents(place)
    recipe["edit"]["strength"] = 0.5
    line = refused(capsys, "run", write_recipe(place.parent, recipe))
    assert "edit.strength is 1.0 there and 0.5 here" in line
    assert contents(place) == before


def test_a_command_line_that_is_none(capsys: Capture, place: Path) -> None:
    assert "Did you mean 'run'?" in refused(capsys, "rnu")
    assert "No such option" in refused(capsys, "run", "--outt", "x")
    assert "key=value" in refused(capsys, "edit", "-t", "noto", "--option", "lamb")
    assert "axis=word" in refused(capsys, "generate", "--prompts", "emoji-square", "--where", "noto")
    assert "nothing to generate" in refused(capsys, "generate")
