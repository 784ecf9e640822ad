"""What an untrained student's real artifact costs: latency and memory do not depend on the weights' values."""

import tempfile
from pathlib import Path

import torch

from compress.job import Job
from compress.network import Model
from compress.qat import prepare as qat
from compress.qat.quantizer import rules
from exporters import builder, torch_to_onnx
from exporters.cost_here import RUNS_ONNX, cost_here
from exporters.cost_there import cost_there
from profiles.abilities import ability
from profiles.cost import Cost
from profiles.remote import Remote


def measured_there(job: Job) -> str | None:
    """The machine that measures in place of this one; None where none was named, or a simulator here does it."""
    return None if job.target.family == "cortex-m" else job.remote


def can_tell(job: Job) -> str | None:
    """Why an artifact of this run's target cannot be costed, on this machine or the run's remote one; None where it
    can."""
    there = measured_there(job)
    if there is not None:
        return None if job.target.runtime in RUNS_ONNX else _lacks_there(job, there)
    found = ability(job.target)
    if found.level == "estimate":
        return f"{found.runner} estimates costs of {job.target.name}, and runs nothing"
    if found.level != "predict":
        return None
    return "; ".join(found.missing.values()) or f"{job.target.name} has no runner"


def _lacks_there(job: Job, there: str) -> str | None:
    reasons = {}
    for name in job.target.builders:
        reason = builder.load(name).can_run(job.target, remote=there)
        if reason is None:
            return None
        reasons[name] = reason
    return "; ".join(reasons.values()) or f"nothing is built for {job.target.name} on another machine"


def artifact_cost(job: Job, model: Model) -> Cost:
    """Quantise after one batch of calibration, export, build, and run or emulate it, as the verify stage does.

    Args:
        model: raw inputs -> outputs; it is not changed.

    Returns:
        origin "measured" or "emulated"; "predicted" where it turned out that it cannot be run, with the reason in its
        first note.

    Raises:
        UserError: it cannot be built, or the remote machine cannot be reached or refuses it.
    """
    calm = torch.Generator().manual_seed(job.recipe.seed)
    rows = torch.randperm(len(job.splits.train), generator=calm)[: job.recipe.distill.batch_size]
    prepared = qat.prepare(model.eval(), job.example, job.target.quantizer, float_modules=("frontend",))
    qat.calibrate(prepared, [job.splits.train.batch(rows).inputs])
    qat.enter(prepared, qat.phase(1.0))
    prepared.eval()
    with tempfile.TemporaryDirectory(prefix="compress-cost-") as scratch:
        path = Path(scratch) / "model.onnx"
        torch_to_onnx.convert(
            qat.convert(prepared),
            job.example,
            path,
            opset=max(job.target.opset, rules(job.target.quantizer).least_opset),
            metadata={},
            input_names=job.task.input_names,
            output_names=job.task.output_names,
            last=rules(job.target.quantizer).passes,
        )
        one = {name: tensor.numpy() for name, tensor in zip(job.task.input_names, job.one_example, strict=True)}
        there = measured_there(job)
        if there is not None:
            return cost_there(path, job.target, Remote(there), seed=job.recipe.seed, inputs=one)
        return cost_here(path, job.target, seed=job.recipe.seed, inputs=one)
