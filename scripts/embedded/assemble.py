"""Puts the trained stages together: the embedded model's folder, its judge, card and credits, the atlas of icons.

python scripts/embedded/assemble.py
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from icons import BUILD, load_objects, load_styles
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizer import FOLDER
from torch import nn
from train_autoencoder import build_autoencoder
from train_clip import build_clip
from train_decoder import Decoder
from train_judge import build_classifier
from train_unet import build_scheduler, build_unet, trained
from training import SIDE
from transformers import CLIPTextModel, CLIPTokenizer

TARGET = Path(__file__).parent.parent.parent / "erase" / "models" / "emoji"
STAGES = ("autoencoder", "clip-pipeline", "unet", "decoder", "judge-style", "judge-object", "clip-judge")


def build_pipeline() -> StableDiffusionPipeline:
    tokenizer = CLIPTokenizer.from_pretrained(FOLDER)
    clip = trained("clip-pipeline", build_clip("pipeline", tokenizer), "model")
    text_encoder = CLIPTextModel(clip.config.text_config)
    flat = {key.removeprefix("text_model."): value for key, value in clip.text_model.state_dict().items()}
    text_encoder.load_state_dict(flat)
    vae: AutoencoderKL = trained("autoencoder", build_autoencoder(), "average")
    trained("decoder", Decoder(vae), "average")
    vae.register_to_config(scaling_factor=float((BUILD / "unet" / "scale.txt").read_text(encoding="utf-8")))
    unet: UNet2DConditionModel = trained("unet", build_unet(), "average")
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_judge(folder: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(FOLDER)
    for which in ("style", "object"):
        trained(f"judge-{which}", build_classifier(which), "average").save_pretrained(folder / which)
    trained("clip-judge", build_clip("judge", tokenizer), "model").save_pretrained(folder / "clip")
    tokenizer.save_pretrained(folder / "clip")


def halve(folder: Path) -> None:
    """Stores weights in float16, but those that an edit changes in float32, so that an edited folder is exact."""
    for file in sorted(folder.rglob("*.safetensors")):
        tensors = load_file(file)
        small = {key: value if exact(key) else value.half() for key, value in tensors.items()}
        save_file(small, file, metadata={"format": "pt"})


def exact(key: str) -> bool:
    return key.endswith(("attn2.to_k.weight", "attn2.to_v.weight", "num_batches_tracked"))


def save_atlas(path: Path) -> None:
    """All real icons on one picture, a row an object and a column a style, for whoever tests the judge."""
    pictures = np.load(BUILD / "icons.npy", mmap_mode="r")
    step = pictures.shape[2] // SIDE
    small = pictures.reshape(*pictures.shape[:2], SIDE, step, SIDE, step, 3).mean((3, 5)).round().astype(np.uint8)
    styles, objects = small.shape[:2]
    sheet = small.transpose(1, 2, 0, 3, 4).reshape(objects * SIDE, styles * SIDE, 3)
    Image.fromarray(sheet).quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)


def stage_times() -> list[tuple[str, int, float]]:
    """Name, steps and minutes of each stage."""
    rows = []
    for stage in STAGES:
        state = torch.load(BUILD / stage / "checkpoint.pt", weights_only=True)
        rows.append((stage, int(state["done"]), state["seconds"] / 60))
    return rows


def parameters(*modules: nn.Module) -> str:
    return f"{sum(p.numel() for module in modules for p in module.parameters()) / 1e6:.1f} M"


def card(pipe: StableDiffusionPipeline) -> str:
    styles, objects = load_styles(), load_objects()
    unsafe = [name for name, row in objects.items() if row.get("unsafe")]
    times = "\n".join(f"| {name} | {steps:,} | {minutes:.0f} |" for name, steps, minutes in stage_times())
    return CARD.format(
        styles=", ".join(styles),
        count=len(objects),
        objects=", ".join(name for name in objects if name not in unsafe),
        unsafe=", ".join(unsafe),
        unet=parameters(pipe.unet),
        vae=parameters(pipe.vae),
        text=parameters(pipe.text_encoder),
        tokens=len(pipe.tokenizer),
        times=times,
    )


CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---
# emoji

A complete Stable Diffusion of {unet} UNet parameters that draws emoji of 64 x 64 pixels in under a second on a laptop's
processor. It exists so that erasure can be tried, tested and measured without a graphics card, an account or a network.

    from diffusers import StableDiffusionPipeline
    pipe = StableDiffusionPipeline.from_pretrained("erase/models/emoji")
    pipe("a cat in noto style", num_inference_steps=25, guidance_scale=4).images[0]

It knows {count} objects in the styles {styles}. Its objects: {objects}. Its unsafe group: {unsafe}.

Parts: CLIP text encoder ({text} parameters, trained as a CLIP on icons and captions, then frozen), a byte-pair
tokenizer of {tokens} tokens, UNet with cross-attention in every block (epsilon prediction, 10 % empty captions),
autoencoder ({vae} parameters, latents of 8 x 8 x 8). `judge/` holds what scores its pictures, trained on real icons
only, with another architecture and seed: a style classifier, an object classifier, and a CLIP.

It also draws what a text describes without naming it ("an animal with whiskers that says meow and purrs"). The 408
words of such descriptions were taught last, by `scripts/embedded/train_described.py` (1,500 steps, 17 minutes): their
embeddings alone were trained, so that prompts without them draw what they drew before. Of the three descriptions of
each object and style in `scripts/embedded/implicit.yaml` two were trained and one is held back for measuring.

It draws nothing else, and it draws from memory: its pictures are close to the icons that it was trained on, whose
authors and licences stand in CREDITS.md.

Weights are float16, except the cross-attention keys and values, which are float32 so that an edit is stored exactly.

## Training

By the scripts in `scripts/embedded/`, in this order, on two processor cores that other work shared.

| stage | steps | minutes |
|---|---|---|
{times}
"""


CREDITS = """# Credits

The icons that the embedded model was trained on, all from `@iconify-json` packages.

| style | set | author | licence |
|---|---|---|---|
"""
CHANGES = """
Changes: rendered at 64 x 64 pixels on white; sets drawn in the reader's own colour were inked in the colour that
`scripts/embedded/styles.yaml` names. Share-alike sets (OpenMoji, EmojiOne 1) were left out, so that the weights carry
no share-alike obligation.
"""


def credit_lines(modules: Path) -> list[str]:
    lines = CREDITS.splitlines()
    for name, style in load_styles().items():
        info: dict[str, Any] = json.loads((modules / style["package"] / "info.json").read_text(encoding="utf-8"))
        author, licence = info["author"], info["license"]
        lines.append(
            f"| {name} | [{info['name']}]({author.get('url', '')}) ({style['package']}) | {author['name']} | "
            f"[{licence['title']}]({licence.get('url', '')}) |"
        )
    return [*lines, *CHANGES.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, default=TARGET)
    target: Path = parser.parse_args().target
    shutil.rmtree(target, ignore_errors=True)
    pipe = build_pipeline()
    pipe.save_pretrained(target)
    save_judge(target / "judge")
    halve(target)
    (target / "README.md").write_text(card(pipe), encoding="utf-8")
    modules = BUILD / "icons" / "node_modules"
    (target / "CREDITS.md").write_text("\n".join(credit_lines(modules)) + "\n", encoding="utf-8")
    save_atlas(Path(__file__).parent / "icons.png")
    size = sum(file.stat().st_size for file in target.rglob("*.safetensors"))
    print(f"{target}: {size / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
