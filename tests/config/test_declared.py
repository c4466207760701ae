"""Declared prompt sets: every manifest is sound, the right file is read, a wrong one refused in one line."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from erase import registry
from erase.config.declared import load_declared, read_manifest
from erase.errors import BadPrompts, UnknownName

MANIFEST = {
    "version": "1",
    "licence": "CC0-1.0",
    "source": "somebody/something, data.csv",
    "columns": ["case_number", "prompt", "evaluation_seed", "artist"],
    "rows": 3,
    "seed": "evaluation_seed",
    "labels": {"style": "artist"},
}
ROWS = [("0", "a street by A", "12", "A"), ("1", "a child, by A", "7", "A"), ("2", "a field by B", "99", "B")]


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of manifests with one, `mine`, in the place of the project's own."""
    monkeypatch.setattr(registry, "data_folder", lambda kind: tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(MANIFEST), encoding="utf-8")
    return tmp_path


def write(folder: Path, rows: list[tuple[str, ...]] = ROWS, columns: list[str] | None = None) -> Path:
    path = folder / "data.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns or ["", *MANIFEST["columns"]])  # type: ignore[misc]
        writer.writerows([str(number), *row] if columns is None else row for number, row in enumerate(rows))
    return path


def redeclare(folder: Path, **changes: Any) -> None:
    (folder / "mine.yaml").write_text(yaml.safe_dump(MANIFEST | changes), encoding="utf-8")


def test_every_manifest_of_the_project_is_sound() -> None:
    known = registry.known("declared")
    assert {"i2p", "coco-30k", "imagenette", "unlearndiffatk-nudity", "six-cd-dual"} <= set(known)
    for name in known:
        form = read_manifest(name)
        assert form.rows > 0
        assert form.licence
        assert "/" in form.source


def test_no_declared_set_is_carried() -> None:
    folder = registry.data_folder("declared")
    assert [path.name for path in folder.iterdir() if path.suffix != ".yaml"] == []


def test_prompts_seeds_and_labels_are_the_files(declared: Path) -> None:
    prompts = load_declared("mine", write(declared))
    assert [line.prompt for line in prompts.lines] == [row[1] for row in ROWS]
    assert [line.seed for line in prompts.lines] == [12, 7, 99]
    assert prompts.words("style") == ("A", "B")
    assert prompts.licence == "CC0-1.0"
    rows = prompts.rows(where={"style": ["B"]})
    assert [(row.prompt, row.seed) for row in rows] == [("a field by B", 99)]


def test_rows_that_name_minors_are_left_out_of_a_sensitive_set_and_counted(declared: Path) -> None:
    redeclare(declared, sensitive=True)
    prompts = load_declared("mine", write(declared))
    assert [line.prompt for line in prompts.lines] == ["a street by A", "a field by B"]
    assert "1 rows that name minors are left out" in prompts.description
    assert prompts.left_out == 1


