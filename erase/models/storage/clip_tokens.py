"""CLIP's tokenizer, built from the merges that the package carries: single-file checkpoints come without one."""

from __future__ import annotations

import gzip
from itertools import chain
from pathlib import Path
from typing import Any

_MERGES = Path(__file__).parent / "_clip" / "merges.txt.gz"
_START, _END = "<|startoftext|>", "<|endoftext|>"
_LENGTH = 77
VOCABULARY = 49408  # tokens


def clip_tokenizer(*, pad: str = _END) -> Any:
    """The tokenizer of CLIP (`pad` its end token) and of OpenCLIP (`pad` an exclamation mark)."""
    from transformers import CLIPTokenizer

    merges = [tuple(line.split()) for line in gzip.decompress(_MERGES.read_bytes()).decode().splitlines()]
    single = byte_symbols()
    tokens = [*single, *(f"{symbol}</w>" for symbol in single), *("".join(pair) for pair in merges), _START, _END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=_LENGTH)


def byte_symbols() -> list[str]:
    """A visible symbol for each byte, in the vocabulary's order: printable ones first, the others from 256 on."""
    printable = list(chain(range(ord("!"), ord("~") + 1), range(ord("¡"), ord("¬") + 1), range(ord("®"), ord("ÿ") + 1)))
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + number) for number in range(others)]
