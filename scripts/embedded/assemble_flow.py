"""Writes `emoji-flow`: the trained transformer, and which files it borrows from `emoji`.

python scripts/embedded/assemble_flow.py [--target FOLDER]
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from captions import load_words
from diffusers import FlowMatchEulerDiscreteScheduler
from icons import BUILD
from safetensors.torch import load_file, save_file
from torch import nn
from train_flow import STAGES, build_transformer
from train_reader import EMOJI, Reader, build_reader
from train_unet import trained
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

TARGET = EMOJI.parent / "emoji-flow"
# The first encoder is emoji's with a projection that changes nothing, in a file of its own beside the borrowed one.
SHARED, PROJECTION = "shared.safetensors", "projection.safetensors"
EXACT = ("context_embedder.", "time_text_embed.text_embedder.linear_1.")
BORROWED = {
    "CREDITS.md": "emoji/CREDITS.md",
    "judge": "emoji/judge",
    "tokenizer": "emoji/tokenizer",
    "tokenizer_2": "emoji/tokenizer",
    "vae/diffusion_pytorch_model.safetensors": "emoji/vae/diffusion_pytorch_model.safetensors",
    f"text_encoder/{SHARED}": "emoji/text_encoder/model.safetensors",
}
INDEX = {
    "_class_name": "StableDiffusion3Pipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_3": [None, None],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "tokenizer_3": [None, None],
    "transformer": ["diffusers", "SD3Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def save_first_encoder(folder: Path) -> None:
    """Settings and projection of the encoder whose other weights are emoji's."""
    settings = json.loads((EMOJI / "text_encoder" / "config.json").read_text(encoding="utf-8"))
    width = CLIPTextConfig(**settings).hidden_size
    named = {"architectures": ["CLIPTextModelWithProjection"], "projection_dim": width}
    write_json(folder / "config.json", settings | named)
    save_file({"text_projection.weight": torch.eye(width).half()}, folder / PROJECTION, metadata={"format": "pt"})
    where = dict.fromkeys(keys_of(EMOJI / "text_encoder" / "model.safetensors"), SHARED)
    where["text_projection.weight"] = PROJECTION
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": where})


def keys_of(file: Path) -> list[str]:
    size = int.from_bytes(file.open("rb").read(8), "little")
    return sorted(json.loads(file.read_bytes()[8 : 8 + size]).keys() - {"__metadata__"})


def training() -> tuple[int, float]:
    """Steps and minutes of the transformer's training."""
    states = [torch.load(BUILD / stage / "checkpoint.pt", weights_only=True) for stage in STAGES]
    return sum(state["done"] for state in states), sum(state["seconds"] for state in states) / 60


def trained_reader() -> CLIPTextModelWithProjection:
    tokenizer = CLIPTokenizer.from_pretrained(EMOJI / "tokenizer")
    whole: Reader = trained("reader", Reader(build_reader(tokenizer), load_words()), "model")
    return whole.encoder


def halve(file: Path) -> None:
    """Stores weights in float16, but those that read the text's states in float32."""
    tensors = load_file(file)
    small = {key: value if key.startswith(EXACT) else value.half() for key, value in tensors.items()}
    save_file(small, file, metadata={"format": "pt"})


def millions(module: nn.Module) -> float:
    return sum(weight.numel() for weight in module.parameters()) / 1e6


CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---
# emoji-flow

A small Stable Diffusion 3 that draws what `emoji` draws: a joint-attention transformer of {transformer:.1f} M
parameters. It exists so that erasure from transformers can be tried, tested and measured on images without a graphics
card.

    import erase
    from diffusers import StableDiffusion3Pipeline
    folder = erase.open_model("emoji-flow").path
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)
    pipe("a cat in noto style", num_inference_steps=16, guidance_scale=3, max_sequence_length=1).images[0]

Its objects, styles, unsafe group, autoencoder, tokenizer, first text encoder and judge are those of `emoji`, whose
files it borrows (`borrowed.json`): `erase.open_model` lays the whole folder out in the user's cache at first use.

The first text encoder has an identity for projection. The second ({reader:.1f} M parameters) was trained to tell the
object and the style that a caption names or describes. There is no T5: as with every Stable Diffusion 3 without it,
diffusers wants to be told so, and its pipeline puts zeros in the place of the states, 256 if it is not told otherwise.
The transformer was trained on 1 to 256 of them; `max_sequence_length=1` draws as well and several times as fast.

It is a rectified flow: the network predicts noise minus data at logit-normal times, with 10 % empty captions. A
quarter of the captions, and half of them in the last 3,000 steps, describe the object or the style without naming it,
by two of the three descriptions that `scripts/embedded/implicit.yaml` holds for each; the third is held back for
measuring. QK norm, patches of one latent pixel, six blocks. Weights are float16, except those that read the text's
states, which are float32 so that an edit is stored exactly.

It draws nothing else, and it draws from memory, as `emoji` does; the icons' authors and licences stand in CREDITS.md.

Trained by `scripts/embedded/train_flow.py`: {steps:,} steps of 32 pictures in {minutes:.0f} minutes, on two processor
cores that other work shared. In the first 2,432 of them the first encoder stood in the place of the second, too; then
the weights that read the two were added up, and those that read the second started from zero.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, default=TARGET)
    target: Path = parser.parse_args().target
    presets = (target / "presets.yaml").read_bytes() if (target / "presets.yaml").is_file() else None
    shutil.rmtree(target, ignore_errors=True)
    transformer, reader = trained("described", build_transformer(), "average"), trained_reader()
    steps, minutes = training()
    text = CARD.format(transformer=millions(transformer), reader=millions(reader), steps=steps, minutes=minutes)
    transformer.save_pretrained(target / "transformer")
    halve(target / "transformer" / "diffusion_pytorch_model.safetensors")
    FlowMatchEulerDiscreteScheduler(shift=1.0).save_pretrained(target / "scheduler")
    save_first_encoder(target / "text_encoder")
    reader.half().save_pretrained(target / "text_encoder_2")
    vae = json.loads((EMOJI / "vae" / "config.json").read_text(encoding="utf-8"))
    write_json(
        target / "vae" / "config.json", vae | {"shift_factor": 0.0}
    )  # which the pipeline adds, unlike the UNet's
    write_json(target / "model_index.json", INDEX)
    write_json(target / "borrowed.json", BORROWED)
    (target / "README.md").write_text(text, encoding="utf-8")
    if presets is not None:
        (target / "presets.yaml").write_bytes(presets)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    print(f"{target}: {size / 1e6:.2f} MB, {steps} steps")


if __name__ == "__main__":
    main()
