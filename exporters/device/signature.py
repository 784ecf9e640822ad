"""Who signed a bundle: Ed25519 over the bytes of manifest.json, which lists the hash of every other file."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

from .files import RefusedError

SIGNATURE = "manifest.json.sig"
SIGNATURE_BYTES = 64


def check_signature(folder: Path, public_key: Path) -> str:
    """Refuse a bundle that this key did not sign.

    Args:
        folder: the bundle.
        public_key: an Ed25519 public key in PEM form, brought to the device another way than the bundle.

    Returns:
        What checked it: "cryptography", or "openssl" 3.0 or later, whichever the device has.

    Raises:
        RefusedError: not signed, signed by another key, changed since, or neither tool is here.
    """
    for path, what in ((folder / SIGNATURE, "the bundle is not signed"), (public_key, f"there is no key {public_key}")):
        if path.is_symlink() or not path.is_file():
            raise RefusedError(f"{what}; get both from who made the bundle, or leave --public-key out")
    signature, manifest = (folder / SIGNATURE).read_bytes(), folder / "manifest.json"
    if importlib.util.find_spec("cryptography") is not None:
        tool, holds = "cryptography", _by_library(public_key, signature, manifest)
    elif shutil.which("openssl") is not None:
        tool, holds = "openssl", _by_openssl(public_key, folder / SIGNATURE, manifest)
    else:
        raise RefusedError(
            "this machine has neither cryptography nor openssl to check a signature; install one of them "
            "(apt-get install openssl)"
        )
    if len(signature) != SIGNATURE_BYTES or not holds:
        raise RefusedError(
            f"the signature of manifest.json does not hold for {public_key.name}: another key signed it, or it was "
            "changed; do not use this bundle"
        )
    return tool


def _by_library(public_key: Path, signature: bytes, manifest: Path) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(public_key.read_bytes())
    except ValueError as error:
        raise RefusedError(f"{public_key} is no public key in PEM form") from error
    if not isinstance(key, Ed25519PublicKey):
        raise RefusedError(f"{public_key} is no Ed25519 key")
    try:
        key.verify(signature, manifest.read_bytes())
    except InvalidSignature:
        return False
    return True


def _by_openssl(public_key: Path, signature: Path, manifest: Path) -> bool:
    words = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public_key), "-rawin", "-in", str(manifest)]
    found = subprocess.run(
        [*words, "-sigfile", str(signature)], capture_output=True, text=True, timeout=60, check=False
    )
    told = " ".join((found.stdout + found.stderr).split())
    if found.returncode == 0:
        return True
    if "Signature Verification Failure" in told:
        return False
    raise RefusedError(f"openssl cannot check the signature ({told[:200]}); it must be 3.0 or later, the key Ed25519")
