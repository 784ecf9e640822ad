"""Whether a run's files are those that were made: each against its hash, the manifest against the records.

Imports no torch and needs only Python 3.10: a run can be examined on the device that it is shipped to.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from compress.errors import IntegrityError
from compress.manifest import MANIFEST, RUN, Listed, read_manifest, rendered
from compress.records import RECORD, STAGES, folder_name, read_json, read_record
from profiles.atomic import sha256

COPIES = {"report.html": "7_report/report.html", "report.json": "7_report/report.json"}
SHOWN = 5  # damages that one message names


@dataclass(frozen=True)
class Damage:
    """A file that is not what was made.

    Attributes:
        path: relative to the run's folder.
        what: how it differs.
        stage: whose work makes it anew; None where no stage does.
    """

    path: str
    what: str
    stage: str | None = None


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        files: artifacts whose hash was taken.
        size: their bytes.
        damages: in the order of the data flow; empty where all is as it was made.
        unfinished: stages that have no record yet.
    """

    files: int
    size: int
    damages: tuple[Damage, ...]
    unfinished: tuple[str, ...]

    def require(self, run: Path) -> None:
        """Refuse a damaged run.

        Raises:
            IntegrityError: names the files and how to make them anew.
        """
        if not self.damages:
            return
        named = "; ".join(f"{one.path} {one.what}" for one in self.damages[:SHOWN])
        more = f"; and {len(self.damages) - SHOWN} more" if len(self.damages) > SHOWN else ""
        stages = [stage for stage in STAGES if any(one.stage == stage for one in self.damages)]
        fix = (
            f"`compress {stages[0]} {run}` makes it anew from what is intact"
            if stages and stages[0] not in ("prepare", "select")
            else f"give the command that made {run} again: what is damaged is made anew"
        )
        raise IntegrityError(f"{run} is not as it was made: {named}{more}", fix=f"{fix}, or copy the run again")


def examine(run: Path) -> Examination:
    """Take the hash of every artifact and compare: one flipped bit anywhere is enough.

    Covered are the artifacts, the stages' records, `run.json`, the manifest itself, the copies of the report and what
    was set aside in `previous`. Not covered: `evaluations.sqlite`, a cache that carries its own checks.

    Raises:
        IntegrityError: the folder is no run, or has no manifest.
    """
    run = Path(run)
    if not (run / RUN).is_file() and not (run / MANIFEST).is_file():
        raise IntegrityError(
            f"{run} is not a run: it has no {RUN}", fix="give the folder that `compress pipeline` wrote, runs/..."
        )
    listed = read_manifest(run)
    damages = [*_manifest(run, listed), *_files(run, listed), *_copies(run), *_set_aside(run)]
    present = [run / name for name in listed if (run / name).is_file()]
    unfinished = tuple(stage for stage in STAGES if not (run / folder_name(stage) / RECORD).exists())
    return Examination(len(present), sum(path.stat().st_size for path in present), tuple(damages), unfinished)


def _manifest(run: Path, listed: dict[str, Listed]) -> Iterator[Damage]:
    """The manifest is written from the records, to the byte."""
    for stage in STAGES:
        folder = run / folder_name(stage)
        if (folder / RECORD).exists() and read_record(folder) is None:
            yield Damage(f"{folder.name}/{RECORD}", "is garbled", stage)
    path = run / MANIFEST
    if not path.is_file():
        yield Damage(MANIFEST, "is missing")
        return
    known = (read_json(path) or {}).get("records")
    known = known if isinstance(known, dict) else {}
    told = False
    for name, expected in known.items():
        if not (run / name).is_file():
            yield Damage(name, "is missing", _stage_of(name))
            told = True
        elif sha256(run / name) != expected:
            yield Damage(name, f"is not the file that {MANIFEST} lists (SHA-256)", _stage_of(name))
            told = True
    if not told and path.read_bytes() != rendered(run).encode():
        yield Damage(MANIFEST, "does not say what the stages' records say" if listed else "is garbled")


def _files(run: Path, listed: dict[str, Listed]) -> Iterator[Damage]:
    for name, row in listed.items():
        path = run / name
        if path.is_symlink():
            yield Damage(name, "is a link", _stage_of(name))
        elif not path.is_file():
            yield Damage(name, "is missing", _stage_of(name))
        elif (found := sha256(path)) != row.sha256:
            changed = f"has the SHA-256 {found[:16]}..., not {row.sha256[:16]}..."
            yield Damage(name, changed, _stage_of(name))


def _copies(run: Path) -> Iterator[Damage]:
    for name, original in COPIES.items():
        if (run / original).is_file() and (run / name).is_file() and sha256(run / name) != sha256(run / original):
            yield Damage(name, f"is not the copy of {original}", "report")


def _set_aside(run: Path) -> Iterator[Damage]:
    for folder in sorted((run / "previous").glob("*")):
        record = read_record(folder)
        if record is None and (folder / RECORD).exists():
            yield Damage(f"previous/{folder.name}/{RECORD}", "is garbled")
        for name, known in ({} if record is None else record.outputs).items():
            if not (folder / name).is_file() or sha256(folder / name) != known:
                yield Damage(f"previous/{folder.name}/{name}", "is missing or changed")


def _stage_of(name: str) -> str | None:
    first = name.split("/")[0]
    return next((stage for stage in STAGES if folder_name(stage) == first), None)
