"""What a name stands for: a file of the package, an entry point of another package, or a file at a path.

A word in a pipeline is a file in a folder: `method: uce` is `erase/methods/uce.py`. Other packages add to a kind by an
entry point (`erase.methods`, `erase.detectors`, `erase.attacks`, `erase.protocols`), users by a path (`./mine.py`).
Code at a path runs only if the command line, or the Python program, names that path itself: a pipeline file alone never
runs code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from erase.errors import BadPlugin, UnknownName

PACKAGE = Path(__file__).parent
DEFAULT_METHOD = "redirect"  # of an edit that names none: our own closed form
_CODE = {
    "methods": "methods",
    "exports": "export",
    "detectors": "evaluate/detectors",
    "attacks": "attacks",
}
_OPEN = ("methods", "detectors", "attacks", "protocols")  # to entry points; all but the last to paths, too
_DEEPER = ("pipelines", "protocols")  # whose names may be of a folder: sd/van-gogh
_DATACLASSES = ("methods", "detectors", "attacks")  # whose fields are their options
_ALLOWED: ContextVar[tuple[Path, ...]] = ContextVar("allowed", default=())
_SAFETENSORS = ".safetensors"
HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(@(?P<revision>[\w./-]+))?")


def data_folder(kind: str) -> Path:
    """The folder of `pipelines`, `prompts` or `protocols`: at the top of a checkout, inside an installed package.

    Prompt sets that are `declared` and not carried lie below `prompts`.
    """
    if kind == "declared":
        return data_folder("prompts") / kind
    installed = PACKAGE / "_data" / kind
    return installed if installed.is_dir() else PACKAGE.parent / kind


def known(kind: str) -> list[str]:
    """All names of a kind, sorted: the package's own, and those of other packages."""
    return sorted({*own(kind), *_points(kind)})


def own(kind: str) -> list[str]:
    """The names of a kind that the package itself has, sorted."""
    if kind in _CODE:
        files = (PACKAGE / _CODE[kind]).glob("*.py")
        return sorted(file.stem for file in files if not file.stem.startswith("_"))
    if kind == "models":
        return sorted(index.parent.name for index in (PACKAGE / "models").glob("*/model_index.json"))
    folder = data_folder(kind)
    if kind in _DEEPER:
        return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))
    return sorted(file.stem for file in folder.glob("*.yaml"))


def path_of(given: str) -> Path:
    """The path that a user wrote, `~` being a home folder; raises UnknownName for one that no file can have."""
    shown = given if len(given) <= 60 else f"{given[:57]}..."
    try:
        path = Path(given).expanduser()
        path.exists()  # which raises for a name that is too long, and in a folder that must not be read
    except RuntimeError as problem:
        raise UnknownName(f'"{shown}" names the home folder of nobody here; write the path out.') from problem
    except OSError as problem:
        raise UnknownName(f'"{shown}" is no path that can be read ({problem.strerror}); give another.') from problem
    if "\0" in given:
        raise UnknownName(f"{shown!a} holds a NUL, which no path does; give another.")
    return path


def file_and_parts(model: str) -> tuple[str, str]:
    """FILE and PARTS of FILE.safetensors@PARTS: a network in a file, and the model whose other parts go with it.

    Any other name is given back as it is, and no parts.
    """
    file, mark, parts = model.partition(f"{_SAFETENSORS}@")
    return (file + _SAFETENSORS, parts) if mark and parts and not Path(model).exists() else (model, "")


def is_hub_id(name: str) -> bool:
    """Whether a name can be a model's on the hub, `owner/name` or `owner/name@revision`, and is no path from here."""
    return HUB_ID.fullmatch(name) is not None and not Path(name.partition("/")[0]).exists()


def unknown(kind: str, given: str, *, path_too: bool = False) -> UnknownName:
    """The error for a name that does not exist: the nearest one and all valid ones."""
    return UnknownName(nearest(kind.removesuffix("s"), given, known(kind), path_too=path_too))


