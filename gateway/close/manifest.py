"""MANIFEST, the list of a pack's files with their digests, and its signature. Pure.

The lines of the files are as `sha256sum` writes them, so `sha256sum --check MANIFEST` reads it too. The last line is
the digest of all lines above it. There is one way to write each manifest and each signature: whoever reads it writes it
again and compares, so no changed byte can pass.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MANIFEST: Final = "MANIFEST"
SIGNATURE: Final = "MANIFEST.sig"
_HEAD: Final = "# gateway pack 1"
_SIGNED_BY: Final = "# signed by ed25519 "
_OWN_DIGEST: Final = "# sha256 of the lines above: "
_FILE: Final = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._/-]+)")
KEY_BYTES: Final = 32


class PackBroken(Exception):
    """A manifest or a signature that is not as it was written; the message says what is wrong."""


class Manifest(NamedTuple):
    """What MANIFEST says."""

    period: str
    """Month and version, `2026-10 v1`."""
    files: Mapping[str, str]
    """Name → sha256, hexadecimal."""
    signed_by: str | None
    """The public key that must have signed it, base64."""


def write_manifest(manifest: Manifest) -> bytes:
    """The one way to write it."""
    lines = [f"{_HEAD}, {manifest.period}"]
    if manifest.signed_by is not None:
        lines.append(f"{_SIGNED_BY}{manifest.signed_by}")
    lines += [f"{digest}  {name}" for name, digest in sorted(manifest.files.items())]
    text = "".join(f"{line}\n" for line in lines)
    return f"{text}{_OWN_DIGEST}{sha256(text.encode()).hexdigest()}\n".encode()


def read_manifest(text: bytes) -> Manifest:
    """Raises PackBroken."""
    try:
        lines = text.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise PackBroken(f"{MANIFEST} is not ASCII") from error
    head, *rest = lines
    period = head.removeprefix(f"{_HEAD}, ")
    signed_by = next((line.removeprefix(_SIGNED_BY) for line in rest[:1] if line.startswith(_SIGNED_BY)), None)
    files = {found[2]: found[1] for line in rest if (found := _FILE.fullmatch(line))}
    manifest = Manifest(period, files, signed_by)
    if write_manifest(manifest) != text:
        raise PackBroken(f"{MANIFEST} was changed: it is not what its own digest says")
    return manifest


def public_key_of(private: bytes) -> str:
    """The public key of 32 bytes of a private one, base64."""
    return _base64(Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw())


def sign(manifest: bytes, private: bytes) -> bytes:
    """The detached signature of MANIFEST as a file."""
    return f"{_base64(Ed25519PrivateKey.from_private_bytes(private).sign(manifest))}\n".encode()


def check_signature(manifest: bytes, signature: bytes, public: str) -> None:
    """Raises PackBroken unless `public`, base64, has signed this manifest."""
    try:
        key = Ed25519PublicKey.from_public_bytes(_bytes_of(public))
        text = signature.decode("ascii").removesuffix("\n")
        if f"{text}\n".encode() != signature:
            raise PackBroken(f"{SIGNATURE} was changed")
        key.verify(_bytes_of(text), manifest)
    except (InvalidSignature, ValueError) as error:
        raise PackBroken(f"{SIGNATURE} is not a signature of {MANIFEST} by {public}") from error


def _bytes_of(text: str) -> bytes:
    """Base64 in the one way to write it. Raises ValueError."""
    try:
        value = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("it is not base64") from error
    if _base64(value) != text:
        raise ValueError("it is not written as base64 is")
    return value


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
