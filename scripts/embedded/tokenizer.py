"""Builds the embedded model's tokenizer: CLIP's byte-pair scheme, learnt from the captions and the icons' names.

python scripts/embedded/tokenizer.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from captions import caption, load_words
from icons import BUILD, load_styles
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

LENGTH = 32  # tokens of a prompt, start and end included
VOCABULARY = 2400
START, END = "<|startoftext|>", "<|endoftext|>"
FOLDER = BUILD / "tokenizer"


def corpus(modules: Path) -> list[str]:
    """Captions, often, so that their words are whole tokens; and every icon's name, for the spelling of other words."""
    words, rng = load_words(), np.random.default_rng(0)
    styles, things = len(words.styles), len(words.objects)
    lines = [caption(words, int(rng.integers(styles)), int(rng.integers(things)), rng=rng) for _ in range(20_000)]
    for style in load_styles().values():
        names = json.loads((modules / style["package"] / "icons.json").read_text(encoding="utf-8"))["icons"]
        lines += [name.replace("-", " ") for name in sorted(names)]
    return lines


def learn(lines: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-pair model with CLIP's end-of-word mark; every byte has a token."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(" ", "removed"),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [(left, right) for left, right in model["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = letters + [f"{letter}</w>" for letter in letters] + [left + right for left, right in merges]
    ordered = [*dict.fromkeys(tokens), START, END]
    return {token: number for number, token in enumerate(ordered)}, merges


def main() -> None:
    vocabulary, merges = learn(corpus(BUILD / "icons" / "node_modules"))
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)
    tokenizer.save_pretrained(FOLDER)
    whole = sum(len(tokenizer(word)["input_ids"]) == 3 for group in load_words().objects for word in group[:1])
    print(f"{FOLDER}: {len(vocabulary)} tokens, {whole} object names are one token each")
    print(tokenizer.tokenize("a kitty in twemoji style, zygomorphic"))


if __name__ == "__main__":
    main()
