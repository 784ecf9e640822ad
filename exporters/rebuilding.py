"""Engines built again for this machine, kept in the user's cache folder under what they were made from.

The name is the hash of the model, the target and the builder's settings, so a changed model is another file; each has
the record that its builder wrote, which is compared with this machine before it is used.
"""

import hashlib
import os
from pathlib import Path

import profiles
from exporters import onnx_to_engine
from exporters.builder import BuildOptions
from exporters.device import identity
from exporters.device.files import digest_of
from profiles import atomic
from profiles import trust as vouched


def cache() -> Path:
    """Where they are kept: $XDG_CACHE_HOME/compress/engines, or ~/.cache/compress/engines."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "compress" / "engines"


def engine(
    onnx: Path, target: str, *, sha256: str | None = None, trust: bool = False, options: BuildOptions | None = None
) -> Path:
    """The engine of `onnx` for this machine: the one that was built before where it fits, else a new one.

    Raises:
        UntrustedError: nobody vouches for the ONNX file.
        ExportError: it cannot be built here.
    """
    from exporters.loading import misfits

    found = vouched.check(onnx, sha256=sha256, trust=trust)
    chosen = options or BuildOptions()
    settings = digest_of([str(chosen.batches), sorted(chosen.shapes), repr(chosen.engine), str(chosen.dims)])
    name = hashlib.sha256(f"{found} {target} {settings}".encode()).hexdigest()[:32]
    kept = cache() / f"{name}.engine"
    if kept.is_file() and identity.path_of(kept).is_file() and not misfits(kept, onnx):
        return kept
    out = cache()
    out.mkdir(parents=True, exist_ok=True)
    out.chmod(0o700)  # what lies here is loaded as code
    made = onnx_to_engine.convert(
        onnx, profiles.target(target), out, options=BuildOptions(**{**vars(chosen), "name": kept.name})
    )
    assert atomic.sha256(made.path) == identity.read(made.path)["engine_sha256"]
    return made.path
