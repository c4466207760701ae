"""Measures how large an edit's exports are, on models of the published shapes.

    python scripts/measure_sizes.py            SD 1.x and SDXL (needs 25 GB of disk, some minutes)
    python scripts/measure_sizes.py --quick    both families with a quarter of the channels, in about half a minute

Every file is written by its export and then looked at; nothing is computed from shapes. The base models are float16
folders with the settings that the package carries for single files. What the edit reads (keys and values of the
cross-attention) and the text encoders are random, all else is zeros. The default row is what `erase edit` makes of a
target, an anchor and a keep, by the default method, and its LoRA at the default `loss` and at 0. In the others, of UCE
and at `loss` 0, a target counts as one edited vector (`tokens: last` with one prompt) or as many as its prompt has
tokens behind the start (`tokens: all`, 76; for 100 targets not with `--quick`). The last line is JSON: for each family
the base's bytes and, by row, those of each export.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from erase.edit import Edit, TextMap, describe
from erase.export.checkpoint import checkpoint
from erase.export.folder import folder
from erase.export.lora import LOSS_KEY, lora
from erase.export.patch import patch
from erase.methods.redirect import Redirect
from erase.methods.uce import UCE
from erase.models import Model, open_model
from erase.models.storage.published import published
from erase.task import Target, Task

FAMILIES = {"sd1": "stable-diffusion", "sdxl": "stable-diffusion-xl"}
TARGETS = (1, 100)
VECTORS = {"last": 1, "all": 76}  # edited vectors of one target with one prompt
DEFAULT = Task((Target("van gogh", "style", "a painter"),), keeps=("monet",))
FILES = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
READ = ("attn2.to_k.weight", "attn2.to_v.weight")


def main() -> None:
    """Prints each family's sizes and, last, all of them as JSON."""
    parser = argparse.ArgumentParser(description="Measure the sizes of exports on models of the published shapes.")
    parser.add_argument("--quick", action="store_true", help="a quarter of the channels")
    parser.add_argument("--family", choices=sorted(FAMILIES), action="append")
    given = parser.parse_args()
    results = {}
    for name in given.family or FAMILIES:
        with tempfile.TemporaryDirectory() as place:
            base = write_base(FAMILIES[name], Path(place) / "base", share=4 if given.quick else 1)
            results[name] = measure(open_model(base), Path(place), quick=given.quick)
        print(name, json.dumps(results[name], indent=1))
    print(json.dumps(results))


def measure(model: Model, place: Path, *, quick: bool) -> dict[str, Any]:
    """Bytes of the base, and of what each edit of it is exported as."""
    found: dict[str, Any] = {"base": size_of(model.path)}
    found["default"] = default(model, place)
    for tokens, vectors in VECTORS.items():
        for targets in TARGETS if not quick or tokens == "last" else TARGETS[:1]:
            edit = edit_of(model, targets, tokens=tokens, vectors=vectors)
            found[f"{targets} targets, {tokens}"] = {"rank": edit.rank, **sizes(model, edit, place)}
    whole = edit_of(model, 1, tokens="last", vectors=1)
    found["folder"] = written(folder(model, whole, place / "folder"))
    found["checkpoint"] = written(checkpoint(model, whole, place / "checkpoint"))
    return found


def default(model: Model, place: Path) -> dict[str, Any]:
    """The default method's edit of one target: its rank and patch, and what its LoRA is with and without loss."""
    edit = Redirect()(model, DEFAULT)
    found: dict[str, Any] = {"rank": edit.rank, "patch": written(patch(model, edit, place / "patch"))}
    for name, loss in (("", 1e-3), ("_exact", 0.0)):
        file = lora(model, edit, place / "lora", dtype="float16", loss=loss)
        with safe_open(file, framework="pt") as opened:
            said = json.loads(opened.metadata()[LOSS_KEY])
        found |= {f"lora_rank{name}": said["rank"], f"lora_lost{name}": said["lost"]}
        found[f"lora_float16{name}"] = written(file)
    return found


