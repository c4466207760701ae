"""Where the tensors of a transformer stand in the files in which FLUX.1 and Stable Diffusion 3 were published.

These hold queries, keys and values (in FLUX.1's single blocks the first half of the feed-forward part as well) as one
tensor, and scale and shift of the last modulations the other way around. The files hold the transformer alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from erase.errors import BadModel
from erase.models.storage.weights import laid

# What stands for a part of a name: a block's number, the kind of tensor, the turn in a joined one, another attention.
_TOKENS = {"N": r"\d+", "S": "weight|bias", "J": "[qkv]|mlp", "K": "[qk]", "A": "2?"}
_TURNS = ("q", "k", "v", "mlp")
Rules = Mapping[str, Mapping[str, str]]  # beginnings of diffusers' names and the file's, then the rest of both
_FLUX: Rules = MappingProxyType(
    {
        "time_text_embed. > ": {
            "timestep_embedder.linear_1.<S>": "time_in.in_layer.<S>",
            "timestep_embedder.linear_2.<S>": "time_in.out_layer.<S>",
            "text_embedder.linear_1.<S>": "vector_in.in_layer.<S>",
            "text_embedder.linear_2.<S>": "vector_in.out_layer.<S>",
            "guidance_embedder.linear_1.<S>": "guidance_in.in_layer.<S>",
            "guidance_embedder.linear_2.<S>": "guidance_in.out_layer.<S>",
        },
        " > ": {
            "context_embedder.<S>": "txt_in.<S>",
            "x_embedder.<S>": "img_in.<S>",
            "proj_out.<S>": "final_layer.linear.<S>",
            "norm_out.linear.<S>": "final_layer.adaLN_modulation.1.<S>",
        },
        "transformer_blocks.<N>. > double_blocks.<N>.": {
            "norm1.linear.<S>": "img_mod.lin.<S>",
            "norm1_context.linear.<S>": "txt_mod.lin.<S>",
            "attn.to_<J>.<S>": "img_attn.qkv.<S>",
            "attn.add_<J>_proj.<S>": "txt_attn.qkv.<S>",
            "attn.norm_q.weight": "img_attn.norm.query_norm.scale",
            "attn.norm_k.weight": "img_attn.norm.key_norm.scale",
            "attn.norm_added_q.weight": "txt_attn.norm.query_norm.scale",
            "attn.norm_added_k.weight": "txt_attn.norm.key_norm.scale",
            "attn.to_out.0.<S>": "img_attn.proj.<S>",
            "attn.to_add_out.<S>": "txt_attn.proj.<S>",
            "ff.net.0.proj.<S>": "img_mlp.0.<S>",
            "ff.net.2.<S>": "img_mlp.2.<S>",
            "ff_context.net.0.proj.<S>": "txt_mlp.0.<S>",
            "ff_context.net.2.<S>": "txt_mlp.2.<S>",
        },
        "single_transformer_blocks.<N>. > single_blocks.<N>.": {
            "norm.linear.<S>": "modulation.lin.<S>",
            "attn.to_<J>.<S>": "linear1.<S>",
            "proj_<J>.<S>": "linear1.<S>",
            "attn.norm_q.weight": "norm.query_norm.scale",
            "attn.norm_k.weight": "norm.key_norm.scale",
            "proj_out.<S>": "linear2.<S>",
        },
    }
)
_SD3: Rules = MappingProxyType(
    {
        "time_text_embed. > ": {
            "timestep_embedder.linear_1.<S>": "t_embedder.mlp.0.<S>",
            "timestep_embedder.linear_2.<S>": "t_embedder.mlp.2.<S>",
            "text_embedder.linear_1.<S>": "y_embedder.mlp.0.<S>",
            "text_embedder.linear_2.<S>": "y_embedder.mlp.2.<S>",
        },
        " > ": {
            "pos_embed.pos_embed": "pos_embed",
            "pos_embed.proj.<S>": "x_embedder.proj.<S>",
            "context_embedder.<S>": "context_embedder.<S>",
            "proj_out.<S>": "final_layer.linear.<S>",
            "norm_out.linear.<S>": "final_layer.adaLN_modulation.1.<S>",
        },
        "transformer_blocks.<N>. > joint_blocks.<N>.x_block.": {
            "norm1.linear.<S>": "adaLN_modulation.1.<S>",
            "attn<A>.to_<J>.<S>": "attn<A>.qkv.<S>",
            "attn<A>.norm_<K>.weight": "attn<A>.ln_<K>.weight",
            "attn<A>.to_out.0.<S>": "attn<A>.proj.<S>",
            "ff.net.0.proj.<S>": "mlp.fc1.<S>",
            "ff.net.2.<S>": "mlp.fc2.<S>",
        },
        "transformer_blocks.<N>.  > joint_blocks.<N>.context_block.": {
            "norm1_context.linear.<S>": "adaLN_modulation.1.<S>",
            "attn.add_<J>_proj.<S>": "attn.qkv.<S>",
            "attn.norm_added_<K>.weight": "attn.ln_<K>.weight",
            "attn.to_add_out.<S>": "attn.proj.<S>",
            "ff_context.net.0.proj.<S>": "mlp.fc1.<S>",
            "ff_context.net.2.<S>": "mlp.fc2.<S>",
        },
    }
)
LAYOUTS: Mapping[str, Rules] = MappingProxyType({"flux": _FLUX, "stable-diffusion-3": _SD3})


@dataclass(frozen=True)
class Member:
    """A tensor's part in one of the file's: the file's key, its turn in a joined one, and whether its halves change."""

    key: str
    turn: int = 0
    swapped: bool = False

    def stored(self, value: Tensor) -> Tensor:
        """The value as the file holds it."""
        return laid(value, "swapped" if self.swapped else "same")


def members_of(keys: Iterable[str], family: str) -> dict[str, Member]:
    """Where each tensor of a transformer stands in a published file; raises BadModel for one that has no place."""
    known, rules = list(keys), list(_spelled_out(LAYOUTS[family]))
    swapped: tuple[str, ...] = ("norm_out.linear.",)
    if family == "stable-diffusion-3":  # whose last block's text is modulated as the output is
        blocks = [int(key.split(".")[1]) for key in known if key.startswith("transformer_blocks.")]
        swapped += (f"transformer_blocks.{max(blocks, default=0)}.norm1_context.",)
    found = {}
    for key in known:
        matches = ((pattern.fullmatch(key), spelled) for pattern, spelled in rules)
        match, spelled = next(((one, to) for one, to in matches if one), (None, ""))
        if match is None:
            raise BadModel(f"the transformer's {key} has no place in a published {family} file; export a folder.")
        named = match.groupdict()
        filled = re.sub(r"<(\w)>", lambda token, named=named: str(named[token[1]]), spelled)  # type: ignore[misc]
        found[key] = Member(filled, _TURNS.index(named.get("J") or "q"), key.startswith(swapped))
    return found


def _spelled_out(rules: Rules) -> Iterator[tuple[re.Pattern[str], str]]:
    """Each rule as a pattern of diffusers' whole keys, and the file's key with the tokens left in it."""
    for beginnings, rest in rules.items():
        ours, theirs = (part.strip() for part in beginnings.split(" > "))
        for one, other in rest.items():
            pattern = re.sub(r"<(\w)>", lambda token: f"(?P<{token[1]}>{_TOKENS[token[1]]})", re.escape(ours + one))
            yield re.compile(pattern), theirs + other
