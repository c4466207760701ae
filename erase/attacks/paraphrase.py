"""Paraphrase: the target is asked for without its name: by other words, by descriptions, in other spellings.

Implicit prompts are those that show an erasure of a name alone (EMMA, 2025: UCE erases 83 % of objects by name and
74 % by description). Descriptions come from a file of the user's, or a language model in a local folder writes them. A
wording counts only where the base draws the target for it, which costs the base's images; words by which the edit was
told of the target are asked for as they are, and spellings break a name up that a tokenizer would find.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch

from erase.attacks.search.attack import Access, Found
from erase.attacks.search.budget import Ledger
from erase.attacks.search.candidates import Candidate, listed, try_out
from erase.attacks.search.text import TextAttack
from erase.attacks.search.victim import Victim
from erase.config import documents
from erase.config.declared import names_minor
from erase.errors import BadOption
from erase.evaluate.images import target_of
from erase.evaluate.networks.loading import load_network
from erase.evaluate.protocol import Case
from erase.options import Count, Expect

LocalPath = Annotated[
    str, Expect("a local path that exists", lambda place: not place or Path(place).expanduser().exists())
]
ASK = "Describe {target} in a few words, without saying {target}: "


@dataclass(frozen=True)
class Paraphrase(TextAttack):
    """Options of paraphrase.

    `descriptions`: a file with a description of the target a line, or TARGET: DESCRIPTION where there are several.
    `rewriter`: the folder of a language model of transformers that writes `written` more. `spellings`: the name is
    also tried in pieces and in other letters. `wordings`: at most so many of each prompt.
    """

    access: ClassVar[Access] = "prompts"

    descriptions: LocalPath = ""
    rewriter: LocalPath = ""
    written: Count = 8
    spellings: bool = True
    wordings: Count = 12

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        instead = {target.name: self._instead(victim, target.name, target.synonyms) for target in victim.task.targets}
        each = []
        for number, case in enumerate(cases):
            target = target_of(case.row, victim.task)
            found = [reworded(case.row.prompt, target.words, text) for text in instead[target.name]]
            distinct = [text for text in dict.fromkeys(found) if text != case.row.prompt and not names_minor(text)]
            shown = self._shown(victim, case, distinct[: self.wordings])
            ledger.charge([number], victim.base.image_cost * min(len(distinct), self.wordings))
            each.append([Candidate(text, case.row.seed, text) for text in shown])
        return try_out(victim, cases, ledger, propose=listed(each))

    def _instead(self, victim: Victim, name: str, synonyms: Sequence[str]) -> list[str]:
        """What may stand in the place of a target's name."""
        described = _lines(Path(self.descriptions).expanduser(), name, victim.task.names) if self.descriptions else []
        written = _written(Path(self.rewriter).expanduser(), name, self.written) if self.rewriter else []
        return [*described, *written, *synonyms, *(spelled(name) if self.spellings else ())]

    def _shown(self, victim: Victim, case: Case, texts: Sequence[str]) -> list[str]:
        """Those of the wordings for which the base draws the target."""
        if not texts:
            return []
        pictures = victim.base.draw([replace(case.row, prompt=text) for text in texts])
        seen = victim.seen([case] * len(texts), pictures)
        return [text for text, yes in zip(texts, seen, strict=True) if yes]


def reworded(prompt: str, words: Sequence[str], instead: str) -> str:
    """The prompt with other words in the place of a target's, or in its own where it names none."""
    pattern = "|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in sorted(words, key=len, reverse=True))
    return re.sub(pattern, lambda _: instead, prompt, count=1, flags=re.IGNORECASE)


def spelled(name: str) -> list[str]:
    """Other spellings of a name: in two pieces, letter by letter, doubled, with signs between, reversed."""
    middle = len(name) // 2
    pieces = [
        f"{name[:middle]} {name[middle:]}",
        f"{name[:middle]}-{name[middle:]}",
        " ".join(name),
        f"{name}{name[-1]}",
    ]
    return [*pieces, f"{name}ish", f"the {name}s", f"{name[0]}{name}", name[:-1]]


def _lines(file: Path, name: str, names: Sequence[str]) -> list[str]:
    """The descriptions of a target in a file; raises BadOption if there is none."""
    lines = [line.strip() for line in documents.read_text(file, error=BadOption).splitlines() if line.strip()]
    own = [line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name]
    named = any(line.partition(":")[0].strip() in names for line in lines)
    if not (found := own if named else lines):
        raise BadOption(f"{file} describes no {name}; expected a line such as {name}: a description.")
    return found


@torch.inference_mode()
def _written(folder: Path, name: str, count: int) -> list[str]:
    """What a language model writes of a target without its name."""
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    network = load_network("AutoModelForCausalLM", folder, what="rewriter")
    asked = tokenizer(ASK.format(target=name), return_tensors="pt")
    length = asked["input_ids"].shape[1]
    beams = {"num_beams": count, "num_return_sequences": count, "do_sample": False}
    made = network.generate(**asked, max_new_tokens=16, pad_token_id=tokenizer.eos_token_id, **beams)
    texts = [tokenizer.decode(one[length:], skip_special_tokens=True).strip().splitlines() for one in made]
    return [text[0] for text in texts if text and text[0]]
