"""YAML files read as typed values, and what is said about a wrong one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import Field

from erase.config.documents import Form, check, check_value, parse_yaml, read_text, wrong_key
from erase.errors import BadPipeline


class Inner(Form):
    steps: int = 25
    names: tuple[str, ...] = ()


class Outer(Form):
    name: str
    inner: Inner = Inner()
    several: tuple[Inner, ...] = Field(default=())


def refusal(value: object) -> str:
    with pytest.raises(BadPipeline) as caught:
        check(value, Outer, source="file.yaml", error=BadPipeline)
    return str(caught.value)


def test_a_right_mapping_becomes_the_form() -> None:
    form = check({"name": "a", "inner": {"steps": 3}}, Outer, source="file.yaml", error=BadPipeline)
    assert form == Outer(name="a", inner=Inner(steps=3))


def test_an_unknown_key_is_named_with_the_keys_of_its_own_place() -> None:
    line = refusal({"name": "a", "several": [{}, {"stps": 3}]})
    assert line == 'file.yaml: unknown key "stps" in several[1]; did you mean "steps"? Known: steps, names.'


def test_a_mistyped_key_comes_before_the_missing_one_it_was_meant_to_be() -> None:
    assert refusal({"nmae": "a"}).startswith('file.yaml: unknown key "nmae" in the file; did you mean "name"?')
    assert refusal({"nmae": "a"}).endswith("(1 more after this one.)")


def test_a_missing_key_is_named() -> None:
    assert refusal({}) == "file.yaml: name is missing; the file must give it."


def test_a_wrong_type_is_named_with_its_value() -> None:
    assert refusal({"name": "a", "inner": {"names": ["x", 3]}}).startswith(
        "file.yaml: inner.names[1] is 3; expected a valid string"
    )


def test_a_long_value_is_cut() -> None:
    assert len(refusal({"name": "a", "inner": {"steps": "x" * 1000}})) < 200


def test_a_key_that_stands_twice_is_an_error_also_further_in() -> None:
    with pytest.raises(BadPipeline, match=r'line 3, column 9: key "steps" is given twice'):
        parse_yaml("name: a\ninner: {steps: 1,\n        steps: 2}\n", source="file.yaml", error=BadPipeline)


def test_a_tag_that_would_run_code_is_refused() -> None:
    with pytest.raises(BadPipeline, match="not valid YAML"):
        parse_yaml("a: !!python/object/apply:os.getcwd []", source="file.yaml", error=BadPipeline)


def test_a_control_character_is_refused_in_one_line() -> None:
    with pytest.raises(BadPipeline) as caught:
        parse_yaml("a: \x00", source="file.yaml", error=BadPipeline)
    assert "\n" not in str(caught.value)


def test_a_single_value_is_checked_by_its_type() -> None:
    assert check_value("3", int, key="option a", error=BadPipeline) == 3
    with pytest.raises(BadPipeline, match="option a is 'x'; expected a valid integer"):
        check_value("x", int, key="option a", error=BadPipeline)


def test_a_key_far_from_all_gets_no_guess() -> None:
    assert wrong_key("zzz", ["steps"], where="the file") == 'unknown key "zzz" in the file. Known: steps.'


def test_a_folder_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(BadPipeline, match="cannot be read as UTF-8 text"):
        read_text(tmp_path, error=BadPipeline)


HOSTILE = {
    "a list as a key": "? [a]\n: 1",
    "a mapping as a key": "? {a: 1}\n: 1",
    "a number as a key": "1: a",
    "3,000 brackets": "a: " + "[" * 3000 + "]" * 3000,
    "60 levels": "a: " + "[" * 60 + "]" * 60,
    "a timestamp's tag": "a: !!timestamp x",
    "a binary": "a: !!binary /w==",
    "a set": "a: !!set {b}",
    "a boolean that is none": "a: !!bool x",
    "an empty number": "a: !!int ''",
    "a value that holds itself": "a: &a {x: *a}",
    "a list that holds itself": "a: &a [*a]",
    "half a character": 'a: "\\ud800"',
    "half a character in a key": '"\\ud800": a',
    "a NUL": 'a: "\\0"',
    "a number of thousands of digits": "a: " + "9" * 5000,
    "a hexadecimal number of thousands of digits": "a: 0x" + "f" * 5000,
    "a character beyond all": 'a: "\\U00110000"',
    "a thousand million laughs": "a0: &a0 [lol, lol]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_file_is_one_line(name: str) -> None:
    with pytest.raises(BadPipeline) as caught:
        parse_yaml(HOSTILE[name], source="file.yaml", error=BadPipeline)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("file.yaml ")
    assert len(str(caught.value)) < 300


def test_a_date_is_text_and_anchors_are_read() -> None:
    text = "a: 2001-13-45\nb: 2001-12-14\nc: &c {x: 1}\nd: {<<: *c, y: 2}\n"
    value = parse_yaml(text, source="file.yaml", error=BadPipeline)
    assert value == {"a": "2001-13-45", "b": "2001-12-14", "c": {"x": 1}, "d": {"x": 1, "y": 2}}


def test_a_number_that_is_not_finite_is_no_value() -> None:
    with pytest.raises(BadPipeline, match="finite"):
        check_value(float("nan"), float, key="option a", error=BadPipeline)
    with pytest.raises(BadPipeline, match="finite"):
        check_value([1.0, float("inf")], tuple[float, ...], key="option a", error=BadPipeline)


def test_a_dataclass_and_a_form_are_kinds_like_others() -> None:
    @dataclass(frozen=True)
    class Point:
        x: int

    assert check_value({"x": 1}, Point, key="point", error=BadPipeline) == Point(1)
    assert check_value({"steps": 3}, Inner, key="inner", error=BadPipeline) == Inner(steps=3)
