"""The model card of an exported folder says what it was made from, by what, and under which licence."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from erase.errors import BadOption
from erase.export.folder import folder
from erase.export.parts.card import front_matter
from erase.models import Model, open_model
from tests.export.test_lora import made

FIGURE: dict[str, Any] = {
    "name": "ua",
    "group": "target",
    "value": 0.875,
    "low": 0.75,
    "high": 0.95,
    "n": 24,
    "direction": "higher",
    "version": "1",
}


def scores(place: Path) -> str:
    figures = [FIGURE | {"side": "before", "value": 0.125}, FIGURE | {"side": "after"}]
    place.write_text(json.dumps({"figures": figures, "protocol": "canvas/emoji-v1"}), encoding="utf-8")
    return str(place)


def test_the_licence_and_its_link_are_inherited_and_the_base_is_named(tiny_copy: Path, tmp_path: Path) -> None:
    head = {"license": "other", "license_name": "openrail", "license_link": "https://example.org", "tags": ["mine"]}
    (tiny_copy / "README.md").write_text(f"---\n{yaml.safe_dump(head)}---\n# Base\n", encoding="utf-8")
    model = open_model(tiny_copy)
    out = folder(model, made(model), tmp_path / "out", base_model="someone/base")
    said = front_matter(out / "README.md")
    assert {key: said[key] for key in ("license", "license_name", "license_link")} == {
        key: head[key] for key in ("license", "license_name", "license_link")
    }
    assert said["base_model"] == "someone/base"
    assert said["base_model_relation"] == "finetune"
    assert said["pipeline_tag"] == "text-to-image"
    assert "mine" not in said["tags"]
    assert (out / "README.base.md").read_bytes() == (tiny_copy / "README.md").read_bytes()


def test_the_hub_reads_the_cards_metadata(model: Model, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    out = folder(model, made(model), tmp_path / "out", base_model="someone/base", licence="openrail")
    read = ModelCard.load(out / "README.md").data.to_dict()
    assert read["license"] == "openrail"
    assert read["base_model"] == "someone/base"
    assert read["tags"] == ["concept-erasure", "uce"]


def test_it_is_short_and_shows_figures_before_and_after(model: Model, tmp_path: Path) -> None:
    out = folder(model, made(model), tmp_path / "out", scores=scores(tmp_path / "scores.json"))
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "Erased: Ann Author (style, now blob)." in text
    assert "| target no longer seen (clean UA) | 12.5% | 87.5% | 75.0% to 95.0% | 24 |" in text
    assert "`canvas/emoji-v1`" in text
    assert len([line for line in text.partition("\n---\n")[2].splitlines() if line]) <= 20


def test_the_whole_recipe_lies_beside_it(model: Model, tmp_path: Path) -> None:
    out = folder(model, made(model), tmp_path / "out")
    recipe = yaml.safe_load((out / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["options"] == {"lamb": 0.5}
    assert recipe["content"] == made(model).content
    assert recipe["task"]["targets"][0]["name"] == "Ann Author"


def test_the_code_on_it_loads_the_model(model: Model, tmp_path: Path) -> None:
    out = folder(model, made(model), tmp_path / "out")
    code = (out / "README.md").read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    loading = code.partition("pipe(")[0].replace("PATH OR ID OF THIS MODEL", out.as_posix())
    found: dict[str, Any] = {}
    exec(loading.replace('")', '", safety_checker=None)'), found)
    changed = made(model).touches[0].removeprefix("unet.")
    assert not found["pipe"].unet.state_dict()[changed].equal(model.weight(f"unet.{changed}"))


def test_the_runs_picture_is_on_it_unless_it_shows_what_is_unsafe_or_redacted(model: Model, tmp_path: Path) -> None:
    edit, file = made(model), scores(tmp_path / "scores.json")
    (tmp_path / "grid.png").write_bytes(b"a picture")
    out = folder(model, edit, tmp_path / "out", scores=file)
    assert (out / "grid.png").read_bytes() == b"a picture"
    assert "(grid.png)" in (out / "README.md").read_text(encoding="utf-8")
    task = {"targets": [{"name": "bomb", "kind": "unsafe", "anchor": "apple"}]}
    unsafe = replace(edit, info=replace(edit.info, task=task))
    for name, one, options in (("unsafe", unsafe, {}), ("redacted", edit, {"redact": "secret"})):
        other = folder(model, one, tmp_path / name, scores=file, **options)
        assert not (other / "grid.png").exists()
        assert "grid.png" not in (other / "README.md").read_text(encoding="utf-8")
    with pytest.raises(BadOption, match="does not exist"):
        folder(model, edit, tmp_path / "none", picture=str(tmp_path / "none.png"))


def test_a_recipe_and_a_picture_of_the_source_are_kept_under_other_names(tiny_copy: Path, tmp_path: Path) -> None:
    (tiny_copy / "recipe.yaml").write_text("mine", encoding="utf-8")
    model = open_model(tiny_copy)
    out = folder(model, made(model), tmp_path / "out")
    assert (out / "recipe.base.yaml").read_text(encoding="utf-8") == "mine"
    assert json.loads((out / "manifest.json").read_text(encoding="utf-8"))["renamed"] == {
        "recipe.base.yaml": "recipe.yaml"
    }


def test_redacted_names_are_in_no_file_of_the_folder(model: Model, tmp_path: Path) -> None:
    edit = made(model)
    seen = {"shares": {"shown": "a painting by Ann Author"}}
    edit = replace(edit, info=replace(edit.info, options={"attributes": ["Ann Author, old"]}, record=seen))
    out = folder(model, edit, tmp_path / "out", redact="secret")
    for file in (out / "README.md", out / "manifest.json", out / "recipe.yaml"):
        text = file.read_text(encoding="utf-8")
        assert "Ann" not in text
        assert "hmac:" in text
    again = folder(model, edit, tmp_path / "again", redact="secret")
    assert (again / "README.md").read_bytes() == (out / "README.md").read_bytes()  # who knows the secret can check


def test_a_concept_cannot_break_the_table_or_the_metadata(model: Model, tmp_path: Path) -> None:
    edit, name = made(model), "a|b\n---\nlicense: mit\n<script>"
    task = {"targets": [{"name": name, "kind": "style", "anchor": ""}]}
    out = folder(model, replace(edit, info=replace(edit.info, task=task)), tmp_path / "out", licence="openrail")
    text = (out / "README.md").read_text(encoding="utf-8")
    assert front_matter(out / "README.md")["license"] == "openrail"
    row = next(line for line in text.splitlines() if line.startswith("Erased"))
    assert row.startswith(r"Erased: a\|b --- license: mit &lt;script> (style, now nothing).")


def test_a_missing_licence_is_told(model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        folder(model, made(model), tmp_path / "out")
    assert "names its licence" in caplog.text


def test_scores_that_are_none_are_refused_before_anything_is_left(model: Model, tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text("[]", encoding="utf-8")
    with pytest.raises(BadOption, match="no scores"):
        folder(model, made(model), tmp_path / "out", scores=str(tmp_path / "scores.json"))
    assert not (tmp_path / "out").exists()


def test_without_a_card_the_sources_own_stays(tiny_copy: Path, tmp_path: Path) -> None:
    (tiny_copy / "README.md").write_text("mine", encoding="utf-8")
    model = open_model(tiny_copy)
    assert (folder(model, made(model), tmp_path / "out", card=False) / "README.md").read_text(
        encoding="utf-8"
    ) == "mine"


@pytest.mark.parametrize("text", ["", "# no metadata", "---\n: : :\n---\n", "---\n- a list\n---\n", "---\nno end"])
def test_an_odd_card_gives_no_metadata(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert front_matter(tmp_path / "README.md") == {}
