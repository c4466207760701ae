"""Every family: its sites, its encoding and its fingerprint against its own diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from erase.edit import Edit, EditInfo, TextMap
from erase.errors import BadModel, CannotEdit, PromptTooLong
from erase.models import Condition, Model, conditions_of, fingerprint_of, open_model
from tests.families import Opener
from tests.models.probes import condition_of, record, record_held, run
from tests.tiny_families import FAMILIES

PROMPTS = ["a cat in noto style", "", "zygote !", "dog"]
WIDTHS = {
    "stable-diffusion": (32, None),
    "stable-diffusion-2": (64, None),
    "stable-diffusion-xl": (80, 24),
    "stable-diffusion-3": (96, 40),
    "flux": (64, 32),
}


def encode_by_pipeline(pipe: Any, prompts: list[str]) -> tuple[Tensor, Tensor | None]:
    """States and pooled states of the family's own `encode_prompt`."""
    name = type(pipe).__name__
    with torch.inference_mode():
        if name == "StableDiffusionPipeline":
            return pipe.encode_prompt(prompts, "cpu", 1, False)[0], None
        if name == "FluxPipeline":
            return pipe.encode_prompt(prompts, None, device="cpu")[:2]
        more = [None, None] if name == "StableDiffusion3Pipeline" else [None]
        states, _, pooled, _ = pipe.encode_prompt(prompts, *more, device="cpu", do_classifier_free_guidance=False)
        return states, pooled


def read_of(model: Model, reads: str) -> set[str]:
    """The modules of the sites that read something, named as the backbone names them."""
    return {site.key.removesuffix(".weight") for site in model.sites() if site.reads == reads}


def changed_inputs(backbone: Any, condition: Condition, *, other: Condition, pipe: Any) -> dict[str, Tensor]:
    """Which linear layers' inputs differ between two conditions, and where, if no layer's output may change."""
    before = record(backbone, lambda: run(pipe, condition))
    after = record_held(backbone, lambda: run(pipe, other), before)
    assert set(before) == set(after)
    moved = {name: (after[name] != before[name][0]).flatten(0, -2).any(0) for name in after}
    return {name: columns for name, columns in moved.items() if columns.any()}


def test_every_family_is_recognised_in_its_files(family_model: Opener) -> None:
    assert [family_model(family).family for family in FAMILIES] == list(FAMILIES)


def test_sites_that_read_tokens_are_exactly_the_layers_a_tokens_state_enters(each_model: Model, each_pipe: Any) -> None:
    condition = condition_of(each_model, "a cat")
    states = condition.states.clone()
    states[:, 2] += 1.0
    backbone = getattr(each_pipe, each_model.backbone)
    changed = changed_inputs(backbone, condition, other=replace(condition, states=states), pipe=each_pipe)
    assert changed
    assert set(changed) == read_of(each_model, "tokens")
    assert all(columns.all() for columns in changed.values())


def test_sites_that_read_the_pooled_state_are_exactly_the_layers_it_enters(each_model: Model, each_pipe: Any) -> None:
    condition = condition_of(each_model, "a cat")
    if condition.pooled is None:
        assert read_of(each_model, "pooled") == set()
        return
    backbone, other = getattr(each_pipe, each_model.backbone), replace(condition, pooled=condition.pooled + 1.0)
    changed = changed_inputs(backbone, condition, other=other, pipe=each_pipe)
    assert len(changed) == 1
    assert set(changed) == read_of(each_model, "pooled")
    site = next(site for site in each_model.sites() if site.reads == "pooled")
    (columns,) = changed.values()
    assert columns.tolist() == [True] * site.width + [False] * site.others


def test_transformers_have_layers_that_read_a_stream_and_unets_have_none(each_model: Model) -> None:
    assert bool(read_of(each_model, "stream")) == (each_model.backbone == "transformer")


@pytest.mark.parametrize("family", ["stable-diffusion-3", "flux"])
def test_layers_that_read_a_stream_are_reached_through_the_others_alone(
    family: str, family_model: Opener, pipe_of: Callable[[str], Any]
) -> None:
    model, pipe = family_model(family), pipe_of(family)
    backbone, condition = pipe.transformer, condition_of(model, "a cat")
    before = record(backbone, lambda: run(pipe, condition))
    other = replace(condition, states=condition.states + 1.0)
    entries, streams = read_of(model, "tokens"), read_of(model, "stream")
    free = record_held(backbone, lambda: run(pipe, other), {})
    held = record_held(backbone, lambda: run(pipe, other), {name: before[name] for name in entries})
    for name in streams:
        assert not torch.equal(free[name], before[name][0])
        assert torch.equal(held[name], before[name][0])