def sizes(model: Model, edit: Edit, place: Path) -> dict[str, int]:
    """Bytes of the edit's patch and LoRAs."""
    return {
        "patch": written(patch(model, edit, place / "patch")),
        "lora_float32": written(lora(model, edit, place / "lora", dtype="float32", loss=0.0)),
        "lora_float16": written(lora(model, edit, place / "lora", dtype="float16", loss=0.0)),
    }


def edit_of(model: Model, targets: int, *, tokens: str, vectors: int) -> Edit:
    """An edit of so many targets, described as UCE describes its own, of so many random vectors each."""
    task = Task(tuple(Target(f"artist number {number}", "style", "a painter") for number in range(targets)))
    sites = tuple(site for site in model.sites() if site.reads == "tokens")
    width, generator = sites[0].columns, torch.Generator().manual_seed(targets)
    rank = min(targets * vectors, width)  # more vectors than the width are one full matrix
    up, down = (torch.randn(shape, generator=generator) / width for shape in ((width, rank), (rank, width)))
    info = describe(UCE(tokens=tokens), model, task)  # type: ignore[arg-type]
    return Edit(info, (TextMap(up, down, tuple(site.name for site in sites)),))


def written(path: Path) -> int:
    """Bytes of what was written; it is removed."""
    size = size_of(path)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return size


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def write_base(family: str, base: Path, *, share: int) -> Path:
    """A float16 folder of a family, all its channels divided by `share`; zeros take no room on the disk."""
    with published(family) as settings:
        shutil.copytree(settings, base)
    for part in (file.parent for file in sorted(base.glob("*/config.json"))):
        config = narrowed(json.loads((part / "config.json").read_text(encoding="utf-8")), share)
        (part / "config.json").write_text(json.dumps(config), encoding="utf-8")
        write_part(part, dict(shapes_of(config)))
    return base


def narrowed(config: Mapping[str, Any], share: int) -> dict[str, Any]:
    """A part's settings with a part of its channels; what prompts are made of keeps its width, and two layers."""
    if share == 1:
        return dict(config)
    if "block_out_channels" not in config:
        return {**config, "num_hidden_layers": 2}
    heads = {"attention_head_dim": 4} if "attention_head_dim" in config else {}
    channels = [channel // share for channel in config["block_out_channels"]]
    return {**config, **heads, "block_out_channels": channels, "norm_num_groups": 16}


def shapes_of(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a part's tensors, as its class makes them."""
    import diffusers
    import transformers

    with torch.device("meta"):
        if "_class_name" in config:
            module = getattr(diffusers, config["_class_name"]).from_config(dict(config))
        else:
            module = getattr(transformers, config["architectures"][0])(transformers.CLIPTextConfig(**config))
    for name, value in module.state_dict().items():
        yield name, tuple(value.shape)


def write_part(part: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A part's weights in float16: random where an edit or a prompt reads them, else zeros that are a hole in it."""
    header, begin = {}, 0
    for name, shape in shapes.items():
        end = begin + 2 * int(torch.Size(shape).numel())
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    is_text = part.name.startswith("text_encoder")
    with (part / f"{FILES.get(part.name, 'model')}.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for number, name in enumerate(name for name in shapes if is_text or name.endswith(READ)):
            file.seek(8 + len(text) + header[name]["data_offsets"][0])
            file.write(random(name, shapes[name], seed=number if is_text else 0).numpy().tobytes())
        file.truncate(8 + len(text) + begin)


def random(name: str, shape: tuple[int, ...], *, seed: int) -> Tensor:
    """A weight as one starts before training: a text encoder's norms do nothing, its layers are small."""
    if "layer_norm" in name:
        return torch.full(shape, float(name.endswith("weight"))).half()
    size = 1.0 if name.endswith(READ) else 0.02
    return (size * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).half()


if __name__ == "__main__":
    main()
