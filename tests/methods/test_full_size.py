"""Closed forms on whole files of SD 1.x and SDXL at full size, with CLIP's own tokens: read, edited, written, read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors import safe_open

from erase.export.checkpoint import checkpoint
from erase.methods.uce import UCE
from erase.models import Model, open_model
from erase.models.storage.stored import read_header
from erase.task import Target, Task
from tests.loading import load_script
from tests.methods.formulas import relative, ridge_step

SCRIPT = Path(__file__).parents[2] / "scripts" / "full_size.py"
TASK = Task((Target("van gogh", "style", "a painter", prompts=("a starry night by {}",)),), keeps=("claude monet",))
PROMPTS = ("a starry night by van gogh", "a starry night by a painter", "claude monet")
SITES = {"sd1": (32, 768), "sdxl": (140, 2048)}


@pytest.fixture(scope="module")
def full_size() -> ModuleType:
    return load_script(SCRIPT)


@pytest.fixture(params=sorted(SITES))
def source(request: pytest.FixtureRequest, full_size: ModuleType, tmp_path: Path) -> Iterator[Path]:
    """A whole file, some gigabytes of it, which is removed at once."""
    file = tmp_path / f"{request.param}.safetensors"
    full_size.write_checkpoint(full_size.SHAPES[request.param], file)
    yield file
    file.unlink()


@pytest.mark.slow
def test_a_whole_file_is_edited_where_the_paper_says_and_nowhere_else(source: Path) -> None:
    model = open_model(source)
    edit = UCE(tokens="last", keep_tokens="last", protect="none")(model, TASK)
    count, width = SITES[source.stem]
    tokens = [site for site in model.sites() if site.reads == "tokens"]
    pooled = [site for site in model.sites() if site.reads == "pooled"]
    assert (len(tokens), {site.columns for site in tokens}) == (count, {width})
    assert set(edit.touches) == {site.name for site in (*tokens, *pooled)}
    encoding = model.encode(PROMPTS)
    # Start, then four words, then two: "gogh" and "painter" stand seventh, "monet" third.
    assert (encoding.lengths - 2).tolist() == [6, 6, 2]
    last = encoding.states[torch.arange(3), encoding.lengths - 2].double()
    check_layer(model, edit.text_maps[0].matrix(), tokens[-1].name, states=last)
    if pooled:
        assert encoding.pooled is not None
        check_layer(model, edit.text_maps[1].matrix(), pooled[0].name, states=encoding.pooled.double())
    written = checkpoint(model, edit, source.with_name("edited.safetensors"))
    try:
        check_file(source, written, changed=len(edit.touches))
        again = open_model(written)
        for name in edit.touches[:: len(edit.touches) // 8]:
            assert torch.equal(again.weight(name), edit.changed_tensor(name, model.weight(name)))
    finally:
        written.unlink()


def check_layer(model: Model, matrix: torch.Tensor, name: str, *, states: torch.Tensor) -> None:
    """A layer's edited weight is the paper's in float64; `states` are those of the target, the anchor and the keep."""
    weight = model.weight(name)[:, : len(matrix)].double()
    expected = ridge_step(weight, states[:1], states[1:2], keeps=states[2:], scales=(1.0, 1.0, 0.5))
    assert relative(weight, expected) > 1e-3
    assert relative(weight @ matrix, expected) < 1e-6


def check_file(source: Path, written: Path, *, changed: int) -> None:
    """All tensors of a file are the same bit for bit, but for so many."""
    with safe_open(source, framework="pt") as one, safe_open(written, framework="pt") as other:
        names = sorted(name for name in read_header(source)[0] if name != "__metadata__")
        assert sorted(other.keys()) == names
        different = [name for name in names if not torch.equal(one.get_tensor(name), other.get_tensor(name))]
    assert len(different) == changed
    assert all(".attn2.to_" in name or ".label_emb.0.0." in name for name in different)
