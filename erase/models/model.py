"""The one view that methods, evaluation and export have of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from erase.config import documents
from erase.errors import BadModel, BadOption, BadTask, BadWeights, CannotEdit, PromptTooLong
from erase.files import content_hash, sha256_of
from erase.models.encoding import Condition, Encoding, Guidance, embeddings
from erase.models.identity import identity_keys
from erase.models.quiet import quietly
from erase.models.sites import Pattern, Reads, Role, Site, find_sites
from erase.models.storage.hub import hub_id
from erase.models.storage.source import Source, read_json
from erase.models.storage.weights import Tensors, check_finite, weights_digest
from erase.models.text import Absent, Text, TextEncoder, unpadded
from erase.task import Kind, Task

PRESETS = "presets.yaml"
Presets = Mapping[str, Mapping[str, Mapping[str, Any]]]
_NO_PART = (".", "judge/", "safety_checker/", "feature_extractor/")  # folders that draw nothing


class Model(ABC):
    """A model's files: its sites and text encoders read lazily, its pipeline loaded only when asked for.

    A family is a subclass that fills in the tables below and says how its text encoders' states go together.
    """

    family: ClassVar[str]
    pipeline_class: ClassVar[str]
    pipeline_options: ClassVar[Mapping[str, Any]] = {}
    backbone: ClassVar[str]
    network: ClassVar[str]  # the backbone's class in diffusers
    patterns: ClassVar[tuple[Pattern, ...]]
    texts: tuple[Text, ...]  # of a class, all that its models may have; of a model, those that it has
    true_cfg: ClassVar[bool] = False  # whether its pipeline has a guidance of two predictions beside `guidance_scale`
    takes_clip_skip: ClassVar[bool] = True
    fits: int = 0  # images at once for which its memory was last found to suffice; 0 where it was never short
    torch_dtype: torch.dtype = torch.float32  # in which its pipelines compute
    device: str = ""  # where they do; empty for a card where there is one
    max_sequence_length: int = 0  # tokens that T5 is given where nobody says it; 0 for the pipeline's own number
    loras: tuple[Mapping[str, Any], ...] = ()  # what was fused into its weights: file, sha256, scale

    def __init__(self, source: Source) -> None:
        self.source, self.path = source, source.path
        self.home: Path = getattr(source, "home", source.path)  # of its judge, presets and settings
        self.texts = tuple(text for text in self.texts if not text.optional or source.has(text.encoder))
        missing = [part for part in self.parts() if not source.has(part)]
        if missing:
            raise BadModel(
                f"{self.path} has no {missing[0]} folder; expected a whole model: {', '.join(self.parts())}."
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.title!r}, {len(self.sites())} sites)"

    @classmethod
    @abstractmethod
    def matches(cls, config: Mapping[str, Any]) -> bool:
        """Whether a backbone of this config is one of the family's, where families share a pipeline class."""

    @classmethod
    @abstractmethod
    def join(cls, encoders: Sequence[TextEncoder], prompts: Sequence[str]) -> Encoding:
        """What the text encoders, in the order of the family's table, make of prompts together."""

    @staticmethod
    @abstractmethod
    def predict(pipe: Any, latents: Tensor, time: Tensor, *, condition: Condition) -> Tensor:
        """The backbone's prediction for latents at a time, as the family's pipeline computes it."""

    @classmethod
    def unconditional(cls, pipe: Any, encoders: Sequence[TextEncoder]) -> Condition:
        """What guidance starts from: the empty prompt, as the family's pipeline takes it."""
        return cls.join(encoders, [""]).conditions()[0]

    def latent_shape(self, pipe: Any, size: int = 0) -> tuple[int, int, int]:
        """Channels, height and width of a latent of pictures of a size in pixels, or of the model's own for 0.

        Raises BadOption for a size whose latent the network cannot read.
        """
        scale, config = pipe.vae_scale_factor, getattr(pipe, self.backbone).config
        if size % (8 * scale):
            raise BadOption(f"size is {size}; expected a multiple of {8 * scale}, or 0 for the model's own.")
        side = size // scale or int(config.sample_size)
        return int(config.in_channels), side, side

    @classmethod
    def call_arguments(
        cls, conditions: tuple[Condition, Condition], guidance: Guidance, *, alone: bool = False
    ) -> dict[str, Any]:
        """What the family's pipeline is called with, under the names of its own arguments.

        `conditions`: of the prompts, and of what guidance starts from. `alone`: for one prediction a step, which a
        guide makes of several.
        """
        return embeddings(*conditions) | {"guidance_scale": 1.0 if alone else guidance.scale}

    @classmethod
    def size_step(cls, scale: int, config: Mapping[str, Any]) -> int:
        """What a picture's sides are multiples of: by the autoencoder's scale and the settings of the backbone."""
        return 8

    def parts(self) -> tuple[str, ...]:
        """The folders of a whole model."""
        text = [folder for text in self.texts for folder in (text.encoder, text.tokenizer)]
        return (self.backbone, *text, "vae", "scheduler")

    def sites(self) -> tuple[Site, ...]:
        """All weights that the prompt reaches, sorted by name; raises BadModel if there is none."""
        return self._sites

    @cached_property
    def _sites(self) -> tuple[Site, ...]:
        found = self.find_sites()
        if not found:
            raise BadModel(
                f"the {self.backbone} of {self.path} has no weight that a prompt reaches, no cross-attention; "
                "nothing to edit."
            )
        return found

    def find_sites(self) -> tuple[Site, ...]:
        """The sites among the backbone's weights, sorted by name."""
        weights = self.weights(self.backbone)
        return find_sites(self.backbone, weights.places, self.patterns, shape=weights.shape)

    @classmethod
    def is_site(cls, key: str) -> bool:
        """Whether a key of the backbone is a site's."""
        return any(row.keys.fullmatch(key) for row in cls.patterns)

    def sites_that_read(self, reads: Reads, *, method: str, role: Role | None = None) -> tuple[Site, ...]:
        """The sites that are multiplied with such states, and have a role if one is given.

        Raises CannotEdit, which names the method, if there is none.
        """
        found = tuple(site for site in self.sites() if site.reads == reads and role in (None, site.role))
        if not found:
            there = sorted({f"{site.role} of {site.reads}" for site in self.sites()})
            raise CannotEdit(
                f"{method} cannot edit {self.path.name}: it changes weights that are {role or 'whatever'} of {reads}, "
                f"and those of a {self.family} model are {', '.join(there)}; use another method or model."
            )
        return found

    def encode(
        self, prompts: Sequence[str], *, cut: bool = False, max_sequence_length: int = 0, padding: bool = True
    ) -> Encoding:
        """The prompts as the sites see them, equal to what the family's pipeline encodes.

        Raises PromptTooLong for a prompt that is longer than the model reads. `cut`: reads its beginning instead, as
        the pipeline does. `max_sequence_length`: tokens that T5 is given; 0 for the model's own number. `padding`:
        where false, states behind a prompt's own tokens are NaN in causal encoders, which takes far less time.
        """
        if not cut:
            self.check_prompts(prompts)
        _ = self._fingerprinting  # starts hashing in the background: callers that encode need it soon
        encoders = [one.reading(max_sequence_length or self.max_sequence_length) for one in self.encoders]
        return self.join(encoders if padding else unpadded(encoders, prompts), prompts)

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest prompt, those added in front and behind included."""
        return min(encoder.max_tokens for encoder in self.encoders if encoder.text.whole)

    def count_tokens(self, prompt: str) -> int:
        """Tokens of a prompt, those added in front and behind included, before anything is cut off."""
        return max(encoder.count(prompt) for encoder in self.encoders if encoder.text.whole)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raises PromptTooLong for the first prompt that a text encoder would cut."""
        for encoder in (encoder for encoder in self.encoders if encoder.text.whole):
            added = encoder.count("")
            for prompt in dict.fromkeys(prompts):
                if (count := encoder.count(prompt)) > encoder.max_tokens:
                    raise PromptTooLong(
                        f'prompt "{prompt[:80]}{"..." if len(prompt) > 80 else ""}" has {count - added} tokens; '
                        f"{self.path.name} takes at most {encoder.max_tokens - added}: shorten it."
                    )

    def check_task(self, task: Task) -> None:
        """Raises PromptTooLong for a target or anchor that would be cut, BadTask for a word that it cannot spell."""
        words = [text for target in task.targets for text in (*target.words, target.anchor)]
        self.check_prompts(words)
        for word in dict.fromkeys(filter(None, [*words, *(keep.name for keep in task.keeps)])):
            if not any(encoder.knows(word) for encoder in self.encoders):
                raise BadTask(
                    f"{self.path.name} reads nothing in {word!r}: its tokenizer knows none of these signs; "
                    "give a word that it can spell."
                )

    def is_cut(self, prompt: str) -> bool:
        """Whether the model reads the beginning of a prompt alone."""
        return any(encoder.is_cut(prompt) for encoder in self.encoders if encoder.text.whole)

    def cut_line(self, prompts: Sequence[str]) -> str:
        """One line that counts the prompts that are cut; empty where none is."""
        distinct = list(dict.fromkeys(prompts))
        if not (cut := sum(self.is_cut(prompt) for prompt in distinct)):
            return ""
        longest = min(one.max_tokens - one.count("") for one in self.encoders if one.text.whole)
        return (
            f"{cut} of {len(distinct)} prompts are longer than the encoder's {longest} tokens and were cut, as the "
            "pipeline does"
        )

    def check_unquantised(self, doing: str) -> None:
        """Raises BadWeights if the network is stored in so few bits that `doing` would lose what an edit changes."""
        if kind := self.weights(self.backbone).quantised():
            raise BadWeights(
                f"{self.path.name} is quantised ({kind}), a grid coarser than an edit, so {doing} would lose it; "
                "export a patch or a LoRA, or edit the model in 16 or 32 bits and quantise the result."
            )

    def check_sampling(self) -> None:
        """Raises BadModel if images of this file cannot be made here."""
        self.source.check_whole()

    def pipeline(self, dtype: torch.dtype | None = None, *, moved: bool = True) -> Any:
        """A freshly loaded diffusers pipeline without safety checker, in the model's own dtype if none is given.

        `moved`: to the model's device, if it has one. Raises BadModel, BadWeights.
        """
        parts = (self.backbone, *self.text_components, "vae")
        absent = [text for text in type(self).texts if text not in self.texts]
        without = {name: None for text in absent for name in (text.encoder, text.tokenizer)}
        pipe = self._load(parts, dtype or self.torch_dtype, {**self.pipeline_options, **without})
        return pipe.to(self.device) if self.device and moved else pipe

    def backbone_alone(self, dtype: torch.dtype = torch.float32) -> Any:
        """A freshly loaded pipeline without text encoders and decoder, for latents; raises BadModel, BadWeights."""
        absent = [name for text in type(self).texts for name in (text.encoder, text.tokenizer)]
        pipe = self._load((self.backbone,), dtype, {**self.pipeline_options, **dict.fromkeys([*absent, "vae"])})
        with self.source.settings() as folder:
            levels = len(read_json(folder / "vae" / "config.json")["block_out_channels"])
        pipe.vae_scale_factor = 2 ** (levels - 1)
        return pipe

    def _load(self, modules: Sequence[str], dtype: torch.dtype, options: Mapping[str, Any]) -> Any:
        self.source.check_whole()
        for component in modules:
            _ = self.weights(component).places
        with quietly():
            pipe = self.source.pipeline(self.pipeline_class, dtype, options)
        for component in modules:
            weights = self.weights(component)
            for name, parameter in getattr(pipe, component).named_parameters():
                check_finite(parameter, f"{name} in {self.path / component}")
                if weights.scale_key(name) is not None:  # which diffusers does not read
                    parameter.data.copy_(weights.tensor(name))
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @property
    def text_components(self) -> tuple[str, ...]:
        """The text encoders' names."""
        return tuple(text.encoder for text in self.texts)

    @cached_property
    def encoders(self) -> tuple[TextEncoder, ...]:
        """The text encoders of its family's table, in that order."""
        there, every = self.texts, type(self).texts
        return tuple(TextEncoder(one, self.source) if one in there else Absent(one, self._width) for one in every)

    @property
    def _width(self) -> int:
        """Of the token states that the sites read."""
        return next(site.columns for site in self.sites() if site.reads == "tokens")

    def free_encoders(self) -> None:
        """Frees the text encoders' memory; they are loaded again when prompts are next encoded."""
        for encoder in self.encoders:
            encoder.let_go()

    def weights(self, component: str) -> Tensors:
        return self.source.weights(component)

    def weight(self, name: str) -> Tensor:
        """One tensor by its name with the component in front, in the file's own dtype."""
        component, _, key = name.partition(".")
        return self.weights(component).tensor(key)

    @property
    def title(self) -> str:
        """A name for people: the id on the hub if it comes from there, else that of its folder or file."""
        return hub_id(self.path) or (self.path.stem if self.path.is_file() else self.path.name)

    @property
    def judge_folder(self) -> Path | None:
        """The folder of the judge that comes with an embedded model."""
        folder = self.home / "judge"
        return folder if folder.is_dir() else None

    @cached_property
    def presets(self) -> Presets:
        """Options that suit this model, by method and kind of target, of its presets.yaml; empty where it has none.

        Raises BadModel.
        """
        file = self.home / PRESETS
        if not file.is_file():
            return {}
        value = documents.parse_yaml(documents.read_text(file, error=BadModel), source=str(file), error=BadModel)
        table = dict[str, dict[Kind, dict[str, Any]]]
        found: Presets = documents.check_value(value, table, key=str(file), error=BadModel)
        return found

    @cached_property
    def content(self) -> str:
        """Identity of all that an image depends on: a hash over every file of the model's parts."""
        if own := getattr(self.source, "content", ""):  # of what is not all in one folder or file
            return str(own)
        if self.path.is_file():
            return sha256_of(self.path)
        files = (file for part in self.path.iterdir() if part.is_dir() for file in part.rglob("*") if file.is_file())
        parts = {file.relative_to(self.path).as_posix(): file for file in files}
        return content_hash({name: sha256_of(parts[name]) for name in sorted(parts) if not name.startswith(_NO_PART)})

    @cached_property
    def fingerprint(self) -> str:
        """Identity of what an edit depends on: a hash over the text encoders' and the sites' values."""
        return self._fingerprinting.result()

    @cached_property
    def _fingerprinting(self) -> Future[str]:
        found = (thread := ThreadPoolExecutor(1)).submit(lambda: weights_digest(self.identity()))
        thread.shutdown(wait=False)
        return found

    def identity(self) -> Iterator[tuple[str, Tensor]]:
        """Names and values that make up the model's identity, one at a time, sorted by name."""
        keys = {text: identity_keys(self.weights(text).places) for text in self.text_components}
        keys[self.backbone] = {site.key: site.key for site in self.sites()}
        for component in sorted(keys, key=lambda name: f"{name}."):
            names = sorted(keys[component])
            values = self.weights(component).tensors([keys[component][name] for name in names])
            for name, (_, value) in zip(names, values, strict=True):
                yield f"{component}.{name}", value
