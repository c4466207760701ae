"""Attention is sdpa unless asked otherwise, what cannot run here is refused in one line, and devices are not mixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from erase.config.prompts import Row
from erase.edit import Edit
from erase.errors import BadOption, MissingExtra
from erase.models import Condition, Model, conditions_of, predict
from erase.sampling.attention import check_attention, device_here, dtype_here, use_attention
from erase.sampling.draw import sample_batch
from erase.sampling.generate import image_id, sample
from erase.sampling.guides import PromptBatch, guide_of
from erase.sampling.sampler import Sampler
from tests.methods.test_contract import GUIDES, make
from tests.recipes import refused, tiny_recipe, write_recipe
from tests.tiny_edits import tiny_edit
from tests.tiny_families import FAMILIES

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


def test_xformers_that_is_not_installed_says_how_to_install_it(cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install xformers"):
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


def test_images_are_computed_on_cuda_where_it_is_and_are_then_others(model: Model, cuda: None) -> None:
    edit = tiny_edit(model)
    guided = Edit(edit.info, guidance=True)
    row, there = Row("a cat", 0), [None, edit, guided]
    on_cuda = [image_id(model, row, Sampler(), edit=one) for one in there]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        on_cpu = [image_id(model, row, Sampler(), edit=one) for one in there]
    assert len({*on_cuda, *on_cpu}) == 6


def test_each_launched_process_computes_on_its_own_card(
    cuda: None, monkeypatch: pytest.MonkeyPatch, model: Model
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    ranks = [{}, {"LOCAL_RANK": "0"}, {"LOCAL_RANK": "1"}, {"LOCAL_RANK": "2", "RANK": "6"}]
    assert [device_here(said) for said in ranks] == ["cuda", "cuda:0", "cuda:1", "cuda:0"]
    with pytest.raises(BadOption, match='LOCAL_RANK is "one"; expected a whole number'):
        device_here({"LOCAL_RANK": "one"})
    ids = set()
    for rank in ("0", "1"):  # an image is the same whichever card draws it
        monkeypatch.setenv("LOCAL_RANK", rank)
        ids.add(image_id(model, Row("a cat", 0), Sampler(), edit=None))
    assert len(ids) == 1


def test_a_mac_computes_on_its_own_card_unless_the_cpu_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device_here({}) == "mps"
    assert device_here({"CUDA_VISIBLE_DEVICES": ""}) == "cpu"  # which --device cpu sets


@pytest.mark.parametrize(("bfloat16", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_precision_is_what_the_card_computes_in(
    cuda: None, bfloat16: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bfloat16)
    assert dtype_here("auto") == dtype
    assert dtype_here("float32") == torch.float32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dtype_here("auto") == torch.float32


def test_images_are_sampled_on_the_card_of_the_launcher(
    cuda: None, monkeypatch: pytest.MonkeyPatch, model: Model
) -> None:
    moved: list[str] = []

    class Moved(Exception):
        pass

    def to(part: Any, device: str) -> None:
        moved.append(device)
        raise Moved

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.nn.Module, "to", to)
    for edit in (None, make("negative_prompt", model)):
        with pytest.raises(Moved):
            next(sample(model, [Row("a cat", 0)], Sampler(), edit=edit))
    assert moved == ["cuda:3", "cuda:3"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pipeline_is_given_states_on_its_own_device_and_in_its_own_dtype(
    family: str, family_model: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = family_model(family).pipeline()
    conditions = conditions_of(pipe, ["a cat"])
    pipe.to("meta", torch.bfloat16)  # no tensor of another device can be computed with one of this
    seen: list[torch.Tensor] = []

    def called(pipe: Any, **named: Any) -> SimpleNamespace:
        seen.extend(value for value in named.values() if isinstance(value, torch.Tensor))
        return SimpleNamespace(images=torch.zeros(2, 3, 16, 16))

    monkeypatch.setattr(type(pipe), "__call__", called)
    sample_batch(pipe, [Row("a cat", 0)] * 2, conditions=conditions, sampler=Sampler(steps=2))
    assert seen
    assert {(value.device.type, value.dtype) for value in seen} == {("meta", torch.bfloat16)}


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("method", [*GUIDES, "spm"])
def test_sampling_under_a_guide_mixes_no_devices(method: str, guidance: float, model: Model) -> None:
    prompts = ["a cat in noto style", "a dog"]
    pipe, guide = model.pipeline(), guide_of(make(method, model), model)
    states = Condition(model.encode(prompts).states)
    with torch.no_grad():
        guide.begin(
            pipe, PromptBatch(tuple(prompts), states, states, guidance)
        )  # prompts are looked at once, with values
    pipe.to("meta")
    states, latents = states.to(torch.device("meta")), torch.zeros(2, 4, 8, 8, device="meta")

    def ask(given: Sequence[Condition]) -> Sequence[torch.Tensor]:
        asked = Condition(torch.cat([one.states for one in given]))
        return predict(pipe, torch.cat([latents] * len(given)), torch.tensor(3), condition=asked).chunk(len(given))

    with guide.attached(pipe), torch.no_grad():
        guided = guide.begin(pipe, PromptBatch(tuple(prompts), states, states, guidance))
        assert guided.predict(ask, 0).device.type == "meta"
        assert guided.predict(ask, 1).shape == latents.shape


def test_an_unknown_backend_is_answered_with_all(capsys: Capture, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="sdpa, xformers"):
        check_attention("flash")
    recipe = tiny_recipe(tmp_path, tiny_model)
    recipe["generate"]["attention"] = "flash"
    assert "generate.attention" in refused(capsys, "run", write_recipe(tmp_path, recipe), "-o", tmp_path / "run")
