"""What a judge's networks say of images: each network is loaded once, and reads each image once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from erase.errors import ScoreFailed
from erase.evaluate.networks.clip import ClipTowers
from erase.evaluate.networks.loading import load_network
from erase.evaluate.networks.preprocessing import preparation_of
from erase.sampling.pictures import resized
from erase.sampling.pipelined import batched

AT_ONCE = 32  # images
SIDE = 64  # pixels, of what the judge's classifiers take


class JudgeCache:
    """Labels and CLIP vectors of images by their names, kept from the first time they are asked for.

    Images are read in batches of one size, the last filled up, so that what is said of one does not depend on those
    beside it, nor on when it is asked for.
    """

    def __init__(self) -> None:
        self._said: dict[Path, dict[str, Tensor]] = {}
        self._classifiers: dict[Path, Any] = {}
        self._towers: dict[Path, ClipTowers] = {}

    def labels(self, folder: Path, pixels: Mapping[str, Tensor]) -> dict[str, str]:
        """The label that the classifier in a folder gives each image; raises ScoreFailed if it cannot."""
        if folder not in self._classifiers:
            self._classifiers[folder] = load_network("AutoModelForImageClassification", folder, what="judge")
        network = self._classifiers[folder]
        logits = self._read(folder, pixels, lambda batch: network(pixel_values=batch).logits, side=SIDE)
        if not all(bool(torch.isfinite(row).all()) for row in logits.values()):
            raise ScoreFailed(f"the judge in {folder} gives NaN or infinite scores; its weights are damaged.")
        return {name: str(network.config.id2label[int(row.argmax())]) for name, row in logits.items()}

    def vectors(self, folder: Path, pixels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The unit vector, [width], that the CLIP in a folder gives each image; raises ScoreFailed if it cannot."""
        towers = self.towers(folder)
        if not (folder / "preprocessor_config.json").is_file():  # it takes pixels in -1 .. 1, as they are
            return self._read(folder, pixels, towers.batch, side=towers.side)
        prepare = preparation_of(folder, side=towers.side)
        said = self._said.setdefault(folder, {})
        for names in batched([name for name in pixels if name not in said], AT_ONCE):
            with torch.inference_mode():
                said |= dict(zip(names, towers.batch(prepare([_picture(pixels[name]) for name in names])), strict=True))
        return {name: said[name] for name in pixels}

    def ahead(self, judge: Path, networks: Sequence[str], pixels: Mapping[str, Tensor]) -> None:
        """Reads images by the networks of these names in a judge's folder, so that scores find it done."""
        for name in networks:
            (self.vectors if name == "clip" else self.labels)(judge / name, pixels)

    def towers(self, folder: Path) -> ClipTowers:
        """The CLIP in a folder."""
        return self._towers.setdefault(folder, ClipTowers(folder))

    @torch.inference_mode()
    def _read(
        self, folder: Path, pixels: Mapping[str, Tensor], network: Callable[[Tensor], Tensor], *, side: int
    ) -> dict[str, Tensor]:
        said = self._said.setdefault(folder, {})
        for names in batched([name for name in pixels if name not in said], AT_ONCE):
            filled = [*names, *names[:1] * (AT_ONCE - len(names))]
            rows = network(torch.stack([resized(pixels[name], side) for name in filled]))
            said |= dict(zip(names, rows[: len(names)], strict=True))
        return {name: said[name] for name in pixels}


def _picture(pixels: Tensor) -> Image.Image:
    """Pixels [3, height, width] in -1 .. 1 as the picture of 8 bits that they were read from."""
    return Image.fromarray(((pixels.permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy())
