"""A transformer alone in a file (Stable Diffusion 3.x, FLUX.1), with a folder that has the model's other parts.

The file's tensors have diffusers' names or those under which it was published (`mmdit`), with
`model.diffusion_model.` in front of them or not. The folder's own transformer is read for its settings alone, so that
its weights need not be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from erase.errors import BadModel
from erase.files import content_hash, sha256_of
from erase.models.storage.ldm import UNET
from erase.models.storage.mmdit import LAYOUTS, Member, members_of
from erase.models.storage.published import shapes_of
from erase.models.storage.source import Folder, read_json
from erase.models.storage.weights import SCALES, Form, Place, Tensors, WeightsOfFile, shapes_in
from erase.models.text import Text

if TYPE_CHECKING:
    from erase.models.model import Model


class TransformerFile:
    """A file with a family's transformer and the folder of its other parts; raises BadModel, BadWeights."""

    def __init__(self, path: Path, family: type[Model], parts: Path) -> None:
        self.path, self.home, self._family, self._parts = path, parts, family, Folder(parts)
        if family.family not in LAYOUTS:
            raise BadModel(
                f"{parts} is a {family.family}, whose network is no transformer, and {path} holds a transformer alone; "
                "give the folder of the model that it belongs to."
            )
        self._config = parts / family.backbone / "config.json"
        expected = shapes_of(read_json(self._config), where=self._config)
        self._own = WeightsOfFile(places_in(path, family.family, expected, where=self._config))

    def has(self, part: str) -> bool:
        return self._parts.has(part)

    def weights(self, component: str) -> Tensors:
        return self._own if component == self._family.backbone else self._parts.weights(component)

    def tokenizer(self, text: Text) -> Any:
        return self._parts.tokenizer(text)

    def text_encoder(self, text: Text) -> Any:
        return self._parts.text_encoder(text)

    def settings(self) -> AbstractContextManager[Path]:
        return self._parts.settings()

    def check_whole(self) -> None:
        return  # all parts were looked for when it was opened

    def pipeline(self, name: str, dtype: torch.dtype, options: Mapping[str, Any]) -> Any:
        import diffusers
        from accelerate import init_empty_weights

        with init_empty_weights(include_buffers=False):
            network = getattr(diffusers, self._family.network).from_config(read_json(self._config))
        network.load_state_dict(dict(self._own.tensors(dtype=dtype)), assign=True)
        return self._parts.pipeline(name, dtype, {**options, self._family.backbone: network.eval()})

    @cached_property
    def content(self) -> str:
        """Identity of all that an image depends on."""
        texts = [name for text in self._family.texts for name in (text.encoder, text.tokenizer)]
        files = [file for part in (*texts, "vae", "scheduler") for file in (self.home / part).rglob("*")]
        hashes = {file.relative_to(self.home).as_posix(): sha256_of(file) for file in files if file.is_file()}
        return content_hash([sha256_of(self.path), sha256_of(self._config), hashes])


def places_in(path: Path, family: str, expected: Mapping[str, tuple[int, ...]], *, where: Path) -> dict[str, Place]:
    """Where each tensor of a transformer stands in a file; raises BadModel for one that is not there as expected.

    `where`: the settings that say what is expected.
    """
    shapes = shapes_in(path)
    prefix = UNET if any(key.startswith(UNET) for key in shapes) else ""
    if scaled := next((key for key in shapes if key.endswith(SCALES)), ""):
        raise BadModel(f"{path} holds weights in eight bits with scales ({scaled}); give the file in 16 bits.")
    if f"{prefix}transformer_blocks.0.attn.to_q.weight" in shapes:
        members = {name: Member(name) for name in expected}
    else:
        members = members_of(expected, family)
    joined: dict[str, list[str]] = {}
    for name in sorted(expected, key=lambda name: members[name].turn):
        joined.setdefault(prefix + members[name].key, []).append(name)
    found = {}
    for key, names in joined.items():
        wanted, begin = (sum(expected[name][0] for name in names), *expected[names[0]][1:]), 0
        if shapes.get(key) != wanted:
            has = f"has it as {list(shapes[key])}" if key in shapes else "has none"
            raise BadModel(
                f"{path} does not fit {where}, which asks for {key} as {list(wanted)}: the file {has}; give the folder "
                f"of the {family} model that the file belongs to."
            )
        for name in names:
            end = begin + expected[name][0]
            rows = (begin, end) if len(names) > 1 else None
            form: Form = "swapped" if members[name].swapped else "same"
            found[name], begin = Place(path, key, expected[name], rows=rows, form=form), end
    return found