def nearest(what: str, given: str, valid: list[str], *, path_too: bool = False) -> str:
    """One line saying that a name is unknown, which is nearest, and which there are."""
    place = ", and no such path exists" if path_too else ""
    shown = given if len(given) <= 200 else f"{given[:197]}..."
    return f'{what} "{shown}" does not exist{place}{guess(given, valid)}'


def guess(given: str, valid: list[str]) -> str:
    """The end of a line on a word that does not exist: the nearest one, and all that there are."""
    close = difflib.get_close_matches(given, valid, n=1, cutoff=0.5)
    meant = f'; did you mean "{close[0]}"?' if close else "."
    return f"{meant} Known: {', '.join(valid) or 'none'}."


def file_of(kind: str, name: str) -> Path:
    """The file of code that a name of the package's own stands for."""
    return PACKAGE / _CODE[kind] / f"{name}.py"


def packages_of(kind: str, name: str) -> list[str]:
    """The other packages that offer a name."""
    return [point.dist.name if point.dist else point.value for point in _points(kind).get(name, ())]


def find(kind: str, given: str, *, what: str) -> Path:
    """The file of data that a name or a path stands for; raises UnknownName, BadPlugin."""
    if given in own(kind) and given not in _points(kind):
        return data_folder(kind) / f"{given}.yaml"
    if given in _points(kind):
        return _file_of(kind, given)
    path = path_of(given)
    if path.is_file():
        return path
    raise UnknownName(nearest(what, given, known(kind), path_too=True))


@contextlib.contextmanager
def allowing(paths: Sequence[str | Path] = ()) -> Iterator[None]:
    """Lets code run that lies at these paths, in the block; `allow` adds to them within it."""
    token = _ALLOWED.set(_ALLOWED.get())
    try:
        for path in paths:
            allow(path)
        yield
    finally:
        _ALLOWED.reset(token)


def allow(path: str | Path) -> None:
    """Lets the code at a path run; raises UnknownName if there is no such file."""
    found = path_of(str(path))
    if not found.is_file():
        raise UnknownName(f"{path} is no file; expected a Python file with a plug-in, such as ./mine.py.")
    _ALLOWED.set((*_ALLOWED.get(), found.resolve()))


def is_path(name: str, kind: str = "") -> bool:
    """Whether a word is the path of a Python file and no name, in which a kind may have a slash."""
    return kind not in _DEEPER and (name.endswith(".py") or "/" in name or "\\" in name)


def check(kind: str, name: str) -> None:
    """Raises UnknownName for a name or path of nothing, BadPlugin for code at a path that nobody has allowed."""
    if is_path(name) and kind in _CODE and kind in _OPEN:
        _allowed_file(kind, name)
    elif name not in known(kind) and _allowed_as(name) is None:
        raise unknown(kind, name)


def load(kind: str, name: str) -> object:
    """The class or function that a name stands for: `uce` is `UCE` in `methods/uce.py`.

    Raises UnknownName; BadPlugin for what another package or a file offers and cannot be used.
    """
    check(kind, name)
    if is_path(name):
        return _at_path(kind, _allowed_file(kind, name))
    if points := _points(kind).get(name):
        return _at_point(kind, name, points)
    if name in own(kind):
        module = importlib.import_module(f"erase.{_CODE[kind].replace('/', '.')}.{name}")
        return _named_after(module, name, where=module.__name__)
    return _at_path(kind, _allowed_as(name) or Path(name))


def name_of(value: object) -> str:
    """The name by which a pipeline calls a method, detector or attack: that of its file or of its entry point."""
    found = value if isinstance(value, type) else type(value)
    home = f"{found.__module__}:{found.__qualname__}"
    if not found.__module__.startswith("erase."):
        for kind in _OPEN:
            for name, points in _points(kind).items():
                if points[0].value == home:
                    return name
    return found.__module__.rpartition(".")[2]


