"""Edits are added on the command line as they are in the library, each at its strength."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from erase.cli.combine import parse_part
from erase.edit import Edit
from erase.errors import BadOption
from erase.models import Model, open_model
from tests.export.test_lora import made
from tests.recipes import command, refused
from tests.tiny import tiny_stable_diffusion

Capture = pytest.CaptureFixture[str]


def test_a_sum_is_the_librarys_sum(capsys: Capture, model: Model, tmp_path: Path) -> None:
    one, two, out = (tmp_path / f"{name}.safetensors" for name in ("one", "two", "out"))
    made(model).save(one)
    made(model, seed=1).save(two)
    assert command(capsys, "combine", one, f"{two}:-0.5", "-o", out).code == 0
    expected = made(model) + made(model, seed=1).scaled(-0.5)
    assert Edit.load(out).content == expected.content
    assert "exists already" in refused(capsys, "combine", one, "-o", out)


def test_subtracting_an_edit_again_leaves_the_other(capsys: Capture, model: Model, tmp_path: Path) -> None:
    one, two, out, rest = (tmp_path / f"{name}.safetensors" for name in ("one", "two", "out", "rest"))
    made(model).save(one)
    made(model, seed=1).save(two)
    command(capsys, "combine", one, two, "-o", out)
    assert command(capsys, "combine", out, f"{two}:-1", "-o", rest).code == 0
    name = model.sites()[0].name
    values = [Edit.load(file).changed_tensor(name, model.weight(name)) for file in (one, rest)]
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)


def test_edits_of_two_bases_are_refused(capsys: Capture, model: Model, tmp_path: Path) -> None:
    other = open_model(tiny_stable_diffusion(tmp_path / "other", seed=1))
    made(model).save(tmp_path / "one.safetensors")
    made(other).save(tmp_path / "two.safetensors")
    files = (tmp_path / "one.safetensors", tmp_path / "two.safetensors")
    assert "cannot be added" in refused(capsys, "combine", *files, "-o", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("text", ["a.safetensors:much", "a.safetensors:nan", "a.safetensors:inf", "a.safetensors:"])
def test_a_strength_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(BadOption, match="expected file:number"):
        parse_part(text)


def test_a_file_with_a_colon_in_its_name_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a:2"
    file.write_bytes(b"")
    assert parse_part(str(file)) == (file, 1.0)
    assert parse_part(f"{file}:3") == (file, 3.0)
