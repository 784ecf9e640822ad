"""Which files may be loaded: those whose SHA-256 somebody wrote down when they were made.

An engine is code, and a model file decides what a program answers, so neither is loaded because it has the right name.
Vouched for is a file that

- the manifest of its run or deploy bundle lists (`manifest.json` in a folder above it), or
- has a record beside it that the builder wrote (`model.engine.json`), or
- has a checksum beside it (`model.engine.sha256`, as sha256sum writes), which `accept` makes on a user's word.

A file below a run must be listed by that run. All this guards against mixed-up, damaged and swapped files; whoever can
write both the file and the list can swap both, so a caller who got the sum another way passes it: `sha256=...`.
"""

import json
import re
from pathlib import Path

from profiles import atomic
from profiles.errors import ProfileError

MANIFEST = "manifest.json"
RECORD, CHECKSUM = ".json", ".sha256"
_SUM = re.compile(r"[0-9a-f]{64}")


class UntrustedError(ProfileError):
    """A file that nobody vouches for, or that is not what was vouched for."""


def check(path: Path, *, sha256: str | None = None, trust: bool = False) -> str:
    """Refuse a file that nobody vouches for.

    Args:
        path: the file; a link is refused, for what it points to may change.
        sha256: what it must be; nothing else is asked then.
        trust: take it as it is, on the caller's word.

    Returns:
        Its SHA-256.

    Raises:
        UntrustedError: it is changed, linked, not listed, or nobody vouches for it.
        ProfileError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise ProfileError(f"there is no file {path}", fix="correct the path, or make the file first")
    found = atomic.sha256(path)
    if sha256 is not None:
        if found != sha256.lower():
            raise UntrustedError(
                f"{path.name} has the SHA-256 {found}, not {sha256.lower()}", fix="get the file again from who made it"
            )
        return found
    if trust:
        return found
    if path.is_symlink():
        raise UntrustedError(f"{path} is a link, which may point elsewhere tomorrow", fix="name the file itself")
    known, where = _known(path.parent.resolve() / path.name)  # neither ".." nor a linked folder leads out
    if known is None:
        raise UntrustedError(
            f"nobody vouches for {path.name}: {where}",
            fix="load it from the run or bundle that made it; if you know where it is from, pass trust=True "
            "(--trust), or its sum with sha256=...",
        )
    if found != known:
        raise UntrustedError(
            f"{path.name} is not the file that was made: its SHA-256 is {found[:16]}..., {where} says {known[:16]}...",
            fix="make it again, or copy it again from where it was made",
        )
    return found


def accept(path: Path) -> Path:
    """Vouch for a file from elsewhere as it is now: writes `<name>.sha256` beside it, which `sha256sum -c` reads."""
    goal = path.with_name(path.name + CHECKSUM)
    atomic.write_text(goal, f"{atomic.sha256(path)}  {path.name}\n")
    return goal


def _known(path: Path) -> tuple[str | None, str]:
    """The sum that somebody wrote down, and where; None and the reason where nobody did."""
    bundle: Path | None = None
    for folder in path.parents:
        manifest = folder / MANIFEST
        if not manifest.is_file():
            continue
        listed = _listed(manifest)
        name = path.relative_to(folder).as_posix()
        if listed is None:
            return None, f"{manifest} is no manifest"
        if name in listed:
            return listed[name], str(manifest)
        if not (folder / "bundle.json").is_file():
            return None, f"{manifest} does not list {name}"
        bundle = folder  # what a device built from it is not in it, and has its record
        break
    for ending, read in ((RECORD, _of_record), (CHECKSUM, _of_checksum)):
        beside = path.with_name(path.name + ending)
        if beside.is_file() and not beside.is_symlink():
            return read(beside), str(beside)
    there = f" and {bundle / MANIFEST} does not list it" if bundle is not None else ""
    return None, f"no manifest above it, no {path.name}{RECORD} and no {path.name}{CHECKSUM} beside it{there}"


def _listed(manifest: Path) -> dict[str, str] | None:
    """Relative path -> sum; None where the file is no manifest of ours."""
    try:
        content = json.loads(manifest.read_text("utf-8"))
        if "files" in content:  # of a bundle
            return {str(name): str(entry["sha256"]) for name, entry in content["files"].items()}
        return {str(row["path"]): str(row["sha256"]) for row in content["artifacts"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _of_record(path: Path) -> str | None:
    try:
        found = json.loads(path.read_text("utf-8")).get("engine_sha256")
    except (ValueError, AttributeError):
        return None
    return found if isinstance(found, str) and _SUM.fullmatch(found) else None


def _of_checksum(path: Path) -> str | None:
    words = path.read_text("utf-8", "replace").split()
    return words[0].lower() if words and _SUM.fullmatch(words[0].lower()) else None
