"""Trains the UNet on the icons' latents and captions; two processes of one thread each use two cores best.

OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 scripts/embedded/train_unet.py --threads 1
"""

from __future__ import annotations

import copy
import itertools
import os
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from captions import BOTH, OBJECT_ONLY, STYLE_ONLY, Words, fill, load_words
from diffusers import DDIMScheduler, UNet2DConditionModel
from icons import BUILD
from tokenizer import FOLDER
from torch import Tensor
from train_autoencoder import LATENTS, build_autoencoder
from train_clip import build_clip
from training import PLACES, Stage, average_into, load_icons, options, shifted
from transformers import CLIPTokenizer

SAID = np.array([0.70, 0.12, 0.08, 0.10])  # shares of captions: both, object only, style only, empty
SNR_LIMIT = 5.0


def build_unet() -> UNet2DConditionModel:
    blocks = (64, 128, 192)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENTS,
        out_channels=LATENTS,
        block_out_channels=blocks,
        layers_per_block=1,
        cross_attention_dim=192,
        attention_head_dim=(2, 4, 6),  # diffusers reads this as the number of heads
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D",) * len(blocks),
        up_block_types=("CrossAttnUpBlock2D",) * len(blocks),
    )


def build_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def trained(stage: str, module: torch.nn.Module, part: str) -> torch.nn.Module:
    """A module with the weights of a finished stage, frozen."""
    state = torch.load(BUILD / stage / "checkpoint.pt", weights_only=True)
    module.load_state_dict(state[part])
    return module.eval().requires_grad_(False)


@torch.inference_mode()
def latents_of(icons: Tensor) -> tuple[Tensor, float]:
    """Latents of every icon at every place, [cells, places, 8, 8, 8], of unit variance, and the scale for that."""
    encoder = trained("autoencoder", build_autoencoder(), "average")
    views = torch.stack([shifted(icons.flatten(0, 1), down, right) for down, right in PLACES], 1)
    parts = [encoder.encode(part).latent_dist.mean for part in views.flatten(0, 1).split(50)]
    latents = torch.cat(parts).unflatten(0, (-1, len(PLACES)))
    scale = 1 / latents.std().item()
    return latents * scale, scale


@dataclass(frozen=True)
class Captions:
    """All captions there are, encoded once: `states` [captions, tokens, width] bfloat16, and which say what."""

    states: Tensor
    rows: dict[tuple[str, ...], int]
    words: Words

    def draw(self, style: int, thing: int, rng: np.random.Generator) -> int:
        """The row of a random caption of one icon."""
        said = int(rng.choice(4, p=SAID))
        if said == 3:
            return self.rows[("",)]
        templates = (BOTH, OBJECT_ONLY, STYLE_ONLY)[said]
        template = templates[int(rng.integers(len(templates)))]
        return self.rows[
            (template, self._word(self.words.styles[style], rng), self._word(self.words.objects[thing], rng))
        ]

    def _word(self, words: tuple[str, ...], rng: np.random.Generator) -> str:
        return words[0] if rng.random() < 0.5 or len(words) == 1 else words[1 + int(rng.integers(len(words) - 1))]


def all_captions(words: Words) -> dict[tuple[str, ...], str]:
    """Every template with every word; a plural has no article."""
    texts: dict[tuple[str, ...], str] = {("",): ""}
    for template in (*BOTH, *OBJECT_ONLY, *STYLE_ONLY):
        for styles, things in itertools.product(words.styles, words.objects):
            for style, thing in itertools.product(styles, things):
                bare = template.replace("a {object}", "{object}") if thing == things[1] else template
                texts[(template, style, thing)] = fill(bare, style=style, object=thing)
    return texts


def load_captions() -> Captions:
    """All captions with their states, from the file that `encode_captions` keeps."""
    words = load_words()
    texts = all_captions(words)
    distinct = {text: number for number, text in enumerate(dict.fromkeys(texts.values()))}
    states = torch.load(BUILD / "captions.pt", weights_only=True, mmap=True)
    return Captions(states, {key: distinct[text] for key, text in texts.items()}, words)


@torch.inference_mode()
def encode_captions() -> None:
    """Encodes every caption once, in a minute or two, unless that was done since the text encoder was trained."""
    checkpoint, kept = BUILD / "clip-pipeline" / "checkpoint.pt", BUILD / "captions.pt"
    if kept.exists() and kept.stat().st_mtime > checkpoint.stat().st_mtime:
        return
    tokenizer = CLIPTokenizer.from_pretrained(FOLDER)
    encoder = trained("clip-pipeline", build_clip("pipeline", tokenizer), "model").text_model
    texts = list(dict.fromkeys(all_captions(load_words()).values()))
    tokens = tokenizer(texts, padding="max_length", return_tensors="pt")["input_ids"]
    torch.save(torch.cat([encoder(part).last_hidden_state.bfloat16() for part in tokens.split(128)]), kept)


def average_gradients(model: torch.nn.Module) -> None:
    """Makes every process's gradients the mean over processes."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients]).bfloat16()
    dist.all_reduce(flat)
    flat = flat.float() / dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def main() -> None:
    chosen = options(__doc__, steps=8000, batch=20, lr=8e-4)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if rank == 0:
        encode_captions()
    if world > 1:
        dist.init_process_group("gloo")
        dist.barrier()
    latents, scale = latents_of(load_icons())
    captions, scheduler = load_captions(), build_scheduler()
    objects = len(captions.words.objects)
    snr = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    torch.manual_seed(chosen.seed)
    model = build_unet()
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=chosen.lr, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    stage = Stage("unet", {"model": model, "average": average}, optimizer, chosen.steps, chosen.lr, quiet=rank > 0)
    if rank == 0:
        (stage.folder / "scale.txt").write_text(repr(scale), encoding="utf-8")

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng((chosen.seed, step, rank))
        cells = rng.integers(len(latents), size=chosen.batch)
        places = rng.integers(latents.shape[1], size=chosen.batch)
        rows = [captions.draw(*divmod(int(cell), objects), rng) for cell in cells]
        times = torch.from_numpy(rng.integers(1000, size=chosen.batch))
        clean = latents[cells, places]
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        noisy = scheduler.add_noise(clean, noise, times)
        predicted = model(noisy, times, captions.states[rows].float()).sample
        error = (predicted - noise).square().mean((1, 2, 3))
        weight = (SNR_LIMIT / snr[times]).clamp(max=1)
        return (weight * error).mean(), {"error": error.mean().item()}

    reduce = (lambda: average_gradients(model)) if world > 1 else (lambda: None)
    stage.run(loss_of, lambda step: average_into(average, model, step, decay=0.9995), reduce)


if __name__ == "__main__":
    main()
