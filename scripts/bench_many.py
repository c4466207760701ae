"""Measures closed forms that erase many concepts at once, on the shapes of Stable Diffusion 1.x with random weights.

    python scripts/bench_many.py            100 people and 1,000 concepts, CLIP's twelve layers
    python scripts/bench_many.py --quick    20 people and 100 concepts, three layers

Names are made up, two words of two and three syllables each, and all become *a person*. Weights are random, which says
nothing of images; CLIP reads the names by its own vocabulary. The last line is one JSON object:

identities_100_seconds  seconds of an edit of 100 people that holds 100 others, solved by `dp` and written to its file;
                        prompts are encoded within that time, and `encoding_seconds` of it, told apart, are not counted
keeps_error             the largest |M k - k| / |k| over the last word's states k of the people who are held, as the
                        edit's file holds M: what a held person's state moves, which `dp` says is nothing
keeps_error_all         the same over all 77 states of each of their prompts, padding included
aimed_share             share of people whose last word's state M o is nearer to the anchor's n than to their own o
concepts_1000_h         the harmonic mean, in percent, of two shares at 1,000 concepts and 100 keeps, by `method`:
                        `concepts_1000_aimed`, of the concepts whose state M o is nearer to its anchor's n than to its
                        own o; and `concepts_1000_held`, of the keeps whose outputs move by less than 10 % of what the
                        keys and values put out for them, |W M k - W k| < 0.1 |W k| over all of these weights together
unpadded_encoding       seconds of encoding 64 of the names with their padding over those of their own tokens alone,
                        which edits and keeps of last words take; `unpadded_difference`, by how much a state of
                        these tokens differs at most, as a share of its size
concepts_1000_others    that share of 100 names which nobody named, neither as a target nor as a keep
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from full_size import SHAPES, write_checkpoint
from torch import Tensor

from erase.edit import Edit
from erase.methods.dp import DP
from erase.methods.redirect import Redirect
from erase.methods.uce import UCE
from erase.models import Encoding, Model, open_model
from erase.task import Keep, Target, Task

ANCHOR, LITTLE = "a person", 0.1
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
METHODS: dict[str, Callable[[], Any]] = {
    "dp": lambda: DP(**DP.paper),
    "dp-anchor": lambda: DP(**{**DP.paper, "value": "anchor"}),
    "redirect": lambda: Redirect(phrasings="own"),
    "uce": lambda: UCE(**UCE.paper),
    "uce-held": lambda: UCE(**UCE.paper, preserve_scale=100.0, lamb=0.1),
}


def main() -> None:
    """Prints all figures as JSON, last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a narrow model, a fifth and a tenth of the names")
    parser.add_argument("--people", choices=METHODS, default="dp-anchor", help="what erases people")
    parser.add_argument("--concepts", choices=METHODS, default="uce-held", help="what erases concepts")
    given = parser.parse_args()
    torch.set_num_threads(1)
    shape = SHAPES["sd1"].narrow() if given.quick else SHAPES["sd1"]
    people, concepts, keeps = (20, 100, 10) if given.quick else (100, 1000, 100)
    names = made_up(concepts + 2 * keeps + people)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.safetensors"
        write_checkpoint(shape, source)
        model = open_model(source)
        others, found = names[concepts:], unpadded(model, names[:64])
        found |= identities(model, others[:people], others[-people:], method=METHODS[given.people]())
        print(json.dumps(found), flush=True)
        held, unnamed = others[:keeps], others[keeps : 2 * keeps]
        found |= many(model, names[:concepts], held, unnamed=unnamed, method=METHODS[given.concepts]())
    print(json.dumps(found | {"people": people, "concepts": concepts, "keeps": keeps, "method": given.concepts}))


def made_up(count: int) -> list[str]:
    """So many different names, the same every time."""
    rng, found = random.Random(0), dict[str, None]()
    while len(found) < count:
        found[" ".join("".join(rng.sample(SYLLABLES, parts)) for parts in (2, 3)).title()] = None
    return list(found)


def task_of(targets: Sequence[str], keeps: Sequence[str]) -> Task:
    return Task(tuple(Target(name, "identity", ANCHOR) for name in targets), tuple(Keep(k, "identity") for k in keeps))


