"""Pipeline files: what they may say, how they are resolved, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from erase import registry
from erase.errors import BadPipeline, BadTask, EraseError, RunConflict, UnknownName
from erase.run.pipeline import DEFAULT, Pipeline, load_pipeline, resolve
from erase.task import Keep, Target

PROMPTS = """\
version: '1'
licence: CC0-1.0
source: a test
templates: ['a {object} in {style} style']
axes: {style: [noto, blob, twemoji], object: [cat, dog]}
"""


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path) -> dict[str, Any]:
    """A pipeline over the tiny model, as the mapping that its file holds."""
    (tmp_path / "square.yaml").write_text(PROMPTS, encoding="utf-8")
    return {
        "name": "mine",
        "model": str(tiny_model),
        "task": {"kind": "style", "targets": [{"name": "noto", "anchor": "blob"}], "keeps": ["twemoji"]},
        "edit": {"method": "uce"},
        "generate": {"prompts": str(tmp_path / "square.yaml"), "seeds": [0, 1]},
    }


def load(folder: Path, recipe: object) -> Pipeline:
    path = folder / "mine.yaml"
    path.write_text(recipe if isinstance(recipe, str) else yaml.safe_dump(recipe), encoding="utf-8")
    return load_pipeline(str(path))


def refusal(folder: Path, recipe: object) -> str:
    """The line that a wrong pipeline is answered with."""
    with pytest.raises(EraseError) as caught:
        resolve(load(folder, recipe))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_carried_pipeline_asks_for_what_goes_what_stays_and_what_is_unrelated() -> None:
    assert DEFAULT in registry.known("pipelines")
    for name in registry.known("pipelines"):
        pipeline = load_pipeline(name)
        task = pipeline.make_task()
        labels = [row.labels.get(task.domain) for row in pipeline.make_rows()]
        assert set(task.names) <= set(labels)
        assert None in labels
        assert set(labels) - set(task.names) - {None}


def test_the_default_run_takes_two_minutes_at_eight_images_a_second() -> None:
    assert 160 <= 2 * len(load_pipeline().make_rows()) <= 240


def test_resolving_twice_changes_nothing(tmp_path: Path, recipe: dict[str, Any]) -> None:
    once = resolve(load(tmp_path, recipe))
    assert once.hash
    assert resolve(once) == once


def test_a_resolved_recipe_is_a_pipeline_again(tmp_path: Path, recipe: dict[str, Any]) -> None:
    once = resolve(load(tmp_path, recipe))
    assert resolve(load(tmp_path, once.model_dump(mode="json"))) == once


def test_a_recipe_that_was_changed_by_hand_is_refused(tmp_path: Path, recipe: dict[str, Any]) -> None:
    changed = resolve(load(tmp_path, recipe)).model_dump(mode="json") | {"score": []}
    with pytest.raises(BadPipeline, match="was changed after its hash"):
        load(tmp_path, changed)


@pytest.mark.parametrize(
    ("key", "value", "same"),
    [
        ("name", "other", True),
        ("description", "words about it", True),
        ("score", ["clip"], False),
        ("edit", {"method": "uce", "strength": 0.5}, False),
    ],
)
def test_the_hash_tells_what_matters(
    tmp_path: Path, recipe: dict[str, Any], key: str, value: object, same: bool
) -> None:
    first, second = resolve(load(tmp_path, recipe)), resolve(load(tmp_path, recipe | {key: value}))
    assert (first.hash == second.hash) is same


def test_the_batch_size_does_not_change_the_hash(tmp_path: Path, recipe: dict[str, Any]) -> None:
    first = resolve(load(tmp_path, recipe))
    recipe["generate"]["batch"] = 7
    assert resolve(load(tmp_path, recipe)).hash == first.hash


def test_a_prompt_set_that_has_changed_since_is_refused(tmp_path: Path, recipe: dict[str, Any]) -> None:
    resolved = resolve(load(tmp_path, recipe))
    (tmp_path / "square.yaml").write_text(PROMPTS.replace("cat", "car"), encoding="utf-8")
    with pytest.raises(RunConflict, match="has changed since"):
        resolved.make_rows()


def test_keeps_of_axes_are_all_words_but_the_targets_own(tmp_path: Path, recipe: dict[str, Any]) -> None:
    recipe["task"] = {
        "kind": "style",
        "targets": [{"name": "noto", "anchor": "blob", "synonyms": ["dog"]}],
        "keeps": {"words": ["a tree"], "prompts": str(tmp_path / "square.yaml"), "axis": ["style", "object"]},
    }
    task = load(tmp_path, recipe).make_task()
    assert task.keeps == (Keep("blob", "style"), Keep("twemoji", "style"), Keep("cat", "object"))
    assert task.prompts == ("a tree",)


def test_keeps_of_a_set_are_its_prompts_that_name_no_target(tmp_path: Path, recipe: dict[str, Any]) -> None:
    recipe["task"] = {
        "kind": "style",
        "targets": [{"name": "noto", "anchor": "blob"}],
        "keeps": {"prompts": str(tmp_path / "square.yaml")},
    }
    prompts = load(tmp_path, recipe).make_task().prompts
    assert prompts == tuple(f"a {thing} in {style} style" for style in ("blob", "twemoji") for thing in ("cat", "dog"))


def test_prompts_of_the_task_serve_targets_without_their_own(tmp_path: Path, recipe: dict[str, Any]) -> None:
    recipe["task"] |= {"targets": ["noto", {"name": "twemoji", "prompts": ["a {} cat"]}], "prompts": ["{} style"]}
    recipe["task"]["keeps"] = ["blob"]
    task = load(tmp_path, recipe).make_task()
    assert [target.prompts for target in task.targets] == [("{} style",), ("a {} cat",)]
    assert resolve(load(tmp_path, recipe)).make_task() == task


def test_a_pipeline_that_names_no_method_takes_our_own(tmp_path: Path, recipe: dict[str, Any]) -> None:
    del recipe["edit"]
    assert load(tmp_path, recipe).edit.method == "redirect"


def test_a_bare_word_is_a_target_and_a_selection(tmp_path: Path, recipe: dict[str, Any]) -> None:
    recipe["task"]["targets"] = ["noto"]
    recipe["generate"]["prompts"] = [str(tmp_path / "square.yaml")]
    pipeline = load(tmp_path, recipe)
    assert pipeline.make_task().names == ("noto",)
    assert len(pipeline.make_rows()) == 12


def test_selections_have_their_own_seeds_and_share_no_row(tmp_path: Path, recipe: dict[str, Any]) -> None:
    square = str(tmp_path / "square.yaml")
    recipe["generate"] = {
        "prompts": [{"name": square, "where": {"style": ["noto"]}, "seeds": [5, 6]}, {"name": square}],
        "seeds": [6],
    }
    rows = load(tmp_path, recipe).make_rows()
    assert [(row.prompt, row.seed) for row in rows][:4] == [
        ("a cat in noto style", 5),
        ("a cat in noto style", 6),
        ("a dog in noto style", 5),
        ("a dog in noto style", 6),
    ]
    assert len(rows) == 4 + 4


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("modle",), "emoji", 'unknown key "modle" in the file; did you mean "model"? Known: name, description'),
        (("task", "target"), [], 'unknown key "target" in task; did you mean "targets"? Known: kind, targets'),
        (("task", "targets"), [{"name": "noto", "ancor": "x"}], 'in task.targets[0]; did you mean "anchor"?'),
        (("task", "targets"), "noto", "task.targets is"),
        (("task", "kind"), "stile", "task.kind is \"stile\"; expected 'style', 'object'"),
        (("task", "keeps"), {"axis": "style"}, '"axis" needs a set'),
        (("generate", "steps"), "many", 'generate.steps is "many"; expected a valid integer'),
        (("generate", "seeds"), [-1], "generate.seeds[0] is -1"),
        (("generate", "prompts"), [{"name": "emoji-square", "were": {}}], 'did you mean "where"?'),
        (("edit", "strength"), float("nan"), "edit.strength is nan; expected a finite number"),
        (("gate",), {"ua": 1.5}, "gate.ua is 1.5; expected less than or equal to 1"),
        (("name",), "../outside", "name is"),
        (("grid",), {"columns": 0}, "grid.columns is 0"),
    ],
)
def test_what_is_wrong_is_said_by_its_key(
    tmp_path: Path, recipe: dict[str, Any], path: tuple[str, ...], value: object, said: str
) -> None:
    *parents, last = path
    inner = recipe
    for part in parents:
        inner = inner[part]
    inner[last] = value
    assert said in refusal(tmp_path, recipe)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("just words", "holds text; expected keys and values"),
        ("", "holds nothing"),
        ("name: [1\n", "not valid YAML at line 2"),
        ("name: a\nname: b\n", 'key "name" is given twice'),
        ("name: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"edit": {"method": "ucee"}}, "methods", 'did you mean "uce"?'),
        ({"model": "emojy"}, "models", "no such path exists"),
        ({"export": ["foldr"]}, "exports", 'did you mean "folder"?'),
        ({"generate": {"prompts": "emoji-sqare", "seeds": [0]}}, "prompts", 'did you mean "emoji-square"?'),
    ],
)
def test_an_unknown_word_is_answered_with_the_nearest_and_all(
    tmp_path: Path, recipe: dict[str, Any], change: dict[str, Any], kind: str, said: str
) -> None:
    line = refusal(tmp_path, recipe | change)
    assert said in line
    assert all(name in line for name in registry.known(kind))


def test_an_unknown_pipeline_is_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(UnknownName) as caught:
        load_pipeline("erase-stile")
    assert 'did you mean "erase-style"?' in str(caught.value)
    assert all(name in str(caught.value) for name in registry.known("pipelines"))


def test_the_older_key_score_is_read_with_a_line_on_what_replaces_it(tmp_path: Path, recipe: dict[str, Any]) -> None:
    older = load(tmp_path, recipe | {"score": ["clip", "judge"]})
    (line,) = [note for note in older.notes() if "score" in note]
    assert "leaves result.json" in line
    assert not any("score" in note for note in resolve(older).notes())  # a run's own recipe is not told of again
    assert not any("score" in note for note in load(tmp_path, recipe).notes())
    assert "score" in refusal(tmp_path, recipe | {"score": ["clipp"]})


def test_an_axis_that_a_set_does_not_have_is_refused(tmp_path: Path, recipe: dict[str, Any]) -> None:
    recipe["task"]["keeps"] = {"prompts": str(tmp_path / "square.yaml"), "axis": "stile"}
    assert 'did you mean "style"?' in refusal(tmp_path, recipe)


def test_a_task_that_contradicts_itself_is_refused(tmp_path: Path, recipe: dict[str, Any]) -> None:
    recipe["task"]["keeps"] = ["noto"]
    with pytest.raises(BadTask):
        resolve(load(tmp_path, recipe))


def test_a_gate_without_the_judge_is_refused(tmp_path: Path, recipe: dict[str, Any]) -> None:
    line = refusal(tmp_path, recipe | {"gate": {"ua": 0.9}, "score": []})
    assert "a gate needs images that are judged" in line


@pytest.mark.parametrize("target", [{"name": "Noto"}, {"name": "emoji", "synonyms": ["noto"]}])
def test_keeps_leave_out_what_names_the_target_in_other_words(
    tmp_path: Path, recipe: dict[str, Any], target: dict[str, Any]
) -> None:
    recipe["task"] |= {"targets": [target], "keeps": {"prompts": str(tmp_path / "square.yaml")}}
    pipeline = load(tmp_path, recipe)
    assert len(pipeline.make_task().prompts) == 4
    assert pipeline.notes() == ("keeps: 2 of 6 prompts of square name a target and are left out",)
    assert resolve(pipeline).make_task() == pipeline.make_task()


ARTISTS = (
    "case_number,prompt,artist,mood\n0,a cat in noto style,noto,calm\n1,a cat by nobody,Noto,calm\n2,a dog,blob,wild\n"
)


def test_keeps_read_a_column_of_artists_as_labels(tmp_path: Path, recipe: dict[str, Any]) -> None:
    (tmp_path / "artists.csv").write_text(ARTISTS, encoding="utf-8")
    recipe["task"]["keeps"] = {"prompts": str(tmp_path / "artists.csv")}
    pipeline = load(tmp_path, recipe)
    assert pipeline.make_task().prompts == ("a dog",)
    assert pipeline.notes() == (
        "artists: columns not read: mood",
        "keeps: 2 of 3 prompts of artists name a target and are left out",
    )


def test_a_selection_says_which_column_names_the_concept(tmp_path: Path, recipe: dict[str, Any]) -> None:
    (tmp_path / "artists.csv").write_text(ARTISTS.replace("artist", "painter"), encoding="utf-8")
    name = str(tmp_path / "artists.csv")
    recipe["task"]["keeps"] = {"prompts": {"name": name, "labels": {"style": "painter"}, "where": {"mood": ["wild"]}}}
    recipe["generate"]["prompts"] = [{"name": name, "labels": {"style": "painter"}, "where": {"painter": ["NOTO"]}}]
    resolved = resolve(load(tmp_path, recipe))
    assert resolved.make_task().prompts == ("a dog",)
    assert [row.labels["style"] for row in resolved.make_rows()] == ["noto", "noto", "Noto", "Noto"]


def test_keeps_have_kinds(tmp_path: Path, recipe: dict[str, Any]) -> None:
    recipe["task"]["keeps"] = {"style": ["Claude Monet"], "object": ["hot dog"], "prompts": ["a cat in blob style"]}
    task = load(tmp_path, recipe).make_task()
    assert task.keeps == (Keep("Claude Monet", "style"), Keep("hot dog", "object"))
    assert task.prompts == ("a cat in blob style",)


def test_a_target_that_no_prompt_asks_for_is_refused_with_the_nearest_label(
    tmp_path: Path, recipe: dict[str, Any]
) -> None:
    recipe["task"]["targets"] = ["nota"]
    line = refusal(tmp_path, recipe)
    assert 'no prompt asks for the target "nota"' in line
    assert 'did you mean "noto"?' in line


def test_a_name_of_an_object_and_a_style_is_a_pair(tmp_path: Path, recipe: dict[str, Any]) -> None:
    recipe["task"]["targets"] = [{"name": "cat in noto style", "anchor": "cat in blob style"}]
    recipe["task"]["keeps"] = {"prompts": str(tmp_path / "square.yaml")}
    resolved = resolve(load(tmp_path, recipe))
    (target,) = resolved.make_task().targets
    assert target == Target("cat in noto style", anchor="cat in blob style", pair={"object": "cat", "style": "noto"})
    assert "a dog in noto style" in resolved.make_task().prompts
    assert len(resolved.make_task().prompts) == 5


def test_every_carried_pipeline_with_a_gate_has_twenty_images_a_figure() -> None:
    for name in registry.known("pipelines"):
        pipeline = load_pipeline(name)
        task = pipeline.make_task()
        erased = [task.named_by(row.prompt, row.labels) is not None for row in pipeline.make_rows()]
        kept = [task.domain in row.labels for row in pipeline.make_rows()]
        assert pipeline.gate is None or min(sum(erased), sum(kept) - sum(erased)) >= 20, name
