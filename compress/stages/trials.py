"""One trial: a student is distilled for a share of the full training, wherever a worker runs.

The functions here are what workers call by name, with plain arguments: the run's folder, which every machine that works
for the search must see under the same path, and what to train.
"""

import json
import math
import platform
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from compress.contracts.selector import Trial
from compress.contracts.task import TrainingNumbers
from compress.contracts.workers import Call
from compress.errors import RunError, TrainingError
from compress.evaluations import Evaluation, key_of
from compress.job import Job
from compress.lesson import LEARNED, lesson
from compress.progress import Quiet
from compress.recipe import Recipe
from compress.records import Record, digest
from compress.stages.prepare import prepare
from compress.stages.students import open_space, student
from compress.store import Store
from compress.training.curve import plain
from compress.training.evaluate import evaluate
from profiles.atomic import write_text, writing

TRAINED = ".trained"  # ends the name of the folder beside the file of evaluations that holds trained weights


class Finished(Store):
    """The folder of a run whose lock another process holds: it is read, never written."""

    def once(
        self,
        stage: str,
        inputs: Mapping[str, str],
        work: Callable[[Path], tuple[Mapping[str, Path], Mapping[str, Any]]],
    ) -> Record:
        """The record of a finished stage.

        Raises:
            RunError: it is not finished, or was finished from other inputs.
        """
        record = self.record(stage)
        if record is None or dict(record.inputs) != dict(inputs):
            raise RunError(
                f"{self.folder} does not hold the {stage} stage of this run here",
                fix="let all workers see the run's folder, the data and the code of the run under the same paths",
            )
        return record


def reopen(folder: str, recipe: Mapping[str, Any]) -> Job:
    """The run as a worker sees it: data and teacher are read once."""
    return prepare(Recipe.from_json(recipe), Finished(Path(folder)), Quiet(), None)


def setup(job: Job) -> Call:
    """What a worker does first."""
    return Call(
        "compress.stages.trials:reopen", {"folder": str(job.store.folder.resolve()), "recipe": job.recipe.to_json()}
    )


def epochs_of(job: Job, share: float) -> int:
    """Whole epochs of a share, at least one."""
    return max(1, round(share * job.recipe.distill.epochs))


def keeps(job: Job, trial: Trial) -> bool:
    """Whether its weights are kept: a full training may be the one that goes on."""
    return epochs_of(job, trial.share) >= job.recipe.distill.epochs


def weights_beside(evaluations: Path) -> Path:
    """The folder of trained weights, `<key>.safetensors`: whoever shares the results shares these."""
    return evaluations.with_name(evaluations.stem + TRAINED)


def key(job: Job, trial: Trial) -> str:
    """What the trial's result is kept under: everything that decides it, and nothing else.

    Shares that come to the same epochs are one training.
    """
    given = {**job.identities, "distill": digest(job.recipe.distill)}
    share = epochs_of(job, trial.share) / job.recipe.distill.epochs
    return key_of(candidate=trial.candidate.identity, given=given, share=share, seed=trial.seed)


def call(trial: Trial, key: str, keep: Path | None) -> Call:
    """What a worker does for a trial.

    Args:
        keep: folder for the trained weights, `<key>.safetensors`; None where only the score is wanted.
    """
    return Call(
        "compress.stages.trials:train",
        {
            "key": key,
            "space": trial.candidate.space,
            "plan": trial.candidate.plan.to_json(),
            "share": trial.share,
            "seed": trial.seed,
            "keep": None if keep is None else str(keep.resolve()),
        },
    )


def train(
    job: Job, key: str, space: str, plan: Mapping[str, Any], share: float, seed: int, keep: str | None
) -> dict[str, Any]:
    """Distil one student; plain data that `read` understands.

    A kept one goes on from its last checkpoint where an earlier attempt was stopped. One that diverged has no weights.
    """
    started, began = datetime.now(UTC), time.process_time()
    part, opened = job.recipe.distill, open_space(job, space)
    model = student(job, space, opened, opened.from_json(plan), seed)
    folder = None if keep is None else Path(keep)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    checkpoint = None if folder is None else folder / f"{key}.checkpoint.pt"
    score = math.nan
    curve: Any = []
    try:
        outcome = lesson(
            job,
            model,
            TrainingNumbers(
                epochs_of(job, share),
                part.batch_size,
                part.learning_rate,
                part.weight_decay,
                keep_best=part.keep == "best",
            ),
            title=None,
            checkpoint=checkpoint,
            precision=part.precision,
            spare=lambda number: student(job, space, opened, opened.from_json(plan), seed + number),
            together=False,
            seed=job.recipe.seed + seed,
            keep=None if folder is None else folder / f"{key}.{LEARNED}",
        )
        score = evaluate(model, job.splits.val, job.task).score
        curve = plain(outcome.curve)
    except TrainingError:  # it diverged: that is an answer
        pass
    if folder is not None and not math.isnan(score):
        write_text(folder / f"{key}.json", json.dumps(curve))
        with writing(folder / f"{key}.safetensors") as temporary:
            save_file({k: v.detach().contiguous().clone() for k, v in model.state_dict().items()}, temporary)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return {
        "score": None if math.isnan(score) else score,
        "share": share,
        "seed": seed,
        "cpu_s": time.process_time() - began,
        "started": started.isoformat(),
        "finished": datetime.now(UTC).isoformat(),
        "host": platform.node(),
        "extra": {"space": space, "plan": dict(plan), "curve": [point["validation"] for point in curve]},
    }


def read(value: Mapping[str, Any], candidate: str) -> Evaluation:
    """What `train` gave, as it is remembered."""
    fields = {**value, "score": math.nan if value["score"] is None else value["score"]}
    return Evaluation(**fields, candidate=candidate)
