"""The two sides of a finished run's export, to be compared again by hand."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from compress.diagnosis.torch_tensors import TorchTensors
from compress.errors import RunError
from compress.manifest import RUN
from compress.progress import choose
from compress.qat import prepare as qat
from compress.recipe import Recipe
from compress.stages.build import GOLDEN, MODEL
from compress.stages.distill import distill
from compress.stages.ending import lessons
from compress.stages.learned import Choice, recall
from compress.stages.prepare import prepare
from compress.stages.quantize import quantize
from compress.stages.select import select
from compress.store import open_store, read_run
from exporters import check_onnx, golden


def sides(folder: Path, quiet: bool) -> tuple[TorchTensors, ModelProto, dict[str, NDArray[np.generic]]]:
    """(the fake-quantised student after conversion, the run's model.onnx as it lies there, its golden inputs).

    The file is read as it is, also where it was changed after the run.

    Raises:
        RunError: the run has no finished export.
    """
    recipe = Recipe.from_json(read_run(folder)["recipe"], str(folder / RUN))
    with open_store(folder) as store:
        unfinished = [name for name in ("select", "distill", "quantize") if store.record(name) is None]
        model, samples = store.path("export") / MODEL, store.path("export") / GOLDEN
        if unfinished or not model.is_file() or not samples.is_file():
            raise RunError(
                f"{folder} has no finished {(*unfinished, 'export')[0]}",
                fix=f"run: compress pipeline --out {folder} --until export",
            )
        job = prepare(recipe, store, choose(quiet), None)
        choice = select(job, lessons(recall(job), recipe.select.rounds))
        assert isinstance(choice, Choice)  # what was exported was chosen
        quantized = quantize(job, choice, distill(job, choice))
        candidate = check_onnx.load(model)
        reference = TorchTensors(qat.convert(quantized.model), job.example, candidate)
    stored = golden.read(samples)
    inputs = {name.removeprefix("input:"): value for name, value in stored.items() if name.startswith("input:")}
    return reference, candidate, inputs
