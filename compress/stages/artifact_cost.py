"""What an untrained student's real artifact costs here: latency and memory do not depend on the weights' values."""

import tempfile
from pathlib import Path

import torch

from compress.job import Job
from compress.network import Model
from compress.qat import prepare as qat
from compress.qat.quantizer import rules
from exporters import torch_to_onnx
from exporters.cost_here import cost_here
from profiles.abilities import ability
from profiles.cost import Cost


def can_tell(job: Job) -> str | None:
    """Why an artifact of this run's target cannot be costed on this machine, or None where it can."""
    found = ability(job.target)
    if found.level == "estimate":
        return f"{found.runner} estimates costs of {job.target.name}, and runs nothing"
    if found.level != "predict":
        return None
    return "; ".join(found.missing.values()) or f"{job.target.name} has no runner"


def artifact_cost(job: Job, model: Model) -> Cost:
    """Quantise after one batch of calibration, export, build, and run or emulate it as the verify stage does.

    Args:
        model: raw inputs -> outputs; it is not changed.

    Returns:
        origin "measured" or "emulated"; "predicted" where it turned out that it cannot be run, with the reason in its
        first note.
    """
    calm = torch.Generator().manual_seed(job.recipe.seed)
    rows = torch.randperm(len(job.splits.train), generator=calm)[: job.recipe.distill.batch_size]
    prepared = qat.prepare(model.eval(), (job.example,), job.target.quantizer, float_modules=("frontend",))
    qat.calibrate(prepared, [job.splits.train.batch(rows).inputs])
    qat.enter(prepared, qat.phase(1.0))
    prepared.eval()
    with tempfile.TemporaryDirectory(prefix="compress-cost-") as scratch:
        path = Path(scratch) / "model.onnx"
        torch_to_onnx.convert(
            qat.convert(prepared),
            (job.example,),
            path,
            opset=max(job.target.opset, rules(job.target.quantizer).least_opset),
            metadata={},
            input_names=job.task.input_names,
            output_names=job.task.output_names,
            last=rules(job.target.quantizer).passes,
        )
        return cost_here(path, job.target, seed=job.recipe.seed)
