"""Who made a bundle: an Ed25519 signature of its manifest, and through its digests of every file.

Where `REHEARSE_TRUST` names a file of public keys (PEM, one or several), only bundles that one of
them signed are loaded. Without it digests alone count: they say that a bundle is whole, not whose.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from planner.bounded import TooLargeError, read_at_most

_MOST: Final = 1 << 16  # bytes of a file of keys
_LENGTH: Final = 64
_KEYS: Final = re.compile(b"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.S)


class SignatureError(ValueError):
    """No signature that counts, or a file of keys that cannot be used; the message says which."""


def make_key(file: Path) -> Path:
    """A new private key in `file`, which only its user can read; the public one is beside it."""
    key, public = Ed25519PrivateKey.generate(), file.with_suffix(".pub")
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(secret)
    text = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    public.write_bytes(text)
    return public


def sign_bundle(manifest: Path, key_file: Path) -> Path:
    """Signs a manifest that was checked. Raises `SignatureError` for a file that is no key."""
    try:
        key = load_pem_private_key(_content(key_file), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{key_file}: not a private key without a password: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{key_file}: not an Ed25519 key; make one with bundle sign --new-key")
    file = manifest.with_suffix(".sig")
    file.write_bytes(key.sign(manifest.read_bytes()))
    return file


def check_signature(manifest: bytes, signature: bytes | None, keys: Path) -> None:
    """Raises `SignatureError` unless one of the public keys in `keys` signed these bytes."""
    trusted = _public_keys(keys)
    if signature is None:
        raise SignatureError(f"it is not signed; {keys} says whose signatures count")
    for key in trusted:
        try:
            return key.verify(signature, manifest)
        except InvalidSignature:
            continue
    raise SignatureError(f"none of the {len(trusted)} keys in {keys} signed it")


def read_signature(manifest: Path) -> bytes | None:
    """The signature of a manifest, None where there is none."""
    try:
        with manifest.with_suffix(".sig").open("rb") as stream:
            return stream.read(_LENGTH + 1)
    except FileNotFoundError:
        return None


def _public_keys(file: Path) -> list[Ed25519PublicKey]:
    found = []
    for text in _KEYS.findall(_content(file)):
        try:
            key = load_pem_public_key(text)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise SignatureError(f"{file}: not a public key: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise SignatureError(f"{file}: a key that is not Ed25519")
        found.append(key)
    if not found:
        raise SignatureError(f"{file}: there is no public key in it")
    return found


def _content(file: Path) -> bytes:
    try:
        return read_at_most(file, _MOST)
    except OSError as error:
        raise SignatureError(f"{file}: cannot be read: {error.strerror}") from error
    except TooLargeError as error:
        raise SignatureError(f"{error}; is it a file of keys?") from error