def test_rows_columns_and_biases_are_those_of_the_loaded_layers(each_model: Model, each_pipe: Any) -> None:
    backbone = getattr(each_pipe, each_model.backbone)
    width, pooled = WIDTHS[each_model.family]
    assert each_model.sites()
    for site in each_model.sites():
        layer = backbone.get_submodule(site.key.removesuffix(".weight"))
        assert (site.rows, site.columns) == tuple(layer.weight.shape)
        assert site.biased == (layer.bias is not None)
        assert site.reads == "stream" or site.width == (width if site.reads == "tokens" else pooled)


def test_no_backbone_is_made_to_list_sites(family_model: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "__init__", None)
    for family in FAMILIES:
        model = family_model(family)
        assert type(model)(model.source).sites()


def test_prompts_are_encoded_as_the_pipeline_encodes_them(each_model: Model, each_pipe: Any) -> None:
    states, pooled = encode_by_pipeline(each_pipe, PROMPTS)
    encoding = each_model.encode(PROMPTS)
    assert encoding.states.dtype == torch.float32
    torch.testing.assert_close(encoding.states, states, rtol=0, atol=1e-6)
    width, pooled_width = WIDTHS[each_model.family]
    assert encoding.states.shape[-1] == width
    if pooled is None:
        assert encoding.pooled is None
        return
    assert encoding.pooled is not None
    assert encoding.pooled.shape == (len(PROMPTS), pooled_width)
    torch.testing.assert_close(encoding.pooled, pooled, rtol=0, atol=1e-6)


def test_positions_states_and_mask_are_aligned(each_model: Model) -> None:
    encoding = each_model.encode(PROMPTS)
    assert encoding.states.shape[:2] == encoding.ids.shape == encoding.mask.shape
    assert sum(part.ids.shape[1] for part in encoding.parts) == encoding.ids.shape[1]
    for part in encoding.parts:
        assert part.mask.sum(1).tolist() == part.lengths.tolist()
        assert part.last[1] == -1
        word = part.ids[3, part.last[3]]
        assert (part.ids[3] == word).sum() == 1
        assert (part.ids[1] == word).sum() == 0


def test_states_before_the_first_differing_position_are_the_same(each_model: Model) -> None:
    encoding = each_model.encode(["a cat in noto style", "a cat in blob style"])
    for part in encoding.parts:
        first = part.first_difference(0, 1)
        assert first == (4 if part.causal else 0)
        assert torch.equal(part.states[0, :first], part.states[1, :first])
        assert not torch.equal(part.states[0, first], part.states[1, first])


def test_a_prompt_that_a_text_encoder_would_cut_is_refused(each_model: Model) -> None:
    with pytest.raises(PromptTooLong, match="shorten it"):
        each_model.encode(["cat " * (each_model.max_tokens + 1)])
    each_model.check_prompts(["cat " * (each_model.max_tokens - 2)])


def test_a_prompt_that_is_too_long_is_cut_as_the_pipeline_cuts_it(each_model: Model, each_pipe: Any) -> None:
    prompts = ["a rose " * each_model.max_tokens, "a cat"]
    states, pooled = encode_by_pipeline(each_pipe, prompts)
    encoding = each_model.encode(prompts, cut=True)
    torch.testing.assert_close(encoding.states, states, rtol=0, atol=1e-6)
    assert [each_model.is_cut(prompt) for prompt in prompts] == [True, False]
    if pooled is not None:
        torch.testing.assert_close(encoding.pooled, pooled, rtol=0, atol=1e-6)


def inverted(pipe: Any) -> Any:
    """The pipeline with a token of three vectors and one of one in each of its encoders, as diffusers loads them."""
    generator = torch.Generator().manual_seed(1)
    for number in ("", "_2", "_3"):
        encoder, tokenizer = (getattr(pipe, f"{what}{number}", None) for what in ("text_encoder", "tokenizer"))
        if encoder is not None:
            table = encoder.get_input_embeddings()
            tokenizer.add_tokens(["<cat-toy>", "<cat-toy>_1", "<cat-toy>_2", "<hat>"])
            encoder.resize_token_embeddings(len(tokenizer))
            added = encoder.get_input_embeddings().weight.data[-4:]
            added.copy_(torch.randn(added.shape, generator=generator) * table.weight.std())
    return pipe


