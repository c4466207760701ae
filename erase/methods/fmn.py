"""Forget-Me-Not: what the picture's patches attend to the concept's tokens by is driven to nothing.

Paper: Zhang et al., "Forget-Me-Not: Learning to Forget in Text-to-Image Diffusion Models", CVPR 2024 workshops: with
A_l the attention of layer l, of every head and patch to every token, on noisy pictures under the concept's prompt,

    L = | cat_l A_l[:, :, the concept's tokens] |_F

the root of the sum of squares over layers, heads, patches and these tokens; with `end` the first end token, which
stands for the whole prompt, is one of them. Attention sums to one, so that it goes to the other tokens. Official code:
SHI-Labs/Forget-Me-Not (MIT). Differences from it:
- pictures are finished latents of a bank of the targets' prompts, instead of real ones or a folder of drawn ones;
- the concept's tokens are those of its name and synonyms, wherever these stand in a prompt; no token is learnt for it
  by textual inversion first;
- queries and keys alone are trained unless `layers` says otherwise: nothing else of a layer moves its attention;
- networks with cross-attention alone: where text and image attend to each other it is refused.
It has no anchor and no term for what stays, as in the paper: what a target becomes is left to the network.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from erase.context import RunContext
from erase.edit import Edit
from erase.errors import BadModel
from erase.methods._presets import Presets, presets
from erase.methods._words import concept_words
from erase.methods.training.layers import Layers
from erase.methods.training.pictures import Noised
from erase.methods.training.session import Session
from erase.methods.training.trainer import Trained
from erase.models import Encoding, Model
from erase.registry import name_of
from erase.sampling.guides import hooked
from erase.task import Task


@dataclass(frozen=True)
class FMN(Trained):
    """Options of Forget-Me-Not, beside those of all training.

    `end`: whether the end token's attention goes, too, which erases further and harms more. `layers` as in ESD.
    """

    # The official code's, which trains the whole network; the decay is that of its optimiser where none is named.
    presets: ClassVar[Presets] = presets(
        {"steps": 35, "learning_rate": 2e-6, "batch": 1, "weight_decay": 0.01, "layers": "all", "end": True}
    )

    batch: int = 4
    end: bool = True
    layers: Layers = "qk"

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        session = Session.start(self, model, task, work=work)
        network = session.denoiser.network
        check_cross_attention(self, session)
        bank = session.bank(session.plan((text, ()) for text, _ in session.asked))
        parameters = session.chosen(self.layers)
        tokens = {text: self._tokens(session, task, text) for text, _ in session.asked}

        def loss(step: int, generator: torch.Generator) -> Tensor:
            clean, texts = bank.draw_clean(self.batch, generator)
            with attention_inputs(network) as seen:
                Noised.of(session.denoiser, clean, generator).predicted(session, texts)
            chosen = torch.stack([tokens[text] for text in texts])
            return fmn_loss([attention_to(*one, chosen=chosen) for one in seen.values()])

        session.train(parameters, loss)
        return session.edit(deltas=session.deltas(parameters))

    def _tokens(self, session: Session, task: Task, text: str) -> Tensor:
        """Which of a prompt's tokens [tokens] are the concept's, and with `end` its end token."""
        encoding, found = words_in(session, task, text)
        found[int(encoding.parts[0].lengths[0]) - 1] |= self.end
        return torch.tensor(found)


def check_cross_attention(method: object, session: Session) -> None:
    """Raises BadModel for a network that mixes text and image otherwise."""
    if hasattr(session.denoiser.network, "context_embedder"):
        raise BadModel(
            f"{name_of(method)} needs cross-attention, which {session.model.family} does not have; try esd, gem or "
            "distil."
        )


def words_in(session: Session, task: Task, text: str) -> tuple[Encoding, list[bool]]:
    """A prompt's encoding, of the task's words behind it too, and which of the prompt's tokens are of these words."""
    encoding = session.model.encode([text, *concept_words(task)])
    part = encoding.parts[0]
    lengths, ids = part.lengths.tolist(), part.ids.tolist()
    words = [row[part.starts : length - 1] for row, length in zip(ids[1:], lengths[1:], strict=True)]
    return encoding, places(ids[0], words)


def places(ids: Sequence[int], words: Sequence[Sequence[int]]) -> list[bool]:
    """Which of a prompt's token ids belong to one of the words."""
    found = [False] * len(ids)
    for word in words:
        for start in range(len(ids) - len(word) + 1):
            if list(ids[start : start + len(word)]) == list(word):
                found[start : start + len(word)] = [True] * len(word)
    return found


@contextlib.contextmanager
def attention_inputs(network: nn.Module) -> Iterator[dict[str, list[Any]]]:
    """Each cross-attention layer with its queries and its keys, as its last call made them, filled within the block."""
    seen: dict[str, list[Any]] = {}

    def noting(name: str, place: int) -> Any:
        def note(module: Any, inputs: Any, output: Tensor) -> Tensor:
            seen[name][place] = output
            return output

        return note

    layers = [(name, layer) for name, layer in network.named_modules() if name.endswith(".attn2")]
    seen |= {name: [layer, None, None] for name, layer in layers}
    hooks = [(layer.to_q, noting(name, 1)) for name, layer in layers]
    hooks += [(layer.to_k, noting(name, 2)) for name, layer in layers]
    with hooked(hooks):
        yield seen


def attention_to(layer: Any, queries: Tensor, keys: Tensor, *, chosen: Tensor) -> Tensor:
    """A layer's attention to chosen tokens, zero elsewhere, [batch, heads, patches, tokens]; `chosen` [batch, tokens].

    `queries` [batch, patches, width], `keys` [batch, tokens, width].
    """
    query, key = (value.float().view(*value.shape[:2], layer.heads, -1).transpose(1, 2) for value in (queries, keys))
    attention: Tensor = (float(layer.scale) * query @ key.transpose(2, 3)).softmax(-1)
    return attention * chosen[:, None, None].to(attention)


def fmn_loss(attention: Sequence[Tensor]) -> Tensor:
    """The root of the sum of squares of all layers' attention to the concept's tokens."""
    return torch.stack([one.square().sum() for one in attention]).sum().sqrt()
