"""Prompt sets: squares, explicit rows and CSV files, their labels, words, groups and seeds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from erase import registry
from erase.config.prompts import Row, each_once, fill, load_prompts
from erase.errors import BadPrompts, UnknownName

HEAD = "version: '1'\nlicence: CC0-1.0\nsource: a test\n"
SQUARE = HEAD + "templates: ['a {object} in {style} style']\naxes: {style: [noto, blob], object: [cat, apple]}\n"


def write(folder: Path, text: str, *, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_square_has_every_combination_in_the_files_order(tmp_path: Path) -> None:
    rows = load_prompts(write(tmp_path, SQUARE)).rows(seeds=[3])
    assert rows == (
        Row("a cat in noto style", 3, {"style": "noto", "object": "cat"}),
        Row("an apple in noto style", 3, {"style": "noto", "object": "apple"}),
        Row("a cat in blob style", 3, {"style": "blob", "object": "cat"}),
        Row("an apple in blob style", 3, {"style": "blob", "object": "apple"}),
    )


def test_each_prompt_comes_with_each_seed(tmp_path: Path) -> None:
    rows = load_prompts(write(tmp_path, SQUARE)).rows(seeds=[0, 5], where={"style": ["noto"], "object": ["cat"]})
    assert [row.seed for row in rows] == [0, 5]


def test_a_domain_that_a_prompt_does_not_name_is_no_label(tmp_path: Path) -> None:
    text = HEAD + "templates: ['a {object}', 'in {style} style']\naxes: {style: [noto], object: [cat]}\n"
    rows = load_prompts(write(tmp_path, text)).rows(seeds=[0])
    assert [dict(row.labels) for row in rows] == [{"object": "cat"}, {"style": "noto"}]


def test_another_word_is_said_and_the_label_stays(tmp_path: Path) -> None:
    text = SQUARE + "words: {object: {apple: red fruit, cat: animal}}\n"
    rows = load_prompts(write(tmp_path, text)).rows(seeds=[0], where={"style": ["noto"]})
    assert [row.prompt for row in rows] == ["an animal in noto style", "a red fruit in noto style"]
    assert [row.labels["object"] for row in rows] == ["cat", "apple"]


def test_a_group_selects_its_words(tmp_path: Path) -> None:
    text = SQUARE + "groups: {eaten: [apple]}\n"
    rows = load_prompts(write(tmp_path, text)).rows(seeds=[0], where={"object": ["eaten"]})
    assert {row.labels["object"] for row in rows} == {"apple"}


def test_explicit_rows_keep_their_seeds_unless_others_are_given(tmp_path: Path) -> None:
    text = HEAD + "rows: [{prompt: a cat, seed: 7, labels: {object: cat}}]\n"
    prompts = load_prompts(write(tmp_path, text))
    assert [row.seed for row in prompts.rows()] == [7]
    assert [row.seed for row in prompts.rows(seeds=[1, 2])] == [1, 2]


@pytest.mark.parametrize("column", ["seed", "evaluation_seed"])
def test_a_csv_gives_prompts_seeds_and_labels(tmp_path: Path, column: str) -> None:
    text = f'number,prompt,{column},style\n1,"a cat, asleep",42,noto\n2,a dog,43,\n'
    rows = load_prompts(write(tmp_path, text, name="mine.csv")).rows()
    assert rows == (Row("a cat, asleep", 42, {"style": "noto"}), Row("a dog", 43, {}))


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, SQUARE)
    assert load_prompts(path).sha256 == hashlib.sha256(SQUARE.encode()).hexdigest()


@pytest.mark.parametrize("word", ["apple", "Eel", "ice cream", "orange", "umbrella"])
def test_an_article_agrees_with_the_word_after_it(word: str) -> None:
    assert fill("a picture of a {object}", {"object": word}) == f"a picture of an {word}"
    assert fill("A {object}", {"object": word}) == f"An {word}"
    assert fill("a {object}", {"object": "cat"}) == "a cat"


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz ", min_size=1))
def test_only_the_article_before_a_slot_changes(word: str) -> None:
    assert fill("data {object} a item, {object}", {"object": word}) == f"data {word} a item, {word}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "a list"),
        ("prompts: [unclosed\n", "not valid YAML at line"),
        (SQUARE + "templets: []\n", 'did you mean "templates"? Known: version'),
        (SQUARE.replace("version: '1'\n", ""), "version is missing"),
        (SQUARE.replace("{style} style", "{stile} style"), "{stile}, which is no axis; axes: style, object"),
        (SQUARE.replace("in {style} style", ""), "axis style is in no template"),
        (SQUARE.replace("[noto, blob]", "noto"), "axes.style is"),
        (SQUARE + "groups: {eaten: [aple]}\n", 'did you mean "apple"? Known: noto, blob, cat, apple'),
        (SQUARE + "words: {object: {car: auto}}\n", 'unknown word "car" in words.object'),
        (SQUARE + "version: '2'\n", 'key "version" is given twice'),
        (HEAD, "holds no prompt"),
        (HEAD + "rows: [{prompt: a, seed: -1}]\n", "expected 0 or more"),
        (HEAD + "rows: [{prompt: a, labels: {stile: noto}}]\n", 'did you mean "style"?'),
    ],
)
def test_what_is_wrong_with_a_set_is_said_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(BadPrompts) as caught:
        load_prompts(path)
    assert said in str(caught.value)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed\n1\n", 'no column "prompt"; its columns: seed'),
        ("prompt,seed\na cat,many\n", 'line 2: the seed is "many"'),
        ("prompt,seed\na cat,\n", "expected a whole number"),
        ("prompt,seed\n", "holds no prompt"),
        ('prompt,seed\n"a cat,1\n', "not valid CSV at line"),
    ],
)
def test_what_is_wrong_with_a_csv_is_said_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadPrompts) as caught:
        load_prompts(write(tmp_path, text, name="mine.csv"))
    assert said in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(BadPrompts, match="UTF-8"):
        load_prompts(str(path))


def test_an_unknown_set_is_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(UnknownName) as caught:
        load_prompts("emoji-sqare")
    assert 'did you mean "emoji-square"?' in str(caught.value)
    assert all(name in str(caught.value) for name in registry.known("prompts"))


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"stile": ["noto"]}, 'unknown key "stile"'),
        ({"style": ["notto"]}, 'did you mean "noto"?'),
        ({"style": []}, "no prompt is left"),
    ],
)
def test_a_selection_that_fits_nothing_is_an_error(tmp_path: Path, where: dict[str, list[str]], said: str) -> None:
    with pytest.raises(BadPrompts) as caught:
        load_prompts(write(tmp_path, SQUARE)).rows(seeds=[0], where=where)
    assert said in str(caught.value)


def test_a_set_without_seeds_asks_for_some(tmp_path: Path) -> None:
    with pytest.raises(BadPrompts, match="no seeds of its own"):
        load_prompts(write(tmp_path, SQUARE)).rows()


def test_every_carried_set_states_its_licence_and_its_concepts() -> None:
    assert registry.known("prompts")
    for name in registry.known("prompts"):
        prompts = load_prompts(name)
        assert prompts.licence == "Apache-2.0"
        assert prompts.description
        assert all(line.labels for line in prompts.lines)


def test_the_synonym_set_says_no_object_by_its_name() -> None:
    plain, other = load_prompts("emoji-square"), load_prompts("emoji-synonyms")
    assert [line.labels for line in plain.lines] == [line.labels for line in other.lines]
    assert len(plain.lines) == 8 * 50
    assert all(one.prompt != two.prompt for one, two in zip(plain.lines, other.lines, strict=True))


@pytest.mark.parametrize(("kind", "domain"), [("objects", "object"), ("styles", "style")])
def test_the_implicit_sets_ask_with_the_descriptions_that_no_training_used(kind: str, domain: str) -> None:
    path = Path(__file__).parents[2] / "scripts/embedded/implicit.yaml"
    descriptions = yaml.safe_load(path.read_text(encoding="utf-8"))[kind]
    plain, other = load_prompts("emoji-square"), load_prompts(f"emoji-implicit-{kind}")
    assert [line.labels for line in plain.lines] == [line.labels for line in other.lines]
    held_back = {name: three[2] for name, three in descriptions.items()}
    assert [line for line in other.lines if held_back[line.labels[domain]] not in line.prompt] == []


def test_one_image_has_the_labels_of_all_that_ask_for_it_and_a_contradiction_is_told() -> None:
    rows = [
        Row("a cat by Béla", 1, {"style": "Béla Bartók"}),
        Row("a cat by Béla", 2, {"style": "Béla Bartók"}),
        Row("a cat by Béla", 1, {"object": "cat", "style": "bela bartok"}),
        Row("a cat by Béla", 1, {"object": "Siamese cat"}),
    ]
    found, notes = each_once(rows)
    assert [(row.seed, dict(row.labels)) for row in found] == [
        (1, {"object": "cat", "style": "Béla Bartók"}),
        (2, {"style": "Béla Bartók"}),
    ]
    assert notes == (
        "1 images have several labels of a kind, of which the first counts: "
        '"a cat by Béla" is object cat and Siamese cat',
    )
    assert each_once(rows[:3])[1] == ()
