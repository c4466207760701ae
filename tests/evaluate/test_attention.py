"""The attention backend is sdpa unless asked otherwise, and what cannot run here is refused in one line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from erase.errors import BadOption, MissingExtra
from erase.evaluate.attention import check_attention, use_attention
from erase.evaluate.sampler import Sampler
from erase.models import Model
from tests.recipes import refused, tiny_recipe, write_recipe

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_sdpa_is_the_default_and_what_a_unet_uses(model: Model) -> None:
    pipe = model.pipeline()
    use_attention(pipe, Sampler().attention)
    kinds = {type(processor) for processor in pipe.unet.attn_processors.values()}
    assert kinds == {AttnProcessor2_0}


def test_xformers_without_cuda_is_one_line_before_anything_is_written(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    recipe = tiny_recipe(tmp_path, tiny_model)
    recipe["generate"]["attention"] = "xformers"
    line = refused(capsys, "run", write_recipe(tmp_path, recipe), "-o", tmp_path / "run")
    assert "needs a CUDA device" in line
    assert "sdpa" in line
    assert not (tmp_path / "run").exists()


def test_xformers_that_is_not_installed_names_the_extra(cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"erase\[xformers\]"):
        check_attention("xformers")


def test_xformers_is_switched_on_by_the_call_that_works_on_unets(cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    called: list[str] = []
    pipe = SimpleNamespace(
        device=torch.device("cuda"), enable_xformers_memory_efficient_attention=lambda: called.append("xformers")
    )
    use_attention(pipe, "xformers")
    assert called == ["xformers"]
    with pytest.raises(BadOption, match="the model is on cpu"):
        use_attention(SimpleNamespace(device=torch.device("cpu")), "xformers")


def test_an_unknown_backend_is_answered_with_all(capsys: Capture, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="sdpa, xformers"):
        check_attention("flash")
    recipe = tiny_recipe(tmp_path, tiny_model)
    recipe["generate"]["attention"] = "flash"
    assert "generate.attention" in refused(capsys, "run", write_recipe(tmp_path, recipe), "-o", tmp_path / "run")
