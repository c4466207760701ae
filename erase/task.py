"""What to erase, what it becomes, and what must stay; and whether a text names a concept."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, get_args

from erase.errors import BadTask

Kind = Literal["style", "object", "unsafe", "identity"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DOMAINS = ("style", "object", "identity")
_DOMAIN_OF: Mapping[str, str] = {"style": "style", "object": "object", "unsafe": "object", "identity": "identity"}
_PROMPT = "prompt"  # in front of a keep that is a whole prompt, as a kind stands in front of a concept

# A possessive ending, which is no part of the word; then words, and signs of scripts that put no space between them.
_POSSESSIVE = re.compile(r"(?<=\w)['’]s?(?!\w)")
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_BEGINS_A_PROMPT = re.compile(r"(a|an|the) \S")


@dataclass(frozen=True, repr=False)
class Target:
    """One concept to erase.

    `anchor` is what it becomes ("" is the empty prompt), `synonyms` other words for it that are erased with it,
    `prompts` templates with `{}` in the concept's place, whose words around it a method may learn from. `pair`: the
    labels that a prompt has to carry together where the concept is one thing in one manner, such as
    `{"object": "cat", "style": "noto"}`. `article` is put before the name in place of the one that English asks for.
    Raises BadTask.
    """

    name: str
    kind: Kind = "style"
    anchor: str = ""
    synonyms: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    pair: Mapping[str, str] = field(default_factory=dict)
    article: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadTask(f'target "{self.name}" is of kind "{self.kind}"; expected one of {", ".join(KINDS)}.')
        for word in self.words:
            _check_word("a target", word)
        object.__setattr__(self, "anchor", self.anchor.strip())
        if self.anchor:
            _check_word(f'the anchor of target "{self.name}"', self.anchor)
        if names(self.anchor, self):
            raise BadTask(
                f'target "{self.name}" has itself in its anchor "{self.anchor}"; name what it is to become instead.'
            )
        for template in self.prompts:
            _check_template(template, self.name)
        if self.article not in ("", "a", "an", "the"):
            raise BadTask(f'the article of target "{self.name}" is "{self.article}"; expected a, an or the.')
        for domain in self.pair:
            if domain not in DOMAINS:
                raise BadTask(f'pair of target "{self.name}" names "{domain}"; expected {", ".join(DOMAINS)}.')

    def __repr__(self) -> str:
        others = f", {len(self.synonyms)} synonyms" if self.synonyms else ""
        return f"Target({self.name!r} -> {self.anchor or 'nothing'!r}, {self.kind}{others})"

    @property
    def words(self) -> tuple[str, ...]:
        """The name and its synonyms."""
        return (self.name, *self.synonyms)

    @property
    def domain(self) -> str:
        """The label of a prompt row that names concepts of this kind."""
        return _DOMAIN_OF[self.kind]


@dataclass(frozen=True)
class Keep:
    """One concept that must stay, and its kind; raises BadTask."""

    name: str
    kind: Kind = "style"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadTask(f'keep "{self.name}" is of kind "{self.kind}"; expected one of {", ".join(KINDS)}.')
        _check_word("a keep", self.name)

    @property
    def domain(self) -> str:
        """The label of a prompt row that names concepts of this kind."""
        return _DOMAIN_OF[self.kind]


@dataclass(frozen=True, init=False, repr=False)
class Task:
    """What one erasure takes away and what it leaves; all targets are of one kind.

    `keeps` are concepts that must stay, `prompts` whole prompts that must. A keep given as text has the targets' kind,
    or the one before its colon ("object:apple"); "prompt:" before it, or a lower-case article, makes it a prompt ("a
    cat in blob style"). A target given as text is a style. Raises BadTask on no target, a repeated one, mixed kinds, or
    a keep that names a target.
    """

    targets: tuple[Target, ...]
    keeps: tuple[Keep, ...] = ()
    prompts: tuple[str, ...] = ()

    def __init__(
        self, targets: Iterable[Target | str], keeps: Iterable[Keep | str] = (), prompts: Iterable[str] = ()
    ) -> None:
        found = tuple(Target(target) if isinstance(target, str) else target for target in targets)
        _check_targets(found)
        said = [_keep(keep, found[0].kind) if isinstance(keep, str) else keep for keep in keeps]
        kept = [keep for keep in said if isinstance(keep, Keep)]
        whole = [*prompts, *(keep for keep in said if isinstance(keep, str))]
        object.__setattr__(self, "targets", found)
        object.__setattr__(self, "keeps", tuple(dict.fromkeys(kept)))
        object.__setattr__(self, "prompts", tuple(dict.fromkeys(whole)))
        for text in self.kept:
            if target := self.named_by(text):
                raise BadTask(
                    f'"{text}" must stay and names the target "{target.name}"; take it out of the keeps, or the target.'
                )

    def __repr__(self) -> str:
        targets = ", ".join(f"{one.name!r} -> {one.anchor or 'nothing'!r}" for one in self.targets)
        return f"Task({targets}; {self.targets[0].kind}, {len(self.keeps)} keeps, {len(self.prompts)} prompts kept)"

    @property
    def names(self) -> tuple[str, ...]:
        """The targets' names."""
        return tuple(target.name for target in self.targets)

    @property
    def kept(self) -> tuple[str, ...]:
        """Every text that must stay: the keeps' names, then the prompts."""
        return tuple(dict.fromkeys([*(keep.name for keep in self.keeps), *self.prompts]))

    @property
    def domain(self) -> str:
        """The label of a prompt row that names concepts of the targets' kind."""
        return self.targets[0].domain

    def named_by(self, text: str, labels: Mapping[str, str] | None = None) -> Target | None:
        """The first target that a text names, or that the labels of a prompt do; None if none is named."""
        return next((target for target in self.targets if asks_for(text, labels or {}, target)), None)

    def seen_in(self, labels: Mapping[str, str]) -> bool:
        """Whether what a judge sees in an image, by domain, is a target; of a pair, both of its labels."""
        return any(
            all(names(labels.get(domain, ""), word) for domain, word in target.pair.items())
            if target.pair
            else names(labels.get(target.domain, ""), target)
            for target in self.targets
        )

    @staticmethod
    def from_dict(value: Mapping[str, Any]) -> Task:
        """The task that `dataclasses.asdict` turned into plain values; a keep that is text is read as `Task` reads it.

        Raises BadTask.
        """
        try:
            targets = [
                Target(
                    **{
                        **one,
                        "kind": one["kind"],
                        "synonyms": tuple(one.get("synonyms", ())),
                        "prompts": tuple(one.get("prompts", ())),
                    }
                )
                for one in value["targets"]
            ]
            keeps = [Keep(**one) if isinstance(one, Mapping) else one for one in value.get("keeps", ())]
            return Task(targets, keeps, value.get("prompts", ()))
        except (KeyError, TypeError, AttributeError) as error:
            raise BadTask(f"a task cannot be read ({error}); expected targets with their names and kinds.") from error


def names(text: str, concept: Target | Keep | str) -> bool:
    """Whether a text names a concept: all words of its name, or of one of its synonyms, in their order.

    Letter case, accents, hyphens and possessive endings do not count, nor does the plural of a word; parts of words
    ("car" in "cartoon") and of names ("Gogh" for "Vincent van Gogh") are no naming. A target that is a pair is also
    named by a text that names both of its labels.
    """
    if isinstance(concept, Target):
        words, pair = concept.words, tuple(concept.pair.values())
        return any(_holds(text, word) for word in words) or (bool(pair) and all(_holds(text, one) for one in pair))
    return _holds(text, concept if isinstance(concept, str) else concept.name)


def asks_for(prompt: str, labels: Mapping[str, str], target: Target) -> bool:
    """Whether a prompt asks for a target: its label of that kind names it, or its text does; of a pair, all labels."""
    if target.pair and all(names(labels.get(domain, ""), word) for domain, word in target.pair.items()):
        return True
    return names(labels.get(target.domain, ""), target) or names(prompt, target)


def same(text: str, other: str) -> bool:
    """Whether two names are the same but for letter case, accents, hyphens and spaces."""
    return folded(text) == folded(other)


@lru_cache(maxsize=65536)
def folded(text: str) -> str:
    """The text's words alone, in lower case and without accents and possessive endings."""
    plain = unicodedata.normalize("NFKD", _POSSESSIVE.sub("", text).casefold())
    found = _WORD.findall("".join(sign for sign in plain if not unicodedata.combining(sign)))
    return " ".join(found) or " ".join(plain.split())


@lru_cache(maxsize=65536)
def _holds(text: str, name: str) -> bool:
    asked, there = folded(name).split(), folded(text).split()
    return bool(asked) and any(
        all(map(_same_word, there[begin:], asked)) for begin in range(len(there) - len(asked) + 1)
    )


@lru_cache(maxsize=65536)
def _same_word(word: str, other: str) -> bool:
    """Whether two words are the same, or one is the other's plural."""
    if word == other:
        return True
    if word[:1] != other[:1] or abs(len(word) - len(other)) > 3:  # which no plural of a regular word is past
        return False
    return other in _plurals(word) or word in _plurals(other)


@lru_cache(maxsize=4096)
def _plurals(word: str) -> frozenset[str]:
    from erase.english import plural

    return frozenset({plural(word), f"{word}s", f"{word}es" if word.endswith(("s", "x", "z", "ch", "sh")) else word})


def _keep(text: str, kind: Kind) -> Keep | str:
    """A keep given as text: a concept, or the prompt that it is."""
    before, colon, after = text.partition(":")
    if colon and before in KINDS and after.strip():
        return Keep(after.strip(), before)
    if colon and before == _PROMPT and after.strip():
        return after.strip()
    return text if _BEGINS_A_PROMPT.match(text) else Keep(text.strip(), kind)


def _check_targets(targets: tuple[Target, ...]) -> None:
    if not targets:
        raise BadTask("the list of targets is empty; name at least one concept to erase.")
    repeated = [name for name, count in Counter(folded(target.name) for target in targets).items() if count > 1]
    if repeated:
        raise BadTask(f'target "{repeated[0]}" is listed twice; name it once.')
    domains = sorted({target.domain for target in targets})
    if len(domains) > 1:
        raise BadTask(f"targets of kinds {' and '.join(domains)} in one task; make one task for each kind.")


def _check_word(what: str, word: str) -> None:
    """Raises BadTask for a name that cannot stand in a prompt."""
    if not word.strip():
        raise BadTask(f"{what} has no name; give the word that prompts use for it.")
    if "{" in word or "}" in word:
        raise BadTask(f'{what} is called "{word}"; braces mark places in templates and cannot stand in a name.')
    try:
        word.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadTask(f"{what} is called {word!r}, which is no text; give it in UTF-8.") from error


def _check_template(template: str, target: str) -> None:
    if template.count("{}") != 1 or "{" in template.replace("{}", "") or "}" in template.replace("{}", ""):
        raise BadTask(
            f'prompt "{template}" of target "{target}" must hold one {{}} for the concept and no other brace.'
        )
