"""A run's folder: the recipe it was started with, and where each step leaves its result."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import yaml
from pydantic import Field

from erase.config import documents
from erase.config.prompts import Row
from erase.errors import BadPipeline, BadPrompts, RunConflict, ScoreFailed, UnknownName
from erase.evaluate.images import SIDES, Side
from erase.files import alone_at, check_name, hash_if_there, is_held, sha256_of, write_atomically
from erase.run.identity import changed_steps, refuse_other_images
from erase.run.pipeline import Pipeline, read_pipeline
from erase.task import Task

if TYPE_CHECKING:
    from erase.edit import Edit
    from erase.evaluate.gate import Verdict
    from erase.evaluate.score import Scores
    from erase.models import Model
    from erase.run.judging import Judging
    from erase.sampling.ranks import Rank

_log = logging.getLogger(__name__)
RUNS = Path("runs")
_PLACES = {
    "patch": "edit.safetensors",
    "folder": "model",
    "lora": "lora.safetensors",
    "checkpoint": "checkpoint.safetensors",
}
# The names that files.py gives to what is not whole yet.
_LEFTOVER = re.compile(r"\.(?P<file>.+)\.\d+\.partial|(?P<folder>.+)\.tmp-\d+(\.old)?")
Identity = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]  # of an image, which is its file's name
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Planned:
    """A row with the ids of its two images, and the SHA-256 of their files by the ids."""

    row: Row
    before: Identity
    after: Identity
    hashes: Mapping[Identity, Sha256]


@dataclass(frozen=True)
class Run:
    """A run's recipe and folder."""

    folder: Path
    recipe: Pipeline

    @cached_property
    def model(self) -> Model:
        """The base model, opened once."""

        from erase.foreign import with_loras
        from erase.models import open_model
        from erase.sampling.attention import dtype_here

        base = open_model(self.recipe.model, torch_dtype=dtype_here(self.recipe.generate.dtype))
        return with_loras(base, self.recipe.loras)

    @cached_property
    def judging(self) -> Judging | None:
        """Who judges the run's images; None where the recipe asks for no score. Raises ScoreFailed if there is none."""
        from erase.run.judging import judging_of

        return judging_of(self) if self.recipe.score else None

    @cached_property
    def place(self) -> Rank:
        """Which of the processes at work on the run this one is."""
        from erase.sampling.ranks import this_rank

        return this_rank(self.folder)

    @cached_property
    def task(self) -> Task:
        return self.recipe.make_task()

    @cached_property
    def method(self) -> Callable[[Model, Task], Edit]:
        """The recipe's method, with the model's presets where it leaves options out."""
        from erase.run.options import method_for

        return method_for(self.recipe.edit.method, self.recipe.edit.options, model=self.model, task=self.task)

    @property
    def recipe_file(self) -> Path:
        return self.folder / "recipe.yaml"

    @property
    def edit_file(self) -> Path:
        return self.folder / "edit.safetensors"

    @property
    def plan_file(self) -> Path:
        return self.folder / "plan.jsonl"

    @property
    def scores_file(self) -> Path:
        return self.folder / "scores.json"

    @property
    def fixed_file(self) -> Path:
        return self.folder / "protocol.json"

    @property
    def result_file(self) -> Path:
        return self.folder / "result.json"

    @property
    def grid_file(self) -> Path:
        return self.folder / "grid.png"

    @property
    def report_file(self) -> Path:
        return self.folder / "report.html"

    def images(self, side: Side) -> Path:
        """The folder of one side's images."""
        return self.folder / side

    def image(self, side: Side, identity: str) -> Path:
        return self.images(side) / f"{identity}.png"

    def exported(self, name: str) -> Path:
        """Where an export lies: under its own name, if not under another; a patch is the edit's own file."""
        return self.folder / _PLACES.get(name, name)

    @property
    def is_begun(self) -> bool:
        """Whether the folder holds a recipe."""
        return self.recipe_file.is_file()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other processes out of the folder but those that were started with this one.

        Raises RunConflict, which says who works there.
        """
        with alone_at(self.folder / "run"):
            yield

    @cached_property
    def stale(self) -> tuple[str, ...]:
        """The steps whose results in the folder are of another recipe than this one, in their order."""
        return changed_steps(read_pipeline(self.recipe_file), self.recipe) if self.is_begun else ()

    def begin(self) -> None:
        """Writes the recipe, unless it is there, and clears away what a killed process left half-written.

        Results that another recipe made otherwise go first, so that a process killed here leaves none of them behind.
        """
        _clear_leftovers(self)
        if self.stale:
            from erase.export.parts.recipe import remove_export

            results = {"score": (self.result_file, self.scores_file), "grid": (self.grid_file,)}
            results["attack"] = tuple(self.folder.glob("attacks/*/*attack.*"))
            for file in (file for step in self.stale for file in (*results.get(step, ()), self.report_file)):
                file.unlink(missing_ok=True)
            there, here = read_pipeline(self.recipe_file).export_options, self.recipe.export_options
            for name in (name for name in {*there, *here} - {"patch"} if there.get(name) != here.get(name)):
                remove_export(self.exported(name))
        if not self.is_begun or read_pipeline(self.recipe_file).hash != self.recipe.hash:
            write_atomically(self.recipe_file, _recipe_text(self.recipe))
            self.__dict__["stale"] = ()

    def write_plan(self, rows: Sequence[Row], pairs: Sequence[tuple[Path, Path]]) -> None:
        """Writes down which two images each row has, and their files' hashes."""
        plan = [
            Planned(row, before.stem, after.stem, {path.stem: sha256_of(path) for path in (before, after)})
            for row, (before, after) in zip(rows, pairs, strict=True)
        ]
        lines = (json.dumps(asdict(planned), ensure_ascii=False) for planned in plan)
        write_atomically(self.plan_file, "".join(f"{line}\n" for line in lines))

    def read_plan(self) -> tuple[Planned, ...]:
        """The rows with their images' ids; raises BadPrompts if there is no whole plan yet."""
        if not self.plan_file.is_file():
            raise BadPrompts(f"{self.folder} has no images yet; run `erase generate {self.folder}` first.")
        try:
            lines = self.plan_file.read_text(encoding="utf-8").splitlines()
            plan: tuple[Planned, ...] = documents.check_value(
                [json.loads(line) for line in lines], tuple[Planned, ...], key="the plan", error=BadPrompts
            )
            if not plan or any({one.before, one.after} - set(one.hashes) for one in plan):
                raise BadPrompts("an image has no hash.")
        except (OSError, ValueError, RecursionError, BadPrompts) as error:
            raise BadPrompts(
                f"{self.plan_file} is damaged, or of an earlier version; remove it and run `erase generate "
                f"{self.folder}`, which makes no image again that is as it was made."
            ) from error
        return plan

    def planned_images(self) -> dict[Path, str]:
        """Every image that the plan names, with the SHA-256 of its file as it was made; raises BadPrompts."""
        return {
            self.image(side, name): one.hashes[name]
            for one in self.read_plan()
            for side, name in zip(SIDES, (one.before, one.after), strict=True)
        }

    def changed_images(self) -> tuple[Path, ...]:
        """Images that are missing, damaged, another's or painted over; raises BadPrompts."""
        return tuple(path for path, made in self.planned_images().items() if hash_if_there(path) != made)

    def check_images(self) -> None:
        """Raises BadPrompts for an image that is a picture, but not the one that was made."""
        from erase.sampling.pictures import read_picture

        if changed := [path for path in self.changed_images() if read_picture(path) is not None]:
            raise BadPrompts(
                f"{len(changed)} images of {self.folder} are not those that were made (first: "
                f"{changed[0].relative_to(self.folder)}); run `erase generate {self.folder}`, which makes them again."
            )

    def clear_changed_images(self) -> None:
        """Removes images that are not as they were made; those of no plan say of themselves whether they are."""
        with contextlib.suppress(BadPrompts):
            if found := [path for path in self.changed_images() if path.is_file()]:
                _log.warning("%d images of %s are not as made and made again.", len(found), self.folder)
                for path in found:
                    path.unlink()

    def read_scores(self) -> Scores:
        """The run's scores; raises ScoreFailed if there are none yet, or they are damaged, changed or of other images.

        An image that was missing when it was scored may be there now.
        """
        scores, made = self._stored_scores(), self._made()
        if any(sha and made.get(name) != sha for name, sha in scores.images.items()):
            raise ScoreFailed(
                f"{self.scores_file} is of other images than the run's; run `erase score {self.folder}` anew."
            )
        return scores

    def has_scores(self) -> bool:
        """Whether result and scores are there, and of every image as it was made; raises ScoreFailed if changed."""
        if not (self.scores_file.is_file() and self.result_file.is_file()):
            return False
        return self._stored_scores().images == self._made() and self._is_of_these_images()

    def read_result(self) -> Verdict:
        """The verdict of the run's result, computed anew from its values; raises ScoreFailed."""
        from erase.evaluate.result import check_result

        if not self.result_file.is_file():
            raise ScoreFailed(
                f"{self.folder} has no result.json yet; run `erase score {self.folder}`, which makes no image anew."
            )
        if not self._is_of_these_images():
            raise ScoreFailed(
                f"{self.result_file} is of other images than the run's; run `erase score {self.folder}` anew."
            )
        return check_result(self.result_file)

    def _is_of_these_images(self) -> bool:
        from erase.evaluate.result import read_result

        made = {path.relative_to(self.folder).as_posix(): sha for path, sha in self.planned_images().items()}
        return all(not sha or made.get(name) == sha for name, sha in read_result(self.result_file)["images"].items())

    def _made(self) -> dict[str, str]:
        return {path.stem: sha for path, sha in self.planned_images().items()}

    def _stored_scores(self) -> Scores:
        from erase.evaluate.score import Scores

        if not self.scores_file.is_file():
            raise ScoreFailed(f"{self.folder} has no scores yet; run `erase score {self.folder}` first.")
        try:
            return Scores.from_json(json.loads(self.scores_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError, ScoreFailed) as error:
            said = str(error) if isinstance(error, ScoreFailed) else "damaged; run `erase score` anew."
            raise ScoreFailed(
                f"{self.scores_file}: {said.replace('`erase score`', f'`erase score {self.folder}`')}"
            ) from error


def run_in(recipe: Pipeline, folder: Path | None = None) -> Run:
    """The run of a resolved recipe in a folder (`runs/<name>` by default); writes nothing.

    One that was begun by a recipe that makes the same images goes on by this one, and makes anew what is otherwise.
    Raises RunConflict if the folder holds a run of other images, or something else.
    """
    folder = folder or RUNS / recipe.name
    check_name(folder)
    run = Run(folder, recipe)
    if run.is_begun:
        refuse_other_images(read_pipeline(run.recipe_file), recipe, folder)
    elif folder.exists() and not _is_free(folder):
        raise RunConflict(f"{folder} exists and is no run of erase; give another folder by --out.")
    return run


def open_run(folder: Path) -> Run:
    """The run that a folder (or a name under `runs/`) holds; raises UnknownName, BadPipeline."""
    for place in (folder, RUNS / folder):
        if (place / "recipe.yaml").is_file():
            recipe = read_pipeline(place / "recipe.yaml")
            if not recipe.hash:
                raise BadPipeline(f"{place / 'recipe.yaml'} has no hash; start the run anew in another folder.")
            return Run(place, recipe)
    raise UnknownName(f"{folder} is not a run: no recipe.yaml is in it; start one by `erase run --out {folder}`.")


def _clear_leftovers(run: Run) -> None:
    """Removes what killed processes left half-written, unless others of this run, started with it, are at work."""
    from erase.sampling.ranks import anyone_in

    if run.place.world > 1 or anyone_in(run.folder):
        return
    for folder in (run.folder, *(run.images(side) for side in SIDES)):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            match = _LEFTOVER.fullmatch(path.name)
            if match and not is_held(folder / f".{match['file'] or match['folder']}.lock"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_free(folder: Path) -> bool:
    """Whether nothing is in a folder but what a killed start left, or what other processes of this run make."""
    if not folder.is_dir():
        return False
    found = [path.name for path in folder.iterdir()]
    theirs = SIDES if any(name.endswith(".lock") for name in found) else ()
    return all(name.endswith((".partial", ".lock", ".owner")) or name in theirs for name in found)


def _recipe_text(recipe: Pipeline) -> str:
    head = "# The whole recipe of this run, every default spelled out; `erase run` takes it as it is.\n"
    return head + yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
