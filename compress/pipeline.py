"""From a trained teacher and data to a small model proven on its target: read this page first."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from compress.errors import BudgetError, GateError
from compress.evaluations import open_evaluations
from compress.job import Job
from compress.manifest import RUN, write_manifest
from compress.progress import Progress, Quiet
from compress.ranks import Ranks, join, open_folder
from compress.recipe import Recipe
from compress.records import STAGES
from compress.stages.build import build
from compress.stages.distill import distill
from compress.stages.ending import ending, lessons, nearest
from compress.stages.export import export
from compress.stages.learned import Memory, memorize, recall
from compress.stages.prepare import prepare
from compress.stages.quantize import quantize
from compress.stages.report import report
from compress.stages.select import Exhausted, select, selector_of
from compress.stages.verify import CHECKS, verify
from compress.store import Store
from compress.tally import metric_of
from compress.workers.parse import parse
from profiles.atomic import write_text


@dataclass(frozen=True)
class Result:
    """Where a run ended.

    Attributes:
        reached: the last stage that is finished.
        repeated: the stages that did work this time; the others were finished already.
        leads: whether this process speaks for all that torchrun started.
    """

    folder: Path
    reached: str
    repeated: tuple[str, ...]
    leads: bool = True


def run(
    recipe: Recipe,
    out: Path,
    progress: Progress,
    *,
    until: str = "report",
    redo: frozenset[str] = frozenset(),
    remote: str | None = None,
    workers: str = "serial",
    evaluations: Path | None = None,
) -> Result:
    """Run the stages in order; finished ones are kept by content. Under torchrun all processes train together.

    A student whose artifact breaks the budget, in cost or in accuracy, sends the search back with what was learned.
    `select.rounds` students are built at most. Where none keeps the accuracy, the nearest one is what the run leaves.

    Args:
        until: the last stage to run.
        redo: stages to do again although they are finished.
        remote: user@host that builds and measures in place of this machine.
        workers: where the search's trials run: serial, processes:4, ray://host:port. The choice does not depend on it.
        evaluations: file in which trials are remembered, to share it between runs; None for one in the run's folder.

    Raises:
        RecipeError: there are no such workers, or the selector has no such setting.
        UserError: what the user can mend; nothing is left half-written.
        BudgetError: nothing meets the budget; says which constraint binds.
        GateError: a check failed, or no student that was built kept the metric; the report is written before.
    """
    parse(workers)  # what cannot work is refused before a teacher is trained
    selector_of(recipe)
    if evaluations is not None:
        open_evaluations(evaluations).close()
    ranks = join()
    progress = progress if ranks.leads else Quiet()
    with open_folder(ranks, out, redo) as store:
        if ranks.leads:
            remember(store, recipe)
        last = STAGES.index(until)
        job = replace(prepare(recipe, store, progress, remote), workers=workers, evaluations=evaluations)
        memory = recall(job)
        while True:
            end = ending(memory, recipe.select.rounds, metric_of(job.task))  # None while the search may go on
            if last < STAGES.index("select"):
                return _result(store, ranks, "prepare")
            choice = select(job, lessons(memory, recipe.select.rounds))
            if isinstance(choice, Exhausted):
                memory = _learned(job, ranks, replace(memory, exhausted=choice.why))
                continue
            if last < STAGES.index("distill"):
                return _result(store, ranks, "select")
            student = distill(job, choice)
            if last < STAGES.index("quantize"):
                return _result(store, ranks, "distill")
            quantized = quantize(job, choice, student)
            if last < STAGES.index("export"):
                return _result(store, ranks, "quantize")
            exported = export(job, choice, student, quantized)
            if last < STAGES.index("build"):
                return _result(store, ranks, "export")
            built = build(store, job.target, remote, progress)
            if last < STAGES.index("verify"):
                return _result(store, ranks, "build")
            checks = verify(job, choice, student, quantized, exported, built)
            end = end if checks.missed is not None else None
            if checks.missed is None or end is not None:
                break
            memory = Memory((*memory.learned, checks.missed))
            if len(memory.learned) >= recipe.select.rounds and nearest(memory.learned) is None:
                raise BudgetError(
                    f"{len(memory.learned)} students in a row broke the budget when they were built: "
                    f"{checks.missed.why}",
                    fix="allow more with --budget, or raise select.rounds",
                )
            _learned(job, ranks, memory)
            store.redo = frozenset()
        reported = last >= STAGES.index("report")
        if reported:
            report(job, choice, checks, memory, end)
        failed = checks.failed if end is None else (*checks.failed, end.why)
        if failed:
            where = store.folder / "report.html" if reported else store.path("verify") / CHECKS
            fix = f"read {where}: it shows where and why"
            raise GateError("; ".join(failed), fix=fix if end is None else f"{end.fix}; {fix}")
        return _result(store, ranks, until)


def _learned(job: Job, ranks: Ranks, memory: Memory) -> Memory:
    """On the disk before the next round begins: a run that is killed goes on in that round."""
    if ranks.leads:
        memorize(job, memory)
    end = ending(memory, job.recipe.select.rounds, metric_of(job.task))
    job.progress.say(f"back to select: {memory.learned[-1].why}" if end is None else f"the search ends: {end.why}")
    return memory


def remember(store: Store, recipe: Recipe) -> None:
    """Write what the folder is for, so that one stage can be run again without naming it all."""
    write_text(store.folder / RUN, json.dumps({"format": 1, "recipe": recipe.to_json()}, indent=1))
    write_manifest(store.folder)


def default_folder(recipe: Recipe) -> Path:
    """`runs/<recipe>-<target>`."""
    return Path("runs") / f"{recipe.name}-{recipe.target.replace(os.sep, '_')}"


def _result(store: Store, ranks: Ranks, reached: str) -> Result:
    return Result(store.folder, reached, tuple(dict.fromkeys(store.repeated)), ranks.leads)