def test_textual_inversions_of_several_vectors_are_encoded_as_the_pipeline_encodes_them(
    each_model: Model, tmp_path: Path
) -> None:
    inverted(each_model.pipeline()).save_pretrained(tmp_path / "inverted")
    model = open_model(tmp_path / "inverted")
    prompts = ["<cat-toy>", "a <cat-toy> in <hat> style", "<hat>", "<cat-toy> " * 12, "a cat"]
    pipe = model.pipeline()
    states, pooled = encode_by_pipeline(pipe, prompts)
    encoding = model.encode(prompts, cut=True)
    torch.testing.assert_close(encoding.states, states, rtol=0, atol=1e-6)
    if pooled is not None:
        torch.testing.assert_close(encoding.pooled, pooled, rtol=0, atol=1e-6)
    sampled = Condition.stack([conditions_of(pipe, [prompt])[prompt] for prompt in prompts])
    torch.testing.assert_close(sampled.states, states, rtol=0, atol=1e-6)
    longer = int(encoding.lengths[0] - encoding.lengths[2])
    assert longer == (0 if model.family == "stable-diffusion-3" else 2)


def test_flux_takes_prompts_that_only_clip_would_cut(family_model: Opener, pipe_of: Callable[[str], Any]) -> None:
    prompt = "cat " * 40
    states, pooled = encode_by_pipeline(pipe_of("flux"), [prompt])
    encoding = family_model("flux").encode([prompt])
    torch.testing.assert_close(encoding.states, states, rtol=0, atol=1e-6)
    torch.testing.assert_close(encoding.pooled, pooled, rtol=0, atol=1e-6)


def test_a_loaded_pipeline_has_its_models_fingerprint(each_model: Model, each_pipe: Any) -> None:
    assert fingerprint_of(each_pipe) == each_model.fingerprint


def test_every_site_and_text_encoder_is_in_the_fingerprint(each_model: Model) -> None:
    pipe = each_model.pipeline()
    seen = {each_model.fingerprint}
    layers = {site.reads: getattr(pipe, each_model.backbone).get_parameter(site.key) for site in each_model.sites()}
    texts = [next(getattr(pipe, name).parameters()) for name in each_model.text_components]
    for parameter in [*layers.values(), *texts]:
        parameter.data[0] += 1.0
        seen.add(fingerprint_of(pipe))
    assert len(seen) == 1 + len(layers) + len(texts)


def test_an_edit_is_applied_to_a_pipeline_of_another_purpose_too(each_model: Model, each_pipe: Any) -> None:
    import diffusers

    name = type(each_pipe).__name__.replace("Pipeline", "Img2ImgPipeline")
    more = {"requires_safety_checker": False} if each_model.texts[-1].encoder == "text_encoder" else {}
    other = getattr(diffusers, name)(**each_pipe.components, **more)
    assert fingerprint_of(other) == each_model.fingerprint


def test_a_pipeline_without_its_text_encoder_is_refused_by_name(family_model: Opener) -> None:
    pipe = family_model("flux").pipeline()
    pipe.text_encoder_2 = None
    with pytest.raises(BadModel, match="FluxPipeline has not the parts"):
        fingerprint_of(pipe)


@pytest.mark.parametrize("reads", ["tokens", "pooled"])
def test_a_map_in_the_weights_is_a_map_of_the_states(each_model: Model, each_pipe: Any, reads: Any) -> None:
    if not read_of(each_model, reads):
        assert reads == "pooled"
        assert each_model.encode([""]).pooled is None
        return
    sites = each_model.sites_that_read(reads, method="a test")
    generator = torch.Generator().manual_seed(2)
    up, down = (torch.randn(sites[0].width, 2, generator=generator) for _ in range(2))
    text_map = TextMap(up, down.T.contiguous() * 0.1, tuple(site.name for site in sites))
    edit = Edit(EditInfo("test", {}, {}, each_model.family, each_model.fingerprint), (text_map,))
    pipe, condition = each_pipe, condition_of(each_model, "a cat")
    mapped = apply_map(text_map.matrix().float(), condition, reads)
    expected, plain = run(pipe, mapped), run(pipe, condition)
    with edit.apply(pipe):
        torch.testing.assert_close(run(pipe, condition), expected, rtol=1e-4, atol=1e-4)
    assert (plain - expected).abs().max() > 1e-3
    assert torch.equal(run(pipe, condition), plain)


def apply_map(matrix: Tensor, condition: Condition, reads: str) -> Condition:
    if reads == "tokens":
        return replace(condition, states=condition.states @ matrix.T)
    assert condition.pooled is not None
    return replace(condition, pooled=condition.pooled @ matrix.T)


def test_a_method_that_finds_none_of_its_weights_says_so_by_name(family_model: Opener) -> None:
    with pytest.raises(CannotEdit, match=r"time cannot edit flux: .* value of tokens, .* flux model are embed of"):
        family_model("flux").sites_that_read("tokens", role="value", method="time")
    with pytest.raises(CannotEdit, match=r"ours cannot edit stable-diffusion-2: .* pooled"):
        family_model("stable-diffusion-2").sites_that_read("pooled", method="ours")
