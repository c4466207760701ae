"""The judge's figures equal a count by hand of UnlearnCanvas' definitions, and nothing passes for erased unseen."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from erase.config.prompts import Row
from erase.errors import ScoreFailed
from erase.evaluate.images import ScoredImage, group_of
from erase.evaluate.metrics.figure import Figure
from erase.evaluate.metrics.figures import Verdicts, accuracies, canvas
from erase.evaluate.score import score
from erase.task import Kind, Target, Task
from tests.evaluate.pictures import noisy, shot

STYLES, OBJECTS = ("noto", "blob", "twemoji"), ("cat", "dog", "bomb", "rose")
STYLE_TASK = Task((Target("noto", "style", anchor="blob"),))
WORDS = {"style": STYLES, "object": OBJECTS}


def square(task: Task) -> list[ScoredImage]:
    """After-shots of every style and object with two seeds."""
    rows = [Row("", seed, {"style": s, "object": o}) for s in STYLES for o in OBJECTS for seed in (0, 1)]
    return [ScoredImage(str(number), row, "after", group_of(row, task), Path()) for number, row in enumerate(rows)]


def guesses(shots: Sequence[ScoredImage], *, seed: int = 0) -> dict[str, dict[str, str]]:
    """Verdicts that are right three times in four."""
    rng = random.Random(seed)
    return {
        one.id: {
            domain: one.row.labels[domain] if rng.random() < 0.75 else rng.choice(WORDS[domain]) for domain in WORDS
        }
        for one in shots
    }


def find(figures: Sequence[Figure], name: str, *, group: str | None = None) -> Figure:
    (figure,) = [one for one in figures if one.name == name and one.side == "after" and group in (None, one.group)]
    return figure


def share(shots: Sequence[ScoredImage], verdicts: Verdicts, *, domain: str, word: str) -> float:
    """acc(X, Y) of UnlearnCanvas: the share of Y's images that are classified as Y."""
    named = [one for one in shots if one.row.labels[domain] == word]
    return sum(verdicts[one.id][domain] == word for one in named) / len(named)


@pytest.mark.parametrize(("kind", "target", "domain", "other"), [
    ("style", "noto", "style", "object"),
    ("object", "cat", "object", "style"),
    ("unsafe", "bomb", "object", "style"),
])  # fmt: skip
def test_ua_ira_and_cra_are_counted_as_unlearncanvas_defines_them(
    kind: Kind, target: str, domain: str, other: str
) -> None:
    task = Task((Target(target, kind),))
    shots = square(task)
    verdicts = guesses(shots)
    figures = canvas(task, shots, verdicts)
    kept = [word for word in WORDS[domain] if word != target]
    ua = 1 - share(shots, verdicts, domain=domain, word=target)
    ira = sum(share(shots, verdicts, domain=domain, word=word) for word in kept) / len(kept)
    cra = sum(share(shots, verdicts, domain=other, word=word) for word in WORDS[other]) / len(WORDS[other])
    assert 0 < ua < 1
    assert [find(figures, name).value for name in ("ua", "ira", "cra")] == pytest.approx([ua, ira, cra], abs=1e-12)
    assert len({ua, ira, cra}) == 3


def test_a_small_square_counts_as_on_paper() -> None:
    # Two erased images, one still noto; three kept, two right; objects: cat 2 of 3, dog 1 of 2.
    rows = [("noto", "cat"), ("noto", "dog"), ("blob", "cat"), ("blob", "dog"), ("twemoji", "cat")]
    seen = [("noto", "cat"), ("blob", "cat"), ("blob", "cat"), ("noto", "dog"), ("twemoji", "rose")]
    shots = [
        shot(str(i), group="erased" if s == "noto" else "kept", style=s, object=o) for i, (s, o) in enumerate(rows)
    ]
    figures = canvas(STYLE_TASK, shots, {str(i): {"style": s, "object": o} for i, (s, o) in enumerate(seen)})
    # IRA: blob 1 of 2 and twemoji 1 of 1, the mean over concepts is 3/4.
    assert [find(figures, name).value for name in ("ua", "ira", "cra")] == pytest.approx([1 / 2, 3 / 4, 7 / 12])
    assert [find(figures, name).n for name in ("ua", "ira", "cra")] == [2, 3, 5]


