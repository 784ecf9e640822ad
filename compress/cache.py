"""Where what is worth keeping between runs lies: trained reference teachers and their answers."""

import os
from pathlib import Path


def folder() -> Path:
    """`$COMPRESS_CACHE`, else `$XDG_CACHE_HOME/compress`, else `~/.cache/compress`."""
    own = os.environ.get("COMPRESS_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "compress"
