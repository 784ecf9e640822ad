"""The ONNX file together with the runtime that runs it fastest on this processor, found by measuring.

Which runtime wins depends on the model: the same int8 network ran 1.6 times slower or faster than float32 on
onnxruntime depending on where Q/DQ stand, and OpenVINO wins some and loses others. So each installed one runs the
model, all in one interleaved run at batch 1, and one that computes something else is left out.
"""

import importlib
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from exporters import check_onnx, parity
from exporters.artifact import Artifact
from exporters.builder import Arrays, BuildOptions
from exporters.bundle import BOUNDS
from exporters.errors import ExportError
from profiles import atomic
from profiles.errors import ProfileError
from profiles.measure import Measurement, Ratio, compare, example_inputs, wall_clock
from profiles.target import Target

RUNTIMES = ("on_onnxruntime", "on_openvino")  # the first is what the others are compared with
CLEARLY_FASTER = 0.97  # upper end of the ratio's interval below which another runtime than the first is chosen
ROUNDS = 200
CHOICE = "choice.json"


def can_run(target: Target, *, remote: str | None = None) -> str | None:
    """None where onnxruntime is installed here and the target is a processor; else what is missing."""
    if remote is not None:
        return "runtimes are measured on this machine; run the same command on the other one"
    if target.runtime not in ("onnxruntime", "openvino"):
        return f"{target.name} runs {target.runtime}, not onnxruntime or OpenVINO"
    missing: str | None = importlib.import_module(f"profiles.runners.{RUNTIMES[0]}").available()
    return missing


def convert(model: Path, target: Target, out: Path, *, options: BuildOptions) -> Artifact:
    """Write `model.onnx` and `choice.json` below `out`.

    Args:
        model: the exported ONNX file.
        target: a processor; its runners name the runtimes that may be chosen.
        out: folder.
        options: golden_inputs (the first sample is timed; else random numbers of the model's shapes), output_step,
            threads, name.

    Returns:
        The ONNX file, byte for byte the exported one. facts: runtime (the chosen one), threads, per runtime its
        times in ms and its ratio to the first, differences of its outputs, and those left out with the reason.
        Times differ between builds, so choice.json does; the file that ships does not.

    Raises:
        ExportError: no runtime takes the model.
    """
    missing = can_run(target)
    if missing is not None:
        raise ExportError(missing, fix="install onnxruntime, or name another builder for this target")
    check_onnx.load(model)
    left_out: dict[str, str] = {}
    loaded: dict[str, Any] = {}
    for name in RUNTIMES:
        if name not in target.runners:
            continue
        runner = importlib.import_module(f"profiles.runners.{name}")
        reason = runner.available()
        if reason is None:
            try:
                loaded[name] = runner.load(model, threads=options.threads)
            except ProfileError as error:
                reason = error.what
        if reason is not None:
            left_out[name] = reason
    if not loaded:
        raise ExportError(
            f"no runtime takes {model.name}: {'; '.join(left_out.values()) or 'the target names none'}",
            fix=f"add {RUNTIMES[0]} to the target's runners, and install it",
        )
    sample = _sample(options, loaded[next(iter(loaded))])
    differences = _agreeing(loaded, sample, options, left_out)
    single = {name: array[:1] for name, array in sample.items()}
    measured, ratios = _times({name: loaded[name] for name in differences}, single, options.threads)
    chosen = _choose(ratios)
    facts: dict[str, object] = {
        "runtime": chosen.removeprefix("on_"),
        "runner": chosen,
        "threads": options.threads,
        "measured": {name: asdict(found) for name, found in measured.items()},
        "ratios": {name: asdict(found) for name, found in ratios.items()},
        "differences": differences,
        "left_out": left_out,
        "machine": platform.machine(),
        "origin": "measured",
        "reproducible": True,
    }
    path = out / (options.name or "model.onnx")
    atomic.write_bytes(path, model.read_bytes())
    atomic.write_text(out / CHOICE, json.dumps(facts, indent=1, sort_keys=True) + "\n")
    return Artifact(
        path=path,
        kind="onnx",
        purpose=options.purpose,
        note=f"fastest here with {measured[chosen].runtime}: median {measured[chosen].median_ms:.3f} ms at batch 1",
        facts={**facts, "choice": CHOICE},
    )


def _sample(options: BuildOptions, loaded: Any) -> Arrays:
    if options.golden_inputs:
        return options.golden_inputs
    return example_inputs(loaded.inputs, batch=8)


def _agreeing(
    loaded: dict[str, Any], sample: Arrays, options: BuildOptions, left_out: dict[str, str]
) -> dict[str, dict[str, object]]:
    """Differences from the golden outputs (or the first runtime's) of those that stay within the bounds."""
    reference: Arrays = options.golden_outputs
    kept: dict[str, dict[str, object]] = {}
    for name, runtime in loaded.items():
        outputs = runtime.run(sample)
        reference = reference or outputs
        found = {}
        for index, output in enumerate(reference):
            step = options.output_step if index == 0 else None
            found[output] = parity.compare(np.asarray(reference[output]), np.asarray(outputs[output]), step)
        wrong = [output for output, one in found.items() if not _within_bounds(one)]
        if wrong:
            left_out[name] = f"its output {wrong[0]!r} differs too much: {found[wrong[0]]}"
        else:
            kept[name] = {output: asdict(one) for output, one in found.items()}
    if not kept:
        raise ExportError(
            f"no runtime computes the golden outputs: {'; '.join(f'{k}: {v}' for k, v in left_out.items())}",
            fix="make the golden outputs from this ONNX file and these inputs",
        )
    return kept


def _within_bounds(found: parity.Parity) -> bool:
    if found.not_a_number:
        return False
    if found.top1_agreement is not None and found.top1_agreement < BOUNDS["top1_agreement"]:
        return False
    if found.max_steps is not None and found.within_one_step is not None:
        return found.max_steps <= BOUNDS["max_steps"] and found.within_one_step >= BOUNDS["within_one_step"]
    return found.mean_abs <= BOUNDS["mean_of_spread"] * found.spread


def _times(loaded: dict[str, Any], sample: Arrays, threads: int) -> tuple[dict[str, Measurement], dict[str, Ratio]]:
    samples = {}
    for name, runtime in loaded.items():
        runner = importlib.import_module(f"profiles.runners.{name}")
        samples[name] = (wall_clock(runner.timed(runtime, sample)), runner.setup(sample, threads))
    return compare(samples, rounds=ROUNDS)


def _choose(ratios: dict[str, Ratio]) -> str:
    """The first runtime, unless another is clearly faster; so a tie does not change the choice from run to run."""
    first, *others = ratios
    clear = [name for name in others if ratios[name].high < CLEARLY_FASTER]
    return min(clear, key=lambda name: ratios[name].median) if clear else first
