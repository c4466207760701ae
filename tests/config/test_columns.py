"""Prompt files of other people: their columns, lists without columns, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.config.prompts import load_prompts
from erase.errors import BadPrompts


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


@pytest.mark.parametrize(
    ("column", "domain"),
    [
        ("artist", "style"),
        ("Artist", "style"),
        ("style", "style"),
        ("class", "object"),
        ("label_str", "object"),
        ("profession", "object"),
        ("object", "object"),
        ("celebrity", "identity"),
        ("identity", "identity"),
    ],
)
def test_columns_of_the_field_are_labels(tmp_path: Path, column: str, domain: str) -> None:
    chosen = load_prompts(write(tmp_path, "a.csv", f"prompt,{column}\nx, Van Gogh \ny,\n"))
    assert [dict(line.labels) for line in chosen.lines] == [{domain: "Van Gogh"}, {}]
    assert chosen.unread == ()


def test_columns_that_are_not_read_are_named_and_bookkeeping_is_not(tmp_path: Path) -> None:
    text = ",case_number,prompt,evaluation_seed,categories,evaluation_guidance\n0,0,a sea,7,hate,7.5\n"
    chosen = load_prompts(write(tmp_path, "i2p.csv", text))
    assert chosen.notes == ("i2p: columns not read: categories, evaluation_guidance",)
    assert chosen.lines[0].seed == 7


def test_an_empty_prompt_is_a_prompt_and_is_counted(tmp_path: Path) -> None:
    chosen = load_prompts(write(tmp_path, "i2p.csv", 'prompt,evaluation_seed\n"",3\na sea,4\n'))
    assert [row.prompt for row in chosen.rows()] == ["", "a sea"]
    assert chosen.notes == ("i2p: 1 of 2 prompts are empty; they are asked as they are",)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_cells_may_be_parted_by_semicolons_and_tabs(tmp_path: Path, separator: str) -> None:
    text = "\n".join(separator.join(cells) for cells in (("Prompt", "seed"), ("a sea", "1")))
    for name in ("a.csv", "a.tsv"):
        assert [(row.prompt, row.seed) for row in load_prompts(write(tmp_path, name, text)).rows()] == [("a sea", 1)]


def test_a_list_of_lines_is_a_set(tmp_path: Path) -> None:
    chosen = load_prompts(write(tmp_path, "p.txt", "a harbour\n\n  un café, by Béla\n"))
    assert [row.prompt for row in chosen.rows(seeds=[0])] == ["a harbour", "un café, by Béla"]


def test_a_list_of_objects_is_a_set(tmp_path: Path) -> None:
    text = '{"prompt": "a harbour", "seed": 1, "artist": "Monet"}\n{"prompt": "un caf\\u00e9", "seed": 2}\n'
    rows = load_prompts(write(tmp_path, "p.jsonl", text)).rows()
    assert [(row.prompt, row.seed, dict(row.labels)) for row in rows] == [
        ("a harbour", 1, {"style": "Monet"}),
        ("un café", 2, {}),
    ]


def test_rows_are_selected_by_any_column_whatever_its_case(tmp_path: Path) -> None:
    chosen = load_prompts(write(tmp_path, "a.csv", "prompt,seed,artist,mood\nx,0,Claude Monet,calm\ny,0,Dalí,wild\n"))
    assert [row.prompt for row in chosen.rows(where={"artist": ["claude-monet"]})] == ["x"]
    assert [row.prompt for row in chosen.rows(where={"style": ["dali"]})] == ["y"]
    assert [row.prompt for row in chosen.rows(where={"mood": ["wild"]})] == ["y"]
    with pytest.raises(BadPrompts, match='did you mean "Claude Monet"'):
        chosen.rows(where={"artist": ["Claude Manet"]})


def test_labels_say_which_column_names_the_concept(tmp_path: Path) -> None:
    name = write(tmp_path, "a.csv", "prompt,painter,artist\nx,Monet,nobody\n")
    assert load_prompts(name, labels={"style": "painter"}).lines[0].labels == {"style": "Monet"}
    with pytest.raises(BadPrompts, match='did you mean "painter"'):
        load_prompts(name, labels={"style": "paintr"})
    with pytest.raises(BadPrompts, match='did you mean "style"'):
        load_prompts(name, labels={"stile": "painter"})


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "text_of,seed\nx,1\n", 'no column "prompt"'),
        ("a.jsonl", "[1]\n", "line 1 is no object"),
        ("a.jsonl", '{"prompt": "x"}\n{"prompt"\n', "line 2 is not valid JSON"),
        ("a.jsonl", "[" * 100_000, "line 1 is not valid JSON"),
        ("a.json", "[]", "expected a .yaml, .csv, .tsv, .jsonl, .txt file"),
        ("a.txt", "\n", "holds no prompt"),
        ("a.yaml", "- target: a cat\n", "holds a list; expected keys and values"),
    ],
)
def test_what_is_wrong_with_a_list_is_said_in_one_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(BadPrompts, match=said) as caught:
        load_prompts(write(tmp_path, name, text))
    assert "\n" not in str(caught.value)
    assert "name: my-run" not in str(caught.value)
