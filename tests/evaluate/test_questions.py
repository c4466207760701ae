"""Which questions a protocol asks for a task."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from erase.config.prompts import load_prompts
from erase.errors import BadPrompts, BadProtocol
from erase.evaluate.protocol import Protocol, load_protocol
from erase.evaluate.questions import asked_of, concepts_of, evenly, make_cases, rows_of
from erase.evaluate.statistics.intervals import wilson
from erase.run.pipeline import load_pipeline
from erase.task import Kind, Target, Task

STYLE = Task((Target("noto", "style", anchor="fluent", synonyms=("google",)),), keeps=("blob",))
OBJECT = Task((Target("cat", "object", anchor="dog", synonyms=("kitty", "feline")),))
UNSAFE = Task((Target("bomb", "unsafe", "apple", ("explosive",)), Target("knife", "unsafe", "guitar", ("blade",))))


def protocol(folder: Path, *parts: dict[str, Any], seeds: tuple[int, ...] = (0,)) -> Protocol:
    path = folder / "mine.yaml"
    head = {"version": "1", "description": "a test", "source": "a test", "seeds": list(seeds)}
    detector = {"name": "judge", "version": "emoji-v1"}
    path.write_text(yaml.safe_dump(head | {"detector": detector, "prompts": list(parts)}), encoding="utf-8")
    return load_protocol(str(path))


def part(role: str = "erased", **changes: Any) -> dict[str, Any]:
    return {"role": role, "aspect": "name", **changes}


@pytest.mark.parametrize("name", ["gate", "canvas/sauron-agg", "canvas/with-seed-images", "synonyms"])
@pytest.mark.parametrize("task", [STYLE, OBJECT, UNSAFE])
def test_the_embedded_protocols_ask_enough_of_every_kind_of_task(name: str, task: Task) -> None:
    cases = make_cases(load_protocol(name), task)
    erased = [case for case in cases if case.role == "erased"]
    assert len(erased) >= 16
    assert all(case.concept in task.names for case in erased)
    assert {case.domain for case in erased} == {task.domain}
    assert not any(case.concept in task.names for case in cases if case.role == "kept")


def gate_tasks() -> list[Task]:
    square = load_prompts("emoji-square")
    singles: list[tuple[Kind, str]] = [("style", name) for name in square.words("style")]
    singles += [("object", name) for name in square.words("object")]
    unsafe = load_pipeline("erase-unsafe").make_task()
    return [unsafe, *(Task((Target(name, kind, synonyms=("another word",)),)) for kind, name in singles)]


def test_the_gate_asks_so_many_that_four_wrong_answers_prove_four_fifths() -> None:
    protocol = load_protocol("gate")
    tasks = gate_tasks()
    assert len(tasks) == 59
    for task in tasks:
        aspects = Counter(case.aspect for case in make_cases(protocol, task))
        assert len(aspects) == 5 + (task.domain == "object")
        proved = {aspect: wilson(count - 4, count)[0] for aspect, count in aspects.items()}
        assert min(proved.values()) >= protocol.limits.gone, (task.names, aspects)


@pytest.mark.parametrize("task", [STYLE, OBJECT])
def test_erasebench_asks_every_kind_of_task(task: Task) -> None:
    aspects = {case.aspect for case in make_cases(load_protocol("erasebench"), task)}
    assert {"efficacy", "generality"} < aspects


def test_synonyms_are_asked_and_the_target_is_what_must_be_seen() -> None:
    cases = [case for case in make_cases(load_protocol("gate"), OBJECT) if case.aspect == "synonyms"]
    assert {"kitty", "feline"} == {case.row.prompt.split()[1] for case in cases}
    assert {case.concept for case in cases} == {"cat"}


def test_an_article_fits_its_word(tmp_path: Path) -> None:
    asked = protocol(tmp_path, part(fill="synonyms", templates=["a {word}"]))
    task = Task((Target("car", "object", synonyms=("automobile",)),))
    assert make_cases(asked, task)[0].row.prompt == "an automobile"


def test_a_task_without_synonyms_is_told_what_is_missing() -> None:
    with pytest.raises(BadProtocol, match="give the target's synonyms"):
        make_cases(load_protocol("gate"), Task((Target("noto", "style"),)))


def test_neighbours_that_no_file_knows_are_told() -> None:
    with pytest.raises(BadProtocol, match="finds no prompt for its part 1"):
        make_cases(load_protocol("neighbours"), Task((Target("zebra", "object"),)))


def test_a_declared_set_needs_its_file() -> None:
    with pytest.raises(BadPrompts, match="give its file as small-imagenet=PATH"):
        make_cases(load_protocol("object"), OBJECT)


def test_the_same_prompt_may_be_asked_twice_and_is_drawn_once() -> None:
    cases = make_cases(load_protocol("canvas/sauron-agg"), STYLE)
    rows = rows_of(cases)
    assert len(rows) == 400
    assert len(cases) == 800  # each image is asked for its style and for its object
    assert len({(row.prompt, row.seed) for row in rows}) == len(rows)


def test_dual_prompts_are_compared_with_their_clean_caption() -> None:
    cases = [case for case in make_cases(load_protocol("dual-prompt"), OBJECT) if case.role == "kept"]
    assert cases[0].row.prompt == "a photo of a cat next to a table"
    assert cases[0].caption == cases[0].concept == "a photo of a table"


def test_faces_are_asked_for_anything_on_the_same_images() -> None:
    task = Task((Target("somebody", "identity"),), keeps=("nobody",))
    cases = make_cases(load_protocol("celebrity"), task)
    faces = {case.row.prompt for case in cases if case.aspect == "face"}
    assert faces == {case.row.prompt for case in cases if case.aspect != "face"}
    assert {case.concept for case in cases if case.aspect == "face"} == {"*"}


def test_a_limit_spreads_over_the_list(tmp_path: Path) -> None:
    asked = protocol(
        tmp_path, part("kept", set="emoji-square", of="others", limit=49), part(set="emoji-square", of="targets")
    )
    kept = [case for case in make_cases(asked, OBJECT) if case.role == "kept"]
    assert len(kept) == 49
    assert len({case.concept for case in kept}) > 40
    assert evenly(kept, 100) == kept


def test_seeds_are_the_part_s_the_set_s_or_the_protocol_s(tmp_path: Path) -> None:
    asked = protocol(tmp_path, part(templates=["a {word}"]), part(templates=["one {word}"], seeds=[7]), seeds=(1, 2))
    assert [case.row.seed for case in make_cases(asked, OBJECT)] == [1, 2, 7]


def test_a_part_for_another_kind_of_task_is_left_out_and_nothing_left_is_an_error(tmp_path: Path) -> None:
    asked = protocol(tmp_path, part(templates=["a {word}"], only="style"))
    assert len(make_cases(asked, STYLE)) == 1
    with pytest.raises(BadProtocol, match=r"asks nothing about cat, of the kind object; choose .* such as any-object"):
        make_cases(asked, OBJECT)


def test_a_target_that_a_set_does_not_name_is_told_with_a_protocol_that_asks_about_it() -> None:
    said = r'protocol gate finds no prompt for its part 1 \("name"\) with the target José Ribera: .*such as any-style'
    with pytest.raises(BadProtocol, match=said):
        make_cases(load_protocol("gate"), Task((Target("José Ribera", "style"),)))
    assert make_cases(load_protocol("any-style"), Task((Target("José Ribera", "style"),)))


def test_a_detector_may_have_to_tell_the_anchors_too() -> None:
    cases = make_cases(load_protocol("canvas/sauron-agg"), OBJECT)
    assert {"cat", "dog", "noto"} <= set(concepts_of(cases, OBJECT))


def test_captions_that_name_a_target_need_not_stay_and_are_counted(tmp_path: Path) -> None:
    rows = ("A cat's bed", "a dog on a chair", "two kitties", "a cathedral", "")
    (tmp_path / "coco.csv").write_text("\n".join(["prompt,seed", *(f'"{row}",3' for row in rows)]), encoding="utf-8")
    asked = protocol(
        tmp_path, part(fill="names", templates=["a {word}"]), part("kept", set=str(tmp_path / "coco.csv"), see="prompt")
    )
    cases = make_cases(asked, OBJECT)
    assert [case.concept for case in cases if case.role == "kept"] == ["a dog on a chair", "a cathedral"]
    own, told = asked_of(cases, OBJECT, is_cut=lambda prompt: False)
    assert (own.erased, told.erased, told.unasked, told.prompts) == (0, 2, 1, 2)
    assert "2 captions that name a target were not asked for" in told.text
