"""Run an experiment seed by seed; finished seeds are kept, so that an interrupted run goes on."""

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from compress.contracts.experiment import Experiment, Figures, Results
from compress.errors import TaskError
from compress.progress import Progress
from compress.reproduction.verdict import verdict
from profiles.atomic import write_text

FILE = "results.json"
FORMAT = 1


def reproduce(
    name: str,
    experiment: Experiment,
    data: Path | None,
    out: Path,
    progress: Progress,
    seeds: int | None = None,
    code: str = "",
) -> dict[str, Any]:
    """Run what is not finished, judge, and write `results.json` into `out`; gives its content.

    Args:
        data: folder of the data set; None where the data are generated.
        seeds: fewer or more than the experiment's own number. The verdict says how many there were.
        code: hash of what the experiment is written in: seeds that other code ran are run again.

    Raises:
        TaskError: the experiment needs data and there are none.
    """
    if experiment.data and data is None:
        raise TaskError(
            f"the experiment of {name} needs the data set {experiment.data}",
            fix=f"pass --data FOLDER, the folder of {experiment.data}",
        )
    count = experiment.seeds if seeds is None else seeds
    out.mkdir(parents=True, exist_ok=True)
    path = out / FILE
    identity = {"experiment": name, "bed": experiment.bed, "code": code, "torch": torch.__version__}
    known = _known(path, identity)
    with progress.bar(f"reproduce {name}", float(count)) as bar:
        for seed in range(count):
            if str(seed) not in known:
                began = time.process_time()
                figures = experiment.run(data, seed, progress.say)
                known[str(seed)] = {"cpu_s": time.process_time() - began, "figures": _plain(figures)}
                _write(path, identity | {"seeds": known})
            bar.advance()
    results = _gathered(known, count)
    findings = tuple(experiment.judge(results))
    told = identity | {
        "format": FORMAT,
        "source": experiment.source,
        "claim": experiment.claim,
        "data": experiment.data,
        "columns": list(experiment.columns),
        "reference": experiment.reference,
        "used": list(results.seeds),
        "figures": {arm: {k: list(v) for k, v in row.items()} for arm, row in results.figures.items()},
        "findings": [asdict(finding) for finding in findings],
        "verdict": verdict(findings),
        "cpu_s": sum(known[str(seed)]["cpu_s"] for seed in range(count)),
        "machine": {"threads": torch.get_num_threads(), "machine": platform.machine(), "torch": torch.__version__},
        "seeds": known,
    }
    _write(path, told)
    return told


def _plain(figures: Figures) -> dict[str, dict[str, float]]:
    return {arm: {column: float(value) for column, value in row.items()} for arm, row in figures.items()}


def _known(path: Path, identity: Mapping[str, str]) -> dict[str, Any]:
    """Seeds of an earlier run of the same experiment; none where the file is absent, broken, or of another."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        same = all(found[key] == value for key, value in identity.items())
        return dict(found["seeds"]) if same else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _gathered(known: Mapping[str, Any], count: int) -> Results:
    rows = [known[str(seed)]["figures"] for seed in range(count)]
    arms = {arm: tuple(row) for arm, row in rows[0].items()}
    return Results(
        tuple(range(count)),
        {arm: {c: tuple(row[arm][c] for row in rows) for c in columns} for arm, columns in arms.items()},
    )


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1))
