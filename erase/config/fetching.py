"""Declared prompt sets fetched from where their manifests say, when the user asks for it and never otherwise."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from erase.config.declared import load_declared, read_manifest
from erase.config.prompts import PromptSet
from erase.errors import BadPrompts, EraseError
from erase.files import replacing

LARGEST = 256 * 1024 * 1024  # bytes
PIECE = 1024 * 1024


def fetch(name: str, target: Path, *, url: str = "", seconds: float = 30.0) -> PromptSet:
    """The set, its file written whole to `target` only if it is the one that the manifest describes.

    `url`: another address of the same file; `seconds`: how long a silent server is waited for. Raises UnknownName, and
    BadPrompts if the set has no address, cannot be fetched or is another file than declared.
    """
    form = read_manifest(name)
    address = url or form.url
    if not address:
        raise BadPrompts(f"prompt set {name} has no one file to fetch; get it from {form.source} ({form.licence}).")
    if not address.startswith(("https://", "http://")):
        raise BadPrompts(f'"{address}" is no address to fetch from; expected one that begins with https://.')
    with replacing(target) as partial:
        _download(name, address, partial, seconds=seconds)
        try:
            return load_declared(name, partial)
        except EraseError as error:
            what = str(error).replace(str(partial), address)
            raise BadPrompts(f"{what} Nothing was written.") from error


def _download(name: str, address: str, target: Path, *, seconds: float) -> None:
    request = urllib.request.Request(address, headers={"User-Agent": "erase"})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer, target.open("wb") as file:
            size = 0
            while piece := answer.read(PIECE):
                size += len(piece)
                if size > LARGEST:
                    raise BadPrompts(f"{address} is larger than {LARGEST >> 20} MiB, which no prompt set is.")
                file.write(piece)
            expected = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        with error:
            raise BadPrompts(
                f"{address} answers {error.code} {error.reason}; get prompt set {name} yourself."
            ) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise BadPrompts(
            f"prompt set {name} cannot be fetched from {address} ({reason}); without a network, get the file elsewhere "
            f"and give it as {name}=PATH."
        ) from error
    if expected is not None and int(expected) != size:
        raise BadPrompts(f"{address} broke off after {size} of {expected} bytes; fetch it again.")