def edited(model: Model, task: Task, *, method: Any) -> tuple[Edit, float, float]:
    """The edit, its seconds without encoding prompts and written to a file, and the seconds of encoding."""
    encode, spent = model.encode, [0.0]

    def timed(prompts: Sequence[str], *, padding: bool = True) -> Encoding:
        begun = time.perf_counter()
        found = encode(prompts, padding=padding)
        spent[0] += time.perf_counter() - begun
        return found

    model.encode = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        method(model, task).save(file := Path(folder) / "edit.safetensors")
        total = time.perf_counter() - begun
        made = Edit.load(file)
    model.encode = encode  # type: ignore[method-assign]
    return made, total - spent[0], spent[0]


def identities(model: Model, people: Sequence[str], held: Sequence[str], *, method: Any) -> dict[str, float]:
    """Figures of erasing people while as many others are held."""
    edit, solving, encoding = edited(model, task_of(people, held), method=method)
    old, kept = last_states(model, people), last_states(model, held)
    everything = torch.cat([model.encode([name]).states.flatten(0, 1) for name in held]).double()
    return {
        "identities_100_seconds": solving,
        "encoding_seconds": encoding,
        "keeps_error": float(relative(edit, kept).max()),
        "keeps_error_all": float(relative(edit, everything).max()),
        "aimed_share": aimed(edit, old, last_states(model, [ANCHOR])),
        "identities_rank": edit.rank,
    }


def many(
    model: Model, targets: Sequence[str], held: Sequence[str], *, unnamed: Sequence[str], method: Any
) -> dict[str, float]:
    """Figures of erasing many concepts while some are held."""
    edit, solving, encoding = edited(model, task_of(targets, held), method=method)
    weights = [model.weight(site.name).double() for site in model.sites() if site.reads == "tokens"]
    seen = sum(weight.T @ weight for weight in weights)  # |W x|^2 over all weights is x^T seen x
    shares = [
        aimed(edit, last_states(model, targets), last_states(model, [ANCHOR])),
        *(
            float((relative(edit, last_states(model, names), seen) < LITTLE).double().mean())
            for names in (held, unnamed)
        ),
    ]
    mean = 2 / (1 / shares[0] + 1 / shares[1]) if min(shares[:2]) else 0.0
    figures = dict(zip(("concepts_1000_aimed", "concepts_1000_held", "concepts_1000_others"), shares, strict=True))
    seconds = {"concepts_1000_seconds": solving, "concepts_1000_encoding_seconds": encoding}
    return {"concepts_1000_h": 100 * mean, **figures, **seconds, "concepts_1000_rank": edit.rank}


def unpadded(model: Model, prompts: Sequence[str]) -> dict[str, float]:
    """How much faster prompts are encoded without padding, and how far a state of their own tokens differs at most."""
    model.encode(prompts[:1])  # loads the encoder
    spent, states = [], []
    for padding in (True, False):
        begun = time.perf_counter()
        part = model.encode(prompts, padding=padding).parts[0]
        spent.append(time.perf_counter() - begun)
        states.append(part.states[part.mask])
    difference = float(((states[0] - states[1]).norm(dim=1) / states[0].norm(dim=1)).max())
    return {"unpadded_encoding": spent[0] / spent[1], "unpadded_difference": difference}


def last_states(model: Model, prompts: Sequence[str]) -> Tensor:
    """The state of each prompt's last word, [prompts, width]."""
    found = []
    for begin in range(0, len(prompts), 64):
        part = model.encode(prompts[begin : begin + 64], padding=False).parts[0]
        found.append(part.states[torch.arange(len(part.last)), part.last].double())
    return torch.cat(found)


def moved(edit: Edit, states: Tensor) -> Tensor:
    """What the edit's map adds to each state."""
    one = edit.text_maps[0]
    return states @ one.down.double().T @ one.up.double().T


def aimed(edit: Edit, old: Tensor, new: Tensor) -> float:
    """The share of old states that the edit brings nearer to the new one than to where they were."""
    after = old + moved(edit, old)
    return float(((after - new).norm(dim=1) < (after - old).norm(dim=1)).double().mean())


def relative(edit: Edit, states: Tensor, seen: Tensor | None = None) -> Tensor:
    """How far each state moves as a share of its size, or as the weights of second moment `seen` put it out."""
    metric = torch.eye(states.shape[1], dtype=torch.float64) if seen is None else seen
    more = moved(edit, states)
    return ((more @ metric * more).sum(1) / (states @ metric * states).sum(1)).sqrt()


if __name__ == "__main__":
    main()
