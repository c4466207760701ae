"""Which tokens of prompts are edited, with CLIP's own merges: names that it spells in several pieces."""

from __future__ import annotations

import pytest
import torch

from erase.methods.closed_form.states import match
from erase.models.encoding import TokenSequence
from erase.models.storage.clip_tokens import clip_tokenizer

# How CLIP spells them; the numbers of the pieces follow from these.
SPELLED = {
    "van gogh": ["van</w>", "gogh</w>"],
    "Kelly McKernan": ["kelly</w>", "mck", "ernan</w>"],
    "a painter": ["a</w>", "painter</w>"],
    "Ajin: Demi Human": ["aj", "in</w>", ":</w>", "demi</w>", "human</w>"],
}


def stretch(*prompts: str) -> TokenSequence:
    tokens = clip_tokenizer()(list(prompts), padding="max_length", return_tensors="pt")
    return TokenSequence(torch.empty(len(prompts), 77, 1), tokens["input_ids"], tokens["attention_mask"].sum(1))


@pytest.mark.parametrize("name", sorted(SPELLED))
def test_a_name_is_spelled_as_clip_spells_it_and_its_last_piece_is_found(name: str) -> None:
    tokenizer, part = clip_tokenizer(), stretch(name, f"a starry night by {name}")
    assert tokenizer.convert_ids_to_tokens(part.ids[0, 1 : int(part.lengths[0]) - 1].tolist()) == SPELLED[name]
    for row, before in ((0, 0), (1, 4)):
        assert int(part.last[row]) == before + len(SPELLED[name])
        assert tokenizer.convert_ids_to_tokens(int(part.ids[row, part.last[row]])) == SPELLED[name][-1]


@pytest.mark.parametrize(("old", "new"), [("Kelly McKernan", "a painter"), ("van gogh", "Ajin: Demi Human")])
def test_names_of_different_lengths_are_matched_from_their_last_pieces(old: str, new: str) -> None:
    part = stretch(f"a starry night by {old}", f"a starry night by {new}")
    own, others = len(SPELLED[old]), len(SPELLED[new])
    positions, becomes = match(part, 0, 1, tokens="last")
    assert (positions.tolist(), becomes.tolist()) == ([4 + own], [4 + others])
    positions, becomes = match(part, 0, 1, tokens="all")
    assert (positions[0], positions[-1]) == (5, 76)  # from the first piece that differs to the end
    assert becomes.tolist() == [min(76, place + others - own) for place in positions.tolist()]
    positions, becomes = match(part, 0, 1, tokens="aligned")
    assert positions[0] == 4 + own
    assert int(positions[-1]) == 76 - max(0, others - own)
    assert (becomes - positions).unique().tolist() == [others - own]


def test_the_empty_prompt_takes_the_place_of_a_name_state_by_state() -> None:
    positions, becomes = match(stretch("Kelly McKernan", ""), 0, 1, tokens="all")
    assert positions.tolist() == becomes.tolist() == list(range(1, 77))
