"""The script that builds a prior from a file of captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from erase.errors import BadPrompts
from erase.methods.closed_form.prior import load_prior
from erase.models import Model
from tests.loading import load_script

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "build_prior.py"


@pytest.fixture
def script() -> Any:
    return load_script(SCRIPT)


def test_captions_are_read_from_lines_columns_and_annotations(script: Any, tmp_path: Path) -> None:
    coco = {"annotations": [{"caption": "a cat"}, {"caption": "a dog "}, {"image_id": 1}]}
    files = {"a.txt": "a cat\n\n a dog\n", "b.csv": "id,caption\n1,a cat\n2,a dog\n", "c.json": json.dumps(coco)}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert script.read_captions(tmp_path / name) == ["a cat", "a dog"]


def test_a_file_without_captions_is_an_error(script: Any, tmp_path: Path) -> None:
    for name, text in {"a.txt": "\n", "b.csv": "id,title\n1,x\n", "c.json": "{}"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(BadPrompts, match="caption"):
            script.read_captions(tmp_path / name)


def test_it_writes_a_prior_that_its_model_takes_and_tells_what_was_left_out(
    script: Any, model: Model, tmp_path: Path, *, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    captions, out = tmp_path / "captions.txt", tmp_path / "prior.safetensors"
    captions.write_text(f"a cat\na dog\n{'cat ' * 40}\n", encoding="utf-8")
    monkeypatch.setattr(
        "sys.argv",
        ["build_prior.py", "--model", str(model.path), "--captions", str(captions), "--out", str(out), "--layer", "0"],
    )
    script.main()
    assert load_prior(out, model).source.captions == 2
    assert load_prior(out, model).inner
    assert "1 too long, left out" in capsys.readouterr().out
