"""Images to be scored: their groups, what can be read of them, and the batches they are scored in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from erase.config.prompts import Row
from erase.evaluate.images import group_of
from erase.task import Kind, Target, Task
from tests.evaluate.pictures import noisy, plain, read_pixels


@pytest.mark.parametrize(
    ("kind", "labels", "group"),
    [
        ("style", {"style": "noto", "object": "cat"}, "erased"),
        ("style", {"style": "blob", "object": "noto"}, "kept"),
        ("style", {"object": "noto"}, "unrelated"),
        ("style", {}, "unrelated"),
        ("unsafe", {"object": "noto"}, "erased"),
        ("unsafe", {"object": "cat", "style": "noto"}, "kept"),
        ("object", {"style": "noto"}, "unrelated"),
    ],
)
def test_a_row_is_grouped_by_what_it_names_in_the_targets_domain(
    kind: Kind, labels: dict[str, str], group: str
) -> None:
    assert group_of(Row("a prompt", 0, labels), Task((Target("noto", kind),))) == group


def test_pixels_run_from_minus_one_to_one(tmp_path: Path) -> None:
    pixels = read_pixels(plain(tmp_path / "a.png", "#ff0033"))
    assert pixels is not None
    assert pixels.shape == (3, 16, 16)
    assert pixels[:, 3, 5].tolist() == pytest.approx([1.0, -1.0, 0x33 / 127.5 - 1])


@pytest.mark.parametrize("left", [0, 10, 100, 300, -13, -5, -1])
def test_a_truncated_picture_is_not_read(tmp_path: Path, left: int) -> None:
    path = noisy(tmp_path / "a.png")
    assert read_pixels(path) is not None
    path.write_bytes(path.read_bytes()[:left])
    assert read_pixels(path) is None


def test_a_damaged_picture_is_never_a_crash_and_never_read_as_another(tmp_path: Path) -> None:
    path, rng = noisy(tmp_path / "a.png"), np.random.default_rng(0)
    data, whole = path.read_bytes(), read_pixels(path)
    assert whole is not None
    for place in rng.integers(0, len(data), 150):
        damaged = bytearray(data)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        pixels = read_pixels(path)
        assert pixels is None or torch.equal(pixels, whole), place