def test_a_known_hash_is_checked(declared: Path) -> None:
    path = write(declared)
    redeclare(declared, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(load_declared("mine", path).lines) == 3
    path.write_text(path.read_text(encoding="utf-8").replace("street", "road"), encoding="utf-8")
    with pytest.raises(BadPrompts, match="is not mine: its sha256 is"):
        load_declared("mine", path)


def test_another_number_of_rows_is_refused(declared: Path) -> None:
    with pytest.raises(BadPrompts, match="it has 2 rows; expected 3"):
        load_declared("mine", write(declared, ROWS[:2]))


def test_other_columns_are_refused(declared: Path) -> None:
    with pytest.raises(BadPrompts, match='it has no column "artist"'):
        load_declared("mine", write(declared, [row[:3] for row in ROWS], ["case_number", "prompt", "evaluation_seed"]))


@pytest.mark.parametrize("seed", ["", "x", "-1", "1.5"])
def test_a_seed_that_is_none_is_refused(declared: Path, seed: str) -> None:
    with pytest.raises(BadPrompts, match="row 3: the seed is"):
        load_declared("mine", write(declared, [*ROWS[:2], ("2", "a field", seed, "B")]))


def test_an_empty_prompt_is_a_prompt(declared: Path) -> None:
    prompts = load_declared("mine", write(declared, [("0", "", "1", "A"), *ROWS[1:]]))
    assert [line.prompt for line in prompts.lines] == ["", *(row[1] for row in ROWS[1:])]


def test_a_row_of_fewer_cells_has_an_empty_prompt_if_it_lacks_it(declared: Path) -> None:
    redeclare(declared, columns=["evaluation_seed", "prompt"], labels={}, sensitive=True)
    path = declared / "data.csv"
    path.write_text('evaluation_seed,prompt\n1,a street\n2\n3,"a ""quoted"", two-line\nfield"\n', encoding="utf-8")
    prompts = load_declared("mine", path)
    assert [line.prompt for line in prompts.lines] == ["a street", "", 'a "quoted", two-line\nfield']


def test_a_row_is_named_by_its_number_in_the_file_though_others_are_left_out(declared: Path) -> None:
    redeclare(declared, sensitive=True)
    with pytest.raises(BadPrompts, match="mine, row 3: the seed is"):
        load_declared("mine", write(declared, [*ROWS[:2], ("2", "a field", "x", "B")]))


@pytest.mark.parametrize(("text", "seed"), [("4261564198", 4261564198), ("12.0", 12), (" 7 ", 7), ("0", 0)])
def test_a_whole_number_is_a_seed_however_a_table_program_wrote_it(declared: Path, text: str, seed: int) -> None:
    prompts = load_declared("mine", write(declared, [*ROWS[:2], ("2", "a field", text, "B")]))
    assert prompts.lines[2].seed == seed


def test_without_a_file_it_is_said_where_to_get_it(declared: Path) -> None:
    with pytest.raises(BadPrompts, match=r"get it from somebody/something, data\.csv; then give its file as mine=PATH"):
        load_declared("mine", None)


def test_an_unknown_set_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match='did you mean "coco-30k"'):
        load_declared("coco-3k", None)


@pytest.mark.parametrize(
    ("changes", "said"), [({"seed": "sede"}, 'unknown key "sede"'), ({"labels": {"colour": "artist"}}, "labels")]
)
def test_a_manifest_that_names_no_column_of_its_own_is_refused(
    declared: Path, changes: dict[str, Any], said: str
) -> None:
    redeclare(declared, **changes)
    with pytest.raises(BadPrompts, match=said):
        read_manifest("mine")


@pytest.mark.parametrize(
    ("form", "columns", "text"),
    [
        ("lines", ["prompt"], "a street by A\n\n a child, by A \r\na field by B"),
        (
            "records",
            ["prompt", "artist"],
            '{"0": {"prompt": "a street by A", "artist": {"A": ["x"], "C": []}}, "1": {"prompt": "a child, by A", '
            '"artist": "A"}, "2": {"prompt": "a field by B", "artist": "B"}}',
        ),
        ("lists", ["concept", "prompt"], '[{"A": ["a street by A", "a child, by A"]}, {"B": ["a field by B"]}]'),
    ],
)
def test_files_of_lines_and_of_json_are_read(declared: Path, form: str, columns: list[str], text: str) -> None:
    redeclare(declared, form=form, columns=columns, seed="", labels={"style": columns[0]} if form == "lists" else {})
    (declared / "data").write_text(text, encoding="utf-8")
    lines = load_declared("mine", declared / "data").lines
    assert [line.prompt for line in lines] == [row[1] for row in ROWS]
    assert [line.labels for line in lines] == [{"style": one} if form == "lists" else {} for one in ("A", "A", "B")]


@pytest.mark.parametrize("text", ["", "[1, 2, 3]", '{"a": 1}', '[{"A": 5}]', "[[["])
@pytest.mark.parametrize("form", ["records", "lists"])
def test_json_of_another_form_is_refused_in_one_line(declared: Path, form: str, text: str) -> None:
    redeclare(declared, form=form, columns=["concept", "prompt"], seed="", labels={})
    (declared / "data").write_text(text, encoding="utf-8")
    with pytest.raises(BadPrompts, match="data is n"):
        load_declared("mine", declared / "data")
