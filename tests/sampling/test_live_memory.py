"""A picture's predicted memory against what networks of published size hold at once, counted without values."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, SD3Transformer2DModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from erase.sampling.memory import ROOM, decoded_bytes, image_bytes
from tests.models.test_full_size import backbone

pytestmark = pytest.mark.filterwarnings("ignore")


class Live(TorchDispatchMode):
    """Counts the numbers in all tensors that are alive, those of a network left out."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        own = [*network.parameters(), *network.buffers()]
        self.own = {value.untyped_storage()._cdata for value in own}
        self.now = self.most = 0
        self.held: dict[int, list[int]] = {}  # a storage's numbers and by how many tensors it is held

    def let_go(self, storage: int) -> None:
        self.held[storage][1] -= 1
        if not self.held[storage][1]:
            self.now -= self.held.pop(storage)[0]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for value in (leaf for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)):
            storage = value.untyped_storage()
            if storage._cdata in self.own:
                continue
            if storage._cdata not in self.held:
                self.held[storage._cdata] = [storage.nbytes() // 4, 0]
                self.now += storage.nbytes() // 4
                self.most = max(self.most, self.now)
            self.held[storage._cdata][1] += 1
            weakref.finalize(value, self.let_go, storage._cdata)
        return made


def at_most(network: torch.nn.Module, call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """Numbers alive at once at most; attention is counted as on a card, which never holds the whole matrix."""

    def attended(query: Any = None, *rest: Any, **more: Any) -> Any:
        return torch.empty_like(query)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attended)
    with torch.no_grad(), Live(network) as live:
        call()
    return live.most


def blank(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta")


@pytest.mark.parametrize(
    ("family", "side", "width"),
    [("stable-diffusion", 64, 768), ("stable-diffusion-2", 96, 1024), ("stable-diffusion-xl", 128, 2048)],
)
def test_a_unet_holds_what_is_predicted(family: str, side: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        unet = backbone(family)
    more = {"added_cond_kwargs": {"text_embeds": blank(1, 1280), "time_ids": blank(1, 6)}} if "xl" in family else {}
    time = torch.tensor(1, device="meta")
    counted = at_most(unet, lambda: unet(blank(1, 4, side, side), time, blank(1, 77, width), **more), monkeypatch)
    assert image_bytes(unet.config, side**2) / ROOM == pytest.approx(counted, rel=0.15)


def test_flux_holds_what_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        network = FluxTransformer2DModel(guidance_embeds=True, num_layers=1, num_single_layers=1)

    def call() -> None:
        network(
            blank(1, 4096, 64),
            encoder_hidden_states=blank(1, 512, 4096),
            pooled_projections=blank(1, 768),
            timestep=blank(1),
            guidance=blank(1),
            img_ids=blank(4096, 3),
            txt_ids=blank(512, 3),
        )

    counted = at_most(network, call, monkeypatch)
    assert image_bytes(network.config, 128**2) / ROOM == pytest.approx(counted, rel=0.15)


@pytest.mark.parametrize("heads", [24, 38])  # of medium and of 3.5 large
def test_stable_diffusion_3_holds_what_is_predicted(heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        network = SD3Transformer2DModel(
            num_layers=2, num_attention_heads=heads, caption_projection_dim=64 * heads, pos_embed_max_size=192
        )
    given = (blank(1, 16, 128, 128), blank(1, 333, 4096), blank(1, 2048), blank(1))
    counted = at_most(network, lambda: network(*given), monkeypatch)
    assert image_bytes(network.config, 128**2, words=333) / ROOM == pytest.approx(counted, rel=0.15)


def test_a_decoder_holds_what_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        decoder = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
    counted = at_most(decoder, lambda: decoder.decode(blank(1, 4, 128, 128)), monkeypatch)
    assert decoded_bytes(decoder.config, 1024**2) / ROOM == pytest.approx(counted, rel=0.15)