def _points(kind: str) -> dict[str, list[EntryPoint]]:
    """The entry points of a kind, by name; several where packages claim the same one."""
    found: dict[str, list[EntryPoint]] = {}
    if kind in _OPEN:
        for point in entry_points(group=f"erase.{kind}"):
            found.setdefault(point.name, []).append(point)
    return found


def _at_point(kind: str, name: str, points: Sequence[EntryPoint]) -> object:
    one = kind.removesuffix("s")
    owners = packages_of(kind, name)
    if name in own(kind):
        raise BadPlugin(
            f'package {owners[0]} offers the {one} "{name}", which would hide the built-in one; uninstall it, or have '
            "its entry point renamed."
        )
    if len(points) > 1:
        raise BadPlugin(f'packages {" and ".join(owners)} both offer the {one} "{name}"; uninstall one of them.')
    try:
        value: object = points[0].load()
    except (Exception, SystemExit) as error:
        raise BadPlugin(f'{one} "{name}" of package {owners[0]} cannot be imported ({_said(error)}).') from error
    return _checked(kind, value, where=f'{one} "{name}" of package {owners[0]}')


def _file_of(kind: str, name: str) -> Path:
    """The file to which an entry point's value, a path, leads."""
    value = _at_point(kind, name, _points(kind)[name])
    if not isinstance(value, str | Path) or not Path(value).is_file():
        raise BadPlugin(
            f'{kind.removesuffix("s")} "{name}": its entry point is {value!r}; expected the path of a .yaml.'
        )
    return Path(value)


def _allowed_file(kind: str, given: str) -> Path:
    """The plug-in's file, which must have been allowed."""
    one, path = kind.removesuffix("s"), path_of(given)
    if not path.is_file():
        raise unknown(kind, given, path_too=True)
    if path.resolve() not in _ALLOWED.get():
        raise BadPlugin(
            f'{one} "{given}" is code, which a pipeline alone never runs; if you trust the file, add --allow {given}.'
        )
    return path.resolve()


def _allowed_as(name: str) -> Path | None:
    """The allowed file of that name."""
    return next((path for path in _ALLOWED.get() if path.stem == name), None)


def _at_path(kind: str, path: Path) -> object:
    one, name = kind.removesuffix("s"), path.stem
    if path.suffix != ".py" or not name.isidentifier():
        raise BadPlugin(f"{path} is no plug-in; expected a .py whose name is of letters, digits and underscores.")
    if name in known(kind):
        raise BadPlugin(f'{path} would hide the {one} "{name}" that is there already; give the file another name.')
    return _checked(kind, _named_after(_module_at(path), name, where=str(path)), where=str(path))


def _module_at(path: Path) -> ModuleType:
    """The module of a file, run once for each of its versions; raises BadPlugin."""
    try:
        code = path.read_bytes()
        name = f"erase_plugin_{sha256(str(path).encode() + code).hexdigest()[:16]}.{path.stem}"
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, path)
        module = ModuleType(name) if spec is None else importlib.util.module_from_spec(spec)
        module.__file__ = str(path)
        sys.modules[name] = module  # where a dataclass looks its annotations up
        exec(compile(code, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise BadPlugin(f"{path} cannot be imported ({_said(error)}); mend the file.") from error
    return module


def _named_after(module: ModuleType, name: str, *, where: str) -> object:
    wanted = name.replace("_", "").lower()
    for key, value in vars(module).items():
        if key.replace("_", "").lower() == wanted:
            found: object = value
            return found
    raise BadPlugin(f"{where} holds nothing named after its file; expected a class {name.title().replace('_', '')}.")


def _checked(kind: str, value: object, *, where: str) -> object:
    """The value, if it is what a kind's are."""
    if kind in _DATACLASSES and not (isinstance(value, type) and dataclasses.is_dataclass(value)):
        raise BadPlugin(f"{where} is no dataclass; write @dataclass(frozen=True) above a class of its options.")
    if kind in _DATACLASSES and not any("__call__" in vars(base) for base in value.__mro__):  # type: ignore[attr-defined]
        raise BadPlugin(f"{where} has no __call__; expected one as in docs/python.md.")
    return value


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
