"""Names resolve to files, and an unknown one is answered with the nearest and all."""

from __future__ import annotations

import pytest

from erase import registry
from erase.errors import UnknownName
from erase.methods.uce import UCE


def test_a_method_is_the_class_named_after_its_file() -> None:
    assert registry.load("methods", "uce") is UCE


def test_shared_files_have_no_name() -> None:
    assert "uce" in registry.known("methods")
    assert not any(name.startswith("_") for name in registry.known("methods"))


def test_an_unknown_name_is_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(UnknownName, match=r'method "ucee" does not exist; did you mean "uce"\? Known: .*uce'):
        registry.load("methods", "ucee")


def test_a_name_like_none_is_answered_with_all() -> None:
    error = registry.unknown("methods", "xyzzy")
    assert "did you mean" not in str(error)
    assert "uce" in str(error)


def test_data_lies_at_the_top_of_a_checkout() -> None:
    assert registry.data_folder("pipelines").is_dir()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("~nosuchuser/x", "home folder of nobody"),
        ("a" * 300, "too long"),
        ("b/" + "a" * 5000, "too long"),
        ("a\0b", "NUL"),
    ],
)
def test_a_path_that_no_file_can_have_is_one_line(given: str, told: str) -> None:
    with pytest.raises(UnknownName, match=told) as caught:
        registry.path_of(given)
    assert len(str(caught.value)) < 200


def test_an_unknown_name_of_thousands_of_letters_is_cut() -> None:
    assert len(str(registry.unknown("pipelines", "a" * 10_000))) < 1000
