"""Trains the transformer of `emoji-flow` on the icons' latents and captions; the rest of it is `emoji`'s own.

OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 scripts/embedded/train_flow.py flow --threads 1 --batch 16
OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 scripts/embedded/train_flow.py described --threads 1 --batch 16

The second stage goes on from the first with more captions that describe without naming, which are learnt last.
"""

from __future__ import annotations

import copy
import math
import os
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from captions import Words, caption, implicit_caption, load_descriptions, load_words
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from train_reader import EMOJI, POOLED, WIDTH, Reader, build_reader
from train_unet import average_gradients, trained
from training import PLACES, Stage, average_into, in_bfloat16, load_icons, options, shifted
from transformers import CLIPTextModel, CLIPTokenizer

# Shares of captions: both named, object only, style only, described, empty. Then steps and learning rate.
STAGES = {
    "flow": (np.array([0.57, 0.05, 0.03, 0.25, 0.10]), 8000, 1e-3),
    "described": (np.array([0.41, 0.02, 0.02, 0.47, 0.08]), 3000, 5e-4),
}
LONGEST = 256  # zeros that the pipeline appends for a T5 that is not there, if it is not told otherwise


def build_transformer() -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=8,
        out_channels=8,
        num_layers=6,
        attention_head_dim=38,
        num_attention_heads=4,
        joint_attention_dim=192 + WIDTH,
        caption_projection_dim=152,
        pooled_projection_dim=192 + POOLED,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )


class Counted:
    """Joint attention whose last text token counts as often as `times` says, one number a picture.

    Text has no positions here, so the zeros behind it stay equal to each other through all blocks: n of them are
    one whose attention logits have log n added. So every length is trained at the price of one token.
    """

    def __init__(self) -> None:
        self.times = torch.ones(1)

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any
    ) -> tuple[Tensor, Tensor]:
        def heads(states: Tensor, projection: Any, norm: Any = None) -> Tensor:
            split = projection(states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            return split if norm is None else norm(split)

        image, text = hidden_states, encoder_hidden_states
        query = torch.cat([heads(image, attn.to_q, attn.norm_q), heads(text, attn.add_q_proj, attn.norm_added_q)], 2)
        key = torch.cat([heads(image, attn.to_k, attn.norm_k), heads(text, attn.add_k_proj, attn.norm_added_k)], 2)
        value = torch.cat([heads(image, attn.to_v), heads(text, attn.add_v_proj)], 2)
        weight = torch.zeros(len(self.times), 1, 1, key.shape[2], dtype=query.dtype)
        weight[..., -1] = self.times.log()[:, None, None]
        mixed = scaled_dot_product_attention(query, key, value.to(query.dtype), attn_mask=weight)
        image, text = mixed.transpose(1, 2).flatten(2).split([image.shape[1], text.shape[1]], 1)
        return attn.to_out[0](image), text if attn.context_pre_only else attn.to_add_out(text)


@torch.inference_mode()
def latents_of(icons: Tensor) -> Tensor:
    """Latents of every icon at every place, [cells, places, 8, 8, 8], scaled as the pipeline has them."""
    vae = AutoencoderKL.from_pretrained(EMOJI / "vae", torch_dtype=torch.float32).eval()
    views = torch.stack([shifted(icons.flatten(0, 1), down, right) for down, right in PLACES], 1)
    parts = [vae.encode(part).latent_dist.mean for part in views.flatten(0, 1).split(50)]
    return torch.cat(parts).unflatten(0, (-1, len(PLACES))) * vae.config.scaling_factor


@dataclass(frozen=True)
class Captions:
    """Random captions of an icon: named, in part or in whole, described, or empty, in these shares."""

    shares: np.ndarray
    words: Words
    descriptions: Words

    def draw(self, cell: tuple[int, int], rng: np.random.Generator) -> str:
        style, thing = cell
        said = int(rng.choice(5, p=self.shares))
        if said == 3:
            return implicit_caption(self.words, self.descriptions, cell, rng=rng)[0]
        return caption(self.words, style if said in (0, 2) else None, thing if said in (0, 1) else None, rng=rng)


class Prompts:
    """Captions to what `StableDiffusion3Pipeline` makes of them with the encoders of `emoji-flow`, and no T5."""

    def __init__(self) -> None:
        self.tokenizer = CLIPTokenizer.from_pretrained(EMOJI / "tokenizer")
        self.encoder = CLIPTextModel.from_pretrained(EMOJI / "text_encoder", dtype=torch.float32).eval()
        self.reader = trained("reader", Reader(build_reader(self.tokenizer), load_words()), "model").encoder

    def fits(self, text: str) -> bool:
        return len(self.tokenizer(text, verbose=False)["input_ids"]) <= self.tokenizer.model_max_length

    @torch.no_grad()
    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """States of the tokens with one zero behind them, [texts, 33, 272], and the pooled state, [texts, 256]."""
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
        first, second = (one(tokens, output_hidden_states=True) for one in (self.encoder, self.reader))
        states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        states = torch.cat([states, torch.zeros_like(states[:, :1])], 1)
        return states, torch.cat([first.pooler_output, second.text_embeds], -1)


def main() -> None:
    which = sys.argv.pop(1)
    shares, steps, rate = STAGES[which]
    chosen = options(__doc__, steps=steps, batch=32, lr=rate)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        dist.init_process_group("gloo")
    latents, prompts = latents_of(load_icons()), Prompts()
    captions = Captions(shares, load_words(), load_descriptions())
    torch.manual_seed(chosen.seed)
    model, counted = build_transformer(), Counted()
    if which == "described":
        model = trained("flow", model, "average").train().requires_grad_(True)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    model.set_attn_processor(counted)
    optimizer = torch.optim.AdamW(model.parameters(), lr=chosen.lr, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    weights = {"model": model, "average": average}
    stage = Stage(which, weights, optimizer, chosen.steps, chosen.lr, quiet=rank > 0)

    def draw(cell: int, rng: np.random.Generator) -> str:
        while True:
            text = captions.draw(divmod(cell, len(captions.words.objects)), rng)
            if prompts.fits(text):
                return text

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng((chosen.seed, step, rank))
        cells = rng.integers(len(latents), size=chosen.batch)
        clean = latents[cells, rng.integers(latents.shape[1], size=chosen.batch)]
        states, pooled = prompts.encode([draw(int(cell), rng) for cell in cells])
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        time = torch.from_numpy(rng.standard_normal(chosen.batch, dtype=np.float32)).sigmoid()  # logit-normal
        noisy = torch.lerp(clean, noise, time[:, None, None, None])
        counted.times = torch.from_numpy(np.exp(rng.uniform(0, math.log(LONGEST), chosen.batch)).round()).float()
        with in_bfloat16():
            predicted = model(noisy, states, pooled, 1000 * time).sample
        error = (predicted.float() - (noise - clean)).square().mean()
        return error, {}

    reduce = (lambda: average_gradients(model)) if world > 1 else (lambda: None)
    stage.run(loss_of, lambda step: average_into(average, model, step, decay=0.999), reduce)


if __name__ == "__main__":
    main()
