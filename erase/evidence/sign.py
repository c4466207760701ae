"""Signatures of packs by the library model-signing (OpenSSF), with a key pair on an elliptic curve.

Its own command checks them as well: `model_signing verify key PACK --signature PACK/pack.sig --public_key KEY.pub`.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from erase.errors import BadEvidence, CannotWrite, MissingExtra
from erase.evidence.stored import SIGNATURE, SIGNER


def new_key(place: Path) -> Path:
    """Writes a new private key, readable by its owner alone, and beside it the public one; where that is.

    Raises CannotWrite if the file is there already, MissingExtra.
    """
    _library()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    kept = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    data = key.private_bytes(serialization.Encoding.PEM, format=form, encryption_algorithm=kept)
    try:
        with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
    except FileExistsError as error:
        raise CannotWrite(f"{place} exists already; a key is never overwritten: give another file by --key.") from error
    public = place.with_name(f"{place.name}.pub")
    public.write_bytes(public_half(place))
    return public


def public_half(key: Path) -> bytes:
    """The public key that belongs to a private one, in PEM; raises BadEvidence for a file that is no such key."""
    _library()
    from cryptography.hazmat.primitives import serialization

    try:
        private: Any = serialization.load_pem_private_key(key.read_bytes(), None)
        public = private.public_key()
        if public.curve.name not in ("secp256r1", "secp384r1", "secp521r1"):
            raise ValueError(f"its curve is {public.curve.name}")
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return bytes(public.public_bytes(serialization.Encoding.PEM, form))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BadEvidence(
            f"{key} is no private key that can sign ({error}); expected a PEM without a password, on the curve P-256, "
            "P-384 or P-521; --new-key makes one."
        ) from error


def fingerprint_of(public: bytes) -> str:
    """SHA-256 of a public key in PEM, in hex: what two people compare by telephone."""
    return hashlib.sha256(public).hexdigest()


def sign(folder: Path, key: Path) -> None:
    """Signs every file of a folder; the signature is left in it. Raises MissingExtra."""
    signing, hashing = _library()
    config = hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
    signer = signing.signing.Config().set_hashing_config(config).use_elliptic_key_signer(private_key=key)
    signer.sign(folder, folder / SIGNATURE)


def verify_signature(folder: Path, public: Path) -> str:
    """Why the signature in a folder is not of these files by this key; "" if it is. Raises MissingExtra."""
    signing, hashing = _library()
    config = hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
    try:
        verifier = signing.verifying.Config().set_hashing_config(config)
        verifier.use_elliptic_key_verifier(public_key=public).verify(folder, folder / SIGNATURE)
    except Exception as error:  # whatever a library says of a file that may hold anything
        return " ".join(f"{type(error).__name__} {error}".split())[:200] or "it cannot be read"
    return ""


def signer_of(folder: Path) -> str:
    """The fingerprint of the key that a pack says it was signed by; "" where it holds none."""
    try:
        return fingerprint_of((folder / SIGNER).read_bytes())
    except OSError:
        return ""


def _library() -> tuple[Any, Any]:
    try:
        import model_signing  # type: ignore[import-not-found, unused-ignore]
        import model_signing.hashing  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MissingExtra(
            "signatures need the package model-signing; install it by `pip install 'erase[sign]'`."
        ) from error
    return model_signing, model_signing.hashing
