"""Run an experiment seed by seed; finished seeds are kept, so that an interrupted run goes on."""

import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from compress import catalog
from compress.contracts.experiment import Experiment, Figures, Results
from compress.contracts.workers import Call, Failure, Resources, Task, Workers
from compress.errors import TaskError
from compress.progress import Progress
from compress.reproduction.verdict import verdict
from profiles.atomic import write_text
from profiles.errors import UserError

FILE = "results.json"
FORMAT = 1
ONE_CORE = Resources(cpus=1.0)
"""Every seed runs on one thread, wherever it runs, so that its sums do not depend on how many run at a time."""


def reproduce(
    name: str,
    experiment: Experiment,
    data: Path | None,
    out: Path,
    progress: Progress,
    seeds: int | None = None,
    code: str = "",
    workers: Workers | None = None,
) -> dict[str, Any]:
    """Run what is not finished, judge, and write `results.json` into `out`; gives its content.

    Args:
        data: folder of the data set; None where the data are generated.
        seeds: fewer or more than the experiment's own number. The verdict says how many there were.
        code: hash of what the experiment is written in: seeds that other code ran are run again.
        workers: None runs the seeds one after another in this process. Elsewhere the experiment is found by its name.

    Raises:
        TaskError: the experiment needs data and there are none.
        UserError: a seed failed in a worker.
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
    missing = [seed for seed in range(count) if str(seed) not in known]
    with progress.bar(f"reproduce {name}", float(count)) as bar:
        bar.advance(float(count - len(missing)))
        runs = _here(experiment, data, missing, progress.say) if workers is None else _by(workers, name, data, missing)
        for seed, done in runs:
            for line in done.pop("said"):
                progress.say(line)
            known[str(seed)] = done
            _write(path, identity | {"seeds": known})
            bar.advance()
    machine = {
        "threads": torch.get_num_threads() if workers is None else int(ONE_CORE.cpus),
        "machine": platform.machine(),
        "torch": torch.__version__,
    }
    told = _told(experiment, identity | {"judged_by": code}, known, count, machine)
    _write(path, told)
    return told


def judge_again(name: str, experiment: Experiment, source: Path, out: Path, code: str = "") -> dict[str, Any]:
    """Judge the figures of an earlier run by the criteria of now, and write `results.json` into `out`; runs nothing.

    Args:
        source: a `results.json`; its figures, CPU seconds, machine and `code` stay, which say what was run.
        code: hash of what the experiment, with its criteria, is written in now: it becomes "judged_by".

    Raises:
        UserError: the file cannot be read, is of another experiment or of one set up in another way, or lacks arms.
    """
    rerun = f"run it: compress reproduce {name}" + (f" --data {experiment.data.upper()}" if experiment.data else "")
    try:
        found = json.loads(source.read_text(encoding="utf-8"))
        identity = {key: found[key] for key in ("experiment", "bed", "code", "torch")}
        known, count, machine = dict(found["seeds"]), len(found["used"]), found["machine"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source} holds no results of a finished run ({error})", fix=rerun) from error
    if identity["experiment"] != name:
        raise UserError(
            f"{source} is of {identity['experiment']}, not of {name}",
            fix=f"compress reproduce {identity['experiment']} --from {source}",
        )
    if identity["bed"] != experiment.bed:
        raise UserError(f"{source} was run on another bed: {identity['bed']}", fix=rerun)
    try:
        told = _told(experiment, identity | {"judged_by": code}, known, count, machine)
    except KeyError as error:
        raise UserError(f"{source} has no figures of {error}", fix=rerun) from error
    out.mkdir(parents=True, exist_ok=True)
    _write(out / FILE, told)
    return told


def one_seed(experiment: str, data: str | None, seed: int) -> dict[str, Any]:
    """What a worker does: figures, CPU seconds and the lines that it said, of an experiment by its name."""
    # A worker limits the threads of a torch that it has imported, and its first task is what imports it.
    torch.set_num_threads(int(ONE_CORE.cpus))
    found: Experiment = catalog.load("compress.experiments", experiment).EXPERIMENT
    ((_, done),) = _here(found, None if data is None else Path(data), [seed], None)
    return done


def _here(
    experiment: Experiment, data: Path | None, seeds: Sequence[int], say: Callable[[str], None] | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """In this process; lines are said at once, or kept where there is no `say`."""
    for seed in seeds:
        kept: list[str] = []
        began = time.process_time()
        figures = experiment.run(data, seed, say or kept.append)
        yield seed, {"cpu_s": time.process_time() - began, "figures": _plain(figures), "said": kept}


def _by(workers: Workers, name: str, data: Path | None, seeds: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    folder = None if data is None else str(data.resolve())
    function = f"{__name__}:{one_seed.__name__}"
    tasks = (
        Task(str(seed), Call(function, {"experiment": name, "data": folder, "seed": seed}), ONE_CORE) for seed in seeds
    )
    for result in workers.stream(tasks):
        if isinstance(result, Failure):
            what = f"seed {result.key} of {name}: {result.what}"
            if result.fix is None:
                raise RuntimeError(f"{what}\n{result.traceback}")
            raise UserError(what, fix=result.fix)
        yield int(result.key), dict(result.value)


def _told(
    experiment: Experiment,
    identity: Mapping[str, str],
    known: Mapping[str, Any],
    count: int,
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of `results.json` of seeds that are all there."""
    results = _gathered(known, count)
    findings = tuple(experiment.judge(results))
    return {
        **identity,
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
        "machine": dict(machine),
        "seeds": dict(sorted(known.items(), key=lambda item: int(item[0]))),
    }


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
