"""Trains the UNet of `emoji` once more, from scratch, on pictures without one style and one object.

It is the yardstick of attacks: a model that never knew a concept, so whatever "brings it back" there is no sign of what
an erasure has left. All else of the model is `emoji`'s own. Weights go to `.build/retrained/model`, and a killed
training goes on where it was.

python scripts/embedded/train_retrained.py [--without noto cat] [--steps 8000]
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
from captions import load_words
from diffusers import StableDiffusionPipeline
from icons import BUILD, load_objects, load_styles
from torch import Tensor
from train_flow import EMOJI, latents_of
from train_unet import SNR_LIMIT, Captions, all_captions, build_scheduler, build_unet
from training import Stage, average_into, in_bfloat16, load_icons
from transformers import CLIPTextModel, CLIPTokenizer

NAME = "retrained"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", nargs="*", default=["noto", "cat"], help="styles and objects that are left out")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--stop", type=int, default=0, help="end at this step, and go on another time")
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default=NAME, help="folder below .build")
    return parser.parse_args()


@torch.inference_mode()
def captions_of(file: Path) -> Captions:
    """Every caption with its states by the text encoder of `emoji`, which are kept in a file."""
    words = load_words()
    texts = all_captions(words)
    distinct = {text: number for number, text in enumerate(dict.fromkeys(texts.values()))}
    if not file.exists():
        tokenizer = CLIPTokenizer.from_pretrained(EMOJI / "tokenizer")
        encoder = CLIPTextModel.from_pretrained(EMOJI / "text_encoder", dtype=torch.float32).eval()
        tokens = tokenizer(list(distinct), padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
        torch.save(torch.cat([encoder(part).last_hidden_state.bfloat16() for part in tokens.split(128)]), file)
    states = torch.load(file, weights_only=True, mmap=True)
    return Captions(states, {key: distinct[text] for key, text in texts.items()}, words)


def known_cells(without: list[str]) -> np.ndarray:
    """The cells, style times object, of whatever is not left out; exits for a name of nothing."""
    styles, objects = list(load_styles()), list(load_objects())
    if unknown := [name for name in without if name not in (*styles, *objects)]:
        raise SystemExit(f"{unknown[0]} is no style and no object; expected one of {', '.join([*styles, *objects])}.")
    cells = [(style, thing) for style in styles for thing in objects]
    return np.flatnonzero([not {style, thing} & set(without) for style, thing in cells])


def save_model(unet: torch.nn.Module, folder: Path) -> None:
    """The whole model: `emoji` with another UNet."""
    pipe = StableDiffusionPipeline.from_pretrained(EMOJI, safety_checker=None)
    pipe.unet.load_state_dict(unet.state_dict())
    pipe.save_pretrained(folder)
    print(f"saved {folder}", flush=True)


def main() -> None:
    chosen = parse()
    torch.set_num_threads(chosen.threads)
    cells = known_cells(chosen.without)
    (BUILD / chosen.name).mkdir(parents=True, exist_ok=True)
    latents, captions = latents_of(load_icons()), captions_of(BUILD / chosen.name / "captions.pt")
    scheduler, objects = build_scheduler(), len(captions.words.objects)
    snr = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    torch.manual_seed(chosen.seed)
    model = build_unet()
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=chosen.lr, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    stage = Stage(chosen.name, {"model": model, "average": average}, optimizer, chosen.steps, chosen.lr)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng((chosen.seed, step))
        drawn = cells[rng.integers(len(cells), size=chosen.batch)]
        rows = [captions.draw(*divmod(int(cell), objects), rng) for cell in drawn]
        times = torch.from_numpy(rng.integers(1000, size=chosen.batch))
        clean = latents[drawn, rng.integers(latents.shape[1], size=chosen.batch)]
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        noisy = scheduler.add_noise(clean, noise, times)
        with in_bfloat16():
            predicted = model(noisy, times, captions.states[rows].float()).sample
        error = (predicted.float() - noise).square().mean((1, 2, 3))
        weight = (SNR_LIMIT / snr[times]).clamp(max=1)
        return (weight * error).mean(), {"error": error.mean().item()}

    stage.run(loss_of, lambda step: average_into(average, model, step, decay=0.9995), until=chosen.stop or None)
    if stage.done == chosen.steps:
        save_model(average, BUILD / chosen.name / "model")


if __name__ == "__main__":
    main()
