"""Teaches `emoji` the words by which a text describes a thing without naming it, and moves nothing else.

Only the embeddings of words that no ordinary caption has are trained ("whiskers", "purrs"), in the text encoder; the
UNet and all other words stay as they are, so that every prompt without such words draws the same image as before, to
the bit. What they learn from is the model itself: asked by a description the network has to predict what it predicts
when the thing is named,

    L = | e(x_t, T(description)) - e(x_t, T(name)) |^2,

by two of the three descriptions of `implicit.yaml`; the third is held back. Weights go to `.build/described/model`, and
a killed training goes on where it was.

python scripts/embedded/train_described.py [--steps 1500] [--threads 2]
"""

from __future__ import annotations

import shutil

import numpy as np
import torch
from captions import BOTH, OBJECT_ONLY, TRAINED, fill, implicit_caption, load_descriptions, load_words
from diffusers import UNet2DConditionModel
from icons import BUILD
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call
from train_flow import EMOJI, latents_of
from train_unet import SNR_LIMIT, all_captions, build_scheduler
from training import Stage, in_bfloat16, load_icons, options
from transformers import CLIPTextModel, CLIPTokenizer

NAME = "described"
TABLE = "embeddings.token_embedding.weight"
Asked = tuple[str, str]  # what the network is asked, and how the same is named


class Captions:
    """Random descriptions of a cell, each with the caption that names what it describes."""

    def __init__(self) -> None:
        self.words, self.descriptions = load_words(), load_descriptions()

    def draw(self, cell: tuple[int, int], rng: np.random.Generator) -> Asked:
        style, thing = cell
        text, both = implicit_caption(self.words, self.descriptions, cell, rng=rng)
        names = {"style": self.words.styles[style][0], "object": self.words.objects[thing][0]}
        return text, fill((BOTH if both else OBJECT_ONLY)[0], **names)

    def new_words(self, tokenizer: CLIPTokenizer) -> list[int]:
        """The tokens of the trained descriptions that stand in no ordinary caption."""
        groups = (*self.descriptions.objects, *self.descriptions.styles)
        described = [text for three in groups for text in three[:TRAINED]]
        found, common = (
            {token for ids in tokenizer(texts)["input_ids"] for token in ids}
            for texts in (described, list(all_captions(self.words).values()))
        )
        return sorted(found - common)


class Reader(nn.Module):
    """The text encoder of `emoji`, of which some words' embeddings, `rows` [words, width], are trained."""

    def __init__(self, tokenizer: CLIPTokenizer, words: list[int]) -> None:
        super().__init__()
        encoder = CLIPTextModel.from_pretrained(EMOJI / "text_encoder", dtype=torch.float32)
        self.tokenizer, self.encoder = tokenizer, encoder.eval().requires_grad_(False)
        self.words = torch.tensor(words)
        self.rows = nn.Parameter(encoder.get_input_embeddings().weight[self.words].clone())

    def forward(self, texts: list[str]) -> Tensor:
        """States [texts, tokens, width]."""
        table = self.encoder.get_input_embeddings().weight.index_put((self.words,), self.rows)
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
        states: Tensor = functional_call(self.encoder, {TABLE: table}, (tokens,)).last_hidden_state
        return states

    def fits(self, text: str) -> bool:
        return len(self.tokenizer(text, verbose=False)["input_ids"]) <= self.tokenizer.model_max_length


def save_model(reader: Reader) -> None:
    """A copy of `emoji` with other embeddings of some words, in the precision of its file."""
    folder = BUILD / NAME / "model"
    shutil.copytree(EMOJI, folder, dirs_exist_ok=True)
    file = folder / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    weights[TABLE][reader.words] = reader.rows.detach().to(weights[TABLE].dtype)
    save_file(weights, file, metadata={"format": "pt"})
    print(f"saved {file}, which takes the place of that of {EMOJI.name}", flush=True)


def main() -> None:
    chosen = options(__doc__, steps=1500, batch=32, lr=1e-2)
    latents, captions, scheduler = latents_of(load_icons()), Captions(), build_scheduler()
    tokenizer = CLIPTokenizer.from_pretrained(EMOJI / "tokenizer")
    reader = Reader(tokenizer, captions.new_words(tokenizer))
    unet = UNet2DConditionModel.from_pretrained(EMOJI / "unet", torch_dtype=torch.float32).eval().requires_grad_(False)
    objects, snr = len(captions.words.objects), scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    optimizer = torch.optim.AdamW([reader.rows], lr=chosen.lr, betas=(0.9, 0.99), weight_decay=0)
    stage = Stage(NAME, {"reader": reader}, optimizer, chosen.steps, chosen.lr)

    def draw(cell: int, rng: np.random.Generator) -> Asked:
        while True:
            asked = captions.draw(divmod(cell, objects), rng)
            if reader.fits(asked[0]):
                return asked

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng((chosen.seed, step))
        cells = rng.integers(len(latents), size=chosen.batch)
        asked, named = zip(*[draw(int(cell), rng) for cell in cells], strict=True)
        clean = latents[cells, rng.integers(latents.shape[1], size=chosen.batch)]
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        times = torch.from_numpy(rng.integers(1000, size=chosen.batch))
        noisy = scheduler.add_noise(clean, noise, times)
        with in_bfloat16():
            with torch.no_grad():
                wanted = unet(noisy, times, reader(list(named))).sample.float()
            predicted = unet(noisy, times, reader(list(asked))).sample.float()
        error = (predicted - wanted).square().mean((1, 2, 3))
        weight = (SNR_LIMIT / snr[times]).clamp(max=1)
        return (weight * error).mean(), {"error": error.mean().item()}

    stage.run(loss_of, lambda step: None)
    save_model(reader)


if __name__ == "__main__":
    main()
