"""Does the engine compute what was exported, how fast is it, and which layers run in int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .api import Api
from .engine import Engine, int8_nodes, layers
from .files import RefusedError, load_arrays, write_json, write_whole


def judge(golden: Any, found: Any, step: float | None, bounds: dict[str, float]) -> dict[str, Any]:
    """Compare an output with the golden one.

    Args:
        golden: what onnxruntime gave for the same inputs; float array, batch first.
        found: what the engine gave; the same shape.
        step: quantisation step of the output, None where it is float.
        bounds: "max_steps" and "within_one_step" (with a step), "mean_of_spread" (without), "top1_agreement".

    Returns:
        The figures, and "passed" with "failed": the names of the bounds that were broken.
    """
    import numpy as np

    first, second = np.asarray(golden, np.float64), np.asarray(found, np.float64)
    if first.shape != second.shape:
        return {"passed": False, "failed": [f"shape {second.shape} instead of {first.shape}"]}
    figures: dict[str, Any] = {
        "elements": int(first.size),
        "not_a_number": int((np.isnan(first) != np.isnan(second)).sum()),
    }
    difference = np.abs(np.nan_to_num(first) - np.nan_to_num(second))
    spread = float(np.nan_to_num(first).std())
    figures.update(max_abs=float(difference.max()), mean_abs=float(difference.mean()), spread=spread)
    failed = ["not_a_number"] if figures["not_a_number"] else []
    if step is not None:
        rounding = 4.0 * float(np.finfo(np.float32).eps) * np.maximum(np.abs(first), np.abs(second))
        figures["max_steps"] = figures["max_abs"] / step
        figures["within_one_step"] = float((difference <= step + np.nan_to_num(rounding)).mean())
        if not figures["max_steps"] <= bounds["max_steps"]:
            failed.append("max_steps")
        if not figures["within_one_step"] >= bounds["within_one_step"]:
            failed.append("within_one_step")
    elif not figures["mean_abs"] <= bounds["mean_of_spread"] * spread:
        failed.append("mean_of_spread")
    if first.ndim == 2 and first.shape[1] > 1:
        figures["top1_agreement"] = float((first.argmax(axis=1) == second.argmax(axis=1)).mean())
        if not figures["top1_agreement"] >= bounds["top1_agreement"]:
            failed.append("top1_agreement")
    return {**figures, "passed": not failed, "failed": failed}


def run_checks(engine: Engine, api: Api, request: dict[str, Any], folder: Path, seconds: float) -> dict[str, Any]:
    """Parity with the golden outputs, latency at each batch of the request, and the report on layers.

    Leaves `layers.json` (the inspector's own words) and `layers.report.json` (one row for each layer).
    """
    result: dict[str, Any] = {"parity": None, "latency": {}}
    inputs = load_arrays(folder / "golden_inputs.npz") if (folder / "golden_inputs.npz").is_file() else {}
    if inputs:
        golden = load_arrays(folder / "golden_outputs.npz")
        found = run_in_batches(engine, inputs, int(request["largest_batch"]), bool(request["one_batch_size"]))
        steps = {request["outputs"][0]: request["output_step"]}
        result["parity"] = {
            name: judge(golden[name], found[name], steps.get(name), request["bounds"]) for name in sorted(golden)
        }
        for batch in request["latency_batches"]:
            result["latency"][str(batch)] = engine.latency(repeat(inputs, int(batch)), seconds)
    told = engine.information()
    write_whole(folder / "layers.json", told.encode("utf-8"))
    rows = layers(told, api)
    write_json(folder / "layers.report.json", rows)
    covered = int8_nodes(rows)
    weighted = request["weighted_nodes"]
    result["int8_share"] = sum(name in covered for name in weighted) / len(weighted) if weighted else 0.0
    result["float_nodes"] = [name for name in weighted if name not in covered]
    result["layers"] = len(rows)
    return result


def run_in_batches(engine: Engine, inputs: dict[str, Any], largest: int, one_size: bool) -> dict[str, Any]:
    """Outputs for all rows of `inputs`, at most `largest` rows at a time.

    Args:
        one_size: the engine takes batches of `largest` rows only; the last one is filled up, and cut again.
    """
    import numpy as np

    rows = len(next(iter(inputs.values())))
    parts: dict[str, list[Any]] = {}
    for start in range(0, rows, largest):
        some = {name: array[start : start + largest] for name, array in inputs.items()}
        count = len(next(iter(some.values())))
        for name, array in engine.run(repeat(some, largest) if one_size else some).items():
            parts.setdefault(name, []).append(array[:count])
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def repeat(inputs: dict[str, Any], batch: int) -> dict[str, Any]:
    """The first `batch` rows, repeated from the start where there are fewer."""
    import numpy as np

    return {name: np.take(array, np.arange(batch) % len(array), axis=0) for name, array in inputs.items()}


def self_test(folder: Path, request: dict[str, Any]) -> str:
    """Hold the golden arrays and the judgement itself to what must be; how many samples there are.

    Raises:
        RefusedError: they do not belong together, or the judgement cannot tell right from wrong.
    """
    import numpy as np

    golden = load_arrays(folder / "golden_outputs.npz")
    inputs = load_arrays(folder / "golden_inputs.npz")
    rows = {len(array) for array in (*golden.values(), *inputs.values())}
    if len(rows) != 1 or set(request["inputs"]) != set(inputs) or set(request["outputs"]) != set(golden):
        raise RefusedError("golden inputs and outputs do not belong together; get the bundle again")
    for name, array in golden.items():
        step = request["output_step"] if name == request["outputs"][0] else None
        same = judge(array, array, step, request["bounds"])
        wrong = judge(array, array + 1000.0 * (step or 0.0) + 10.0 * array.std() + 1.0, step, request["bounds"])
        if not same["passed"] or wrong["passed"] or not np.isfinite(array).all():
            raise RefusedError(f"the check of output {name!r} cannot tell right from wrong; get the bundle again")
    return f"{rows.pop()} samples"
