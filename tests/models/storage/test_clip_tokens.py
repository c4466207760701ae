"""CLIP's tokenizer as the package carries it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from erase.models.storage.clip_tokens import VOCABULARY, byte_symbols, clip_tokenizer


def test_prompts_have_the_token_numbers_of_clip() -> None:
    # 320 a, 1125 photo, 539 of, 2368 cat: CLIP's published vocabulary.
    assert clip_tokenizer()("A photo of a cat")["input_ids"] == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_every_byte_has_a_symbol_of_its_own() -> None:
    symbols = byte_symbols()
    assert len(set(symbols)) == 256
    assert symbols[0] == "!"
    assert len(clip_tokenizer()) == VOCABULARY


def test_words_that_are_in_no_vocabulary_are_spelled() -> None:
    tokenizer = clip_tokenizer()
    assert tokenizer.decode(tokenizer("zxqj ünïcode 東")["input_ids"], skip_special_tokens=True) == "zxqj ünïcode 東"
    assert tokenizer.unk_token_id not in tokenizer("zxqj ünïcode 東")["input_ids"][1:-1]


@pytest.mark.parametrize(("pad", "number"), [("<|endoftext|>", 49407), ("!", 0)])
def test_padding_is_the_encoders_own(pad: str, number: int) -> None:
    tokens = clip_tokenizer(pad=pad)("wow!", padding="max_length", return_tensors="pt")
    assert tokens["input_ids"].shape == (1, 77)
    assert tokens["input_ids"][0, 4:].tolist() == [number] * 73
    assert int(tokens["attention_mask"].sum()) == 4


@pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is None, reason="open_clip_torch, whose wheel holds the merges, is missing"
)
def test_the_merges_are_the_first_of_open_clips_file() -> None:
    import gzip

    spec = importlib.util.find_spec("open_clip")
    assert spec is not None
    assert spec.origin is not None
    lines = gzip.decompress((Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode()
    import erase.models.storage.clip_tokens as tokens

    carried = gzip.decompress(tokens._MERGES.read_bytes()).decode().splitlines()
    assert carried == lines.splitlines()[1 : 1 + len(carried)]
