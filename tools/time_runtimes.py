"""Time several ONNX files in every runtime installed here, interleaved; needs numpy, onnx and the runtimes alone.

    PYTHONPATH=. python tools/time_runtimes.py out.json --batch 1,16 --rounds 300 float.onnx int8.onnx ...

The first file in onnxruntime is what all ratios are relative to. One thread; every round runs each pair of file and
runtime once, in an order that changes, so that whatever disturbs the machine disturbs all of them.
"""

import argparse
import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from profiles.errors import ProfileError
from profiles.measure import compare, wall_clock

RUNTIMES = ("on_onnxruntime", "on_openvino")


def times(files: list[Path], batch: int, rounds: int, burst: int) -> dict[str, Any]:
    """Per file and runtime: median in ms, its ratio to the first file in onnxruntime, and the ratio's 90 % interval."""
    samples, refused = {}, {}
    for name in RUNTIMES:
        runner: Any = importlib.import_module(f"profiles.runners.{name}")
        missing = runner.available()
        for path in files:
            key = f"{path.stem} {name.removeprefix('on_')}"
            if missing is not None:
                refused[key] = missing
                continue
            try:
                loaded = runner.load(path, threads=1)
            except ProfileError as error:
                refused[key] = error.what
                continue
            inputs = _inputs(path, batch)
            once = runner.timed(loaded, inputs)
            samples[key] = (wall_clock(_repeated(once, burst)), runner.setup(inputs, 1))
    measured, ratios = compare(samples, rounds=rounds)
    rows = {
        key: {"ms": measured[key].median_ms / burst, "runtime": measured[key].runtime, **asdict(ratios[key])}
        for key in samples
    }
    return {"batch": batch, "rounds": rounds, "rows": rows, "refused": refused}


def _repeated(once: Any, burst: int) -> Any:
    """Several runs as one sample: a single run after another model's finds that one's data in the caches."""

    def runs() -> None:
        for _ in range(burst):
            once()

    return runs


def _inputs(path: Path, batch: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    graph = onnx.load(str(path), load_external_data=False).graph
    stored = {tensor.name for tensor in graph.initializer}
    found = {}
    for value in graph.input:
        if value.name not in stored:
            shape = [batch, *(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])]
            found[value.name] = rng.random(shape, dtype=np.float32)
    return found


def main() -> int:
    given = argparse.ArgumentParser(description="Time ONNX files in every runtime installed.")
    given.add_argument("out", type=Path)
    given.add_argument("files", type=Path, nargs="+")
    given.add_argument("--batch", default="1,16")
    given.add_argument("--rounds", type=int, default=300)
    given.add_argument("--burst", type=int, default=5)
    options = given.parse_args()
    batches = [int(text) for text in options.batch.split(",")]
    options.out.write_text(
        json.dumps([times(options.files, batch, options.rounds, options.burst) for batch in batches], indent=1)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