def test_cra_counts_images_alone_that_were_asked_for_what_is_in_the_other_domain() -> None:
    shots = square(STYLE_TASK)
    styles = {one.id: {"style": one.row.labels["style"]} for one in shots}
    cat = shot("a cat", group="unrelated", object="cat")  # as a protocol of one domain asks for what is unrelated
    figures = canvas(STYLE_TASK, [*shots, cat], styles | {"a cat": {"object": "cat"}})
    assert {one.name for one in figures} == {"ua", "ira"}
    asked = {one.id: {**styles[one.id], "object": "cat"} for one in shots if one.row.labels["object"] == "cat"}
    assert (find(canvas(STYLE_TASK, shots, styles | asked), "cra").value, len(asked)) == (1.0, 6)


def test_a_missing_image_counts_against_the_edit_in_every_figure() -> None:
    shots = square(STYLE_TASK)
    perfect = {one.id: {"style": one.row.labels["style"], "object": one.row.labels["object"]} for one in shots}
    perfect |= {one.id: perfect[one.id] | {"style": "blob"} for one in shots if one.group == "erased"}
    whole = [*canvas(STYLE_TASK, shots, perfect), *accuracies(STYLE_TASK, shots, perfect)]
    for lost in (shots[0], shots[-1]):
        verdicts = {name: seen for name, seen in perfect.items() if name != lost.id}
        for figure, full in zip(
            [*canvas(STYLE_TASK, shots, verdicts), *accuracies(STYLE_TASK, shots, verdicts)], whole, strict=True
        ):
            assert figure.n == full.n
            worse = figure.value < full.value if figure.direction == "higher" else figure.value > full.value
            assert worse == (lost.id in figure.items), figure.name


def test_an_image_that_turned_into_another_target_is_not_erased() -> None:
    task = Task((Target("noto", "style"), Target("blob", "style")))
    shots = [shot("a", style="noto", object="cat"), shot("b", style="blob", object="cat")]
    verdicts = {"a": {"style": "blob", "object": "cat"}, "b": {"style": "twemoji", "object": "cat"}}
    assert find(canvas(task, shots, verdicts), "ua").items == {"a": 0.0, "b": 1.0}


def test_the_sides_are_counted_apart() -> None:
    shots = [shot("old", side="before", style="noto"), shot("new", side="after", style="noto")]
    verdicts = {"old": {"style": "noto", "object": "cat"}, "new": {"style": "blob", "object": "cat"}}
    values = {figure.side: figure.value for figure in canvas(STYLE_TASK, shots, verdicts) if figure.name == "ua"}
    assert values == {"before": 0.0, "after": 1.0}


def test_an_erased_concepts_accuracy_is_better_lower_and_every_other_higher() -> None:
    shots = square(STYLE_TASK)
    figures = accuracies(STYLE_TASK, shots, guesses(shots))
    lower = {(figure.name, figure.group) for figure in figures if figure.direction == "lower"}
    assert lower == {("style_accuracy", "erased")}
    assert {(figure.name, figure.group) for figure in figures} - lower == {
        ("style_accuracy", "kept"), ("object_accuracy", "erased"), ("object_accuracy", "kept")
    }  # fmt: skip


def test_a_label_that_the_judge_does_not_know_is_an_error_and_not_an_erasure(tiny_model: Path, tmp_path: Path) -> None:
    task = Task((Target("monet", "style"),))
    with pytest.raises(ScoreFailed, match=r'style label "monet" does not exist.*Known: .*noto'):
        score(task, [shot("a", path=noisy(tmp_path / "a.png"), style="monet")], judge=tiny_model / "judge")


@pytest.fixture
def judge(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model / "judge", tmp_path / "judge"))


def test_a_judge_that_cannot_be_read_is_an_error_and_not_an_erasure(judge: Path, tmp_path: Path) -> None:
    (file,) = (judge / "style").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ScoreFailed, match="cannot be loaded"):
        score(STYLE_TASK, [shot("a", path=noisy(tmp_path / "a.png"), style="noto")], judge=judge)


def test_a_judge_of_broken_weights_is_an_error_and_not_an_erasure(judge: Path, tmp_path: Path) -> None:
    (file,) = (judge / "style").glob("*.safetensors")
    weights = load_file(file)
    broken = {k: torch.full_like(v, float("nan")) if k == "classifier.1.bias" else v for k, v in weights.items()}
    save_file(broken, file, metadata={"format": "pt"})
    with pytest.raises(ScoreFailed, match="the score nan"):
        score(STYLE_TASK, [shot("a", path=noisy(tmp_path / "a.png"), style="noto")], judge=judge)


def test_a_judge_without_settings_is_an_error(judge: Path, tmp_path: Path) -> None:
    (judge / "object" / "config.json").unlink()
    with pytest.raises(ScoreFailed, match="cannot be loaded"):
        score(STYLE_TASK, [shot("a", path=noisy(tmp_path / "a.png"), style="noto")], judge=judge)
