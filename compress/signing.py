"""Signatures of a run: Ed25519 (RFC 8032) over the bytes of its manifests, which name the hash of everything else.

`manifest.json.sig` holds the 64 bytes of the signature, so other tools can check it too:

    openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in manifest.json -sigfile manifest.json.sig

Keys are PEM files (`openssl genpkey -algorithm ed25519`) or OpenSSH's (`ssh-keygen -t ed25519`). The package
`cryptography` does the mathematics.
"""

import getpass
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from compress.errors import IntegrityError, RunError
from compress.manifest import MANIFEST
from profiles.atomic import write_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = MANIFEST + ".sig"
BUNDLE = "5_build/bundle"
PASSPHRASE = "COMPRESS_KEY_PASSPHRASE"
LARGEST_KEY = 1 << 16  # bytes; no key file is longer


def read_private_key(path: Path) -> "Ed25519PrivateKey":
    """A private key for signing.

    Raises:
        RunError: absent, not Ed25519, garbled, or its passphrase is missing or wrong; the key's content is never told.
    """
    _require_library()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    content = _key_bytes(path)
    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in content else load_pem_private_key
    try:
        try:
            key = load(content, None)
        except TypeError:  # it is encrypted
            key = load(content, _passphrase(path))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise RunError(
            f"{path} cannot be read as a private key, or its passphrase is wrong",
            fix=f"make one with `openssl genpkey -algorithm ed25519 -out {path.name}`, or set {PASSPHRASE}",
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise RunError(
            f"{path} is no Ed25519 key", fix=f"make one with `openssl genpkey -algorithm ed25519 -out {path.name}`"
        )
    return key


def read_public_key(path: Path) -> "Ed25519PublicKey":
    """A public key for checking.

    Raises:
        RunError: absent, not Ed25519, or garbled.
    """
    _require_library()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key

    content = _key_bytes(path)
    load = load_ssh_public_key if content.startswith(b"ssh-") else load_pem_public_key
    try:
        key = load(content)
    except (ValueError, UnsupportedAlgorithm):
        raise RunError(
            f"{path} cannot be read as a public key",
            fix="`openssl pkey -in key.pem -pubout -out public.pem` writes the one of a private key",
        ) from None
    if not isinstance(key, Ed25519PublicKey):
        raise RunError(f"{path} is no Ed25519 key", fix="give the public key of the key that signed the run")
    return key


def sign(run: Path, key: "Ed25519PrivateKey") -> str:
    """Sign a run's manifest, and that of its deploy bundle where it has one.

    Returns:
        The fingerprint of the public key.
    """
    for folder in _signed_folders(run):
        write_bytes(folder / SIGNATURE, key.sign((folder / MANIFEST).read_bytes()))
    return fingerprint(key.public_key())


def check(run: Path, key: "Ed25519PublicKey") -> str:
    """Refuse a run that this key did not sign as it is now.

    Returns:
        The key's fingerprint.

    Raises:
        IntegrityError: a signature is missing, or does not hold.
    """
    from cryptography.exceptions import InvalidSignature

    for folder in _signed_folders(run):
        path = folder / SIGNATURE
        if not path.is_file():
            raise IntegrityError(
                f"{folder / MANIFEST} is not signed", fix="sign it where it was made: compress pipeline ... --sign KEY"
            )
        try:
            key.verify(path.read_bytes(), (folder / MANIFEST).read_bytes())
        except InvalidSignature:
            raise IntegrityError(
                f"the signature of {folder / MANIFEST} does not hold for the key {fingerprint(key)}: the manifest was "
                "changed, or another key signed it",
                fix="get the run again from who signed it; if you changed it yourself, sign it again with --sign KEY",
            ) from None
    return fingerprint(key)


def fingerprint(key: "Ed25519PublicKey") -> str:
    """`SHA256:` and the first 32 hexadecimal digits of the hash of the key's 32 bytes."""
    return "SHA256:" + hashlib.sha256(key.public_bytes_raw()).hexdigest()[:32]


def _signed_folders(run: Path) -> Iterator[Path]:
    yield run
    if (run / BUNDLE / MANIFEST).is_file():
        yield run / BUNDLE


def _key_bytes(path: Path) -> bytes:
    try:
        with open(path, "rb") as handle:
            content = handle.read(LARGEST_KEY + 1)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}", fix="give the path of a key file") from error
    if len(content) > LARGEST_KEY:
        raise RunError(f"{path} is too long for a key", fix="give the path of a key file")
    return content


def _passphrase(path: Path) -> bytes:
    given = os.environ.get(PASSPHRASE)
    if given is None and sys.stdin.isatty():
        given = getpass.getpass(f"passphrase of {path}: ")
    if not given:
        raise RunError(f"{path} is encrypted", fix=f"set {PASSPHRASE}, or run the command in a terminal")
    return given.encode()


def _require_library() -> None:
    if importlib.util.find_spec("cryptography") is None:
        raise RunError("the package cryptography is not installed", fix="pip install 'compress[sign]'")
