"""Run folders whose manifest, records and files somebody edited."""

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

from profiles.errors import UserError
from tools.fuzzing import mutations
from tools.fuzzing.kind import Kind, Rng

COMMANDS = (("verify", "--only-hashes"), ("sbom",), ("parity",), ("sensitivity",))


def _prepare(folder: Path) -> Any:
    from compress.manifest import RUN
    from compress.recipe import load
    from compress.records import STAGES
    from compress.store import open_store
    from profiles.atomic import write_text

    run = folder / "sound"
    with open_store(run) as store:
        write_text(run / RUN, json.dumps({"format": 1, "recipe": load(None).to_json()}))
        for stage in STAGES:

            def work(place: Path, stage: str = stage) -> Any:
                for name in ("checks.json", "report.json", "curve.json"):
                    write_text(place / name, json.dumps({"format": 1, "stage": stage, "rows": [1, 2.5, None, "a"]}))
                return {"what it made": place}, {"accuracy": {"teacher": 0.5}, "gates": [], "found": [stage]}

            store.once(stage, {"seed": "0"}, work)
    for words in COMMANDS:  # what they import is not part of a case
        with contextlib.suppress(UserError):
            _command(run, words)
    return run


def _examine(run: Any, rng: Rng, folder: Path) -> None:
    from compress.manifest import MANIFEST, RUN
    from compress.records import RECORD
    from compress.store import open_store

    case = folder / "case"
    shutil.rmtree(case, ignore_errors=True)
    shutil.copytree(run, case)
    names = [MANIFEST, RUN, *(path.relative_to(case).as_posix() for path in sorted(case.glob(f"*/{RECORD}")))]
    path = case / rng.choice((names[0], names[1], rng.choice(names)))
    if rng.random() < 0.4:
        path.write_bytes(mutations.of_bytes(path.read_bytes(), rng))
    else:
        tree = mutations.of_tree(json.loads(path.read_text()), rng)
        path.write_text(json.dumps(tree), encoding="utf-8", errors="surrogatepass")
    if rng.random() < 0.3:  # the folder as the pipeline opens it
        with open_store(case) as store:
            store.manifest()
            store.record("export")
        return
    _command(case, rng.choice(COMMANDS))


def _command(run: Path, words: tuple[str, ...]) -> None:
    from compress.cli.main import parser

    options = parser().parse_args([words[0], str(run), *words[1:]])
    with contextlib.redirect_stdout(io.StringIO()):
        options.run(options)


KIND = Kind("runs", _prepare, _examine)
