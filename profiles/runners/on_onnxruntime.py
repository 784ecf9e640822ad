"""Run and time an ONNX file with onnxruntime on this machine's processor."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from profiles.errors import ProfileError
from profiles.measure import Array, Measurement, Setup, TensorSpec, cpu
from profiles.runners import Arrays, batch_of, session
from profiles.runners.processor import check_inputs
from profiles.target import Target

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(int16)": np.int16,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


def available() -> str | None:
    """Why it cannot run here; None where it can."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed: pip install onnxruntime"
    return None


class Loaded:
    """An inference session."""

    def __init__(self, session: Any, threads: int) -> None:
        self._session = session
        self.threads = threads
        self.inputs = tuple(_spec(item) for item in session.get_inputs())
        self.outputs = tuple(_spec(item) for item in session.get_outputs())

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Outputs by name for inputs by name.

        Raises:
            ProfileError: names, shapes or types do not fit the model.
        """
        check_inputs(self.inputs, inputs)
        names = [spec.name for spec in self.outputs]
        results = self._session.run(names, {name: np.ascontiguousarray(value) for name, value in inputs.items()})
        return dict(zip(names, results, strict=True))


def load(path: Path, *, threads: int = 1, as_written: bool = False) -> Loaded:
    """Open an ONNX file.

    Args:
        threads: >= 1, of one operator; operators run one after the other.
        as_written: run the graph node by node, which is what the file means; else as onnxruntime rewrites it for speed,
            which moves roundings of quantised graphs.

    Raises:
        ProfileError: onnxruntime is missing or refuses the file.
    """
    reason = available()
    if reason is not None:
        raise ProfileError(reason.split(":")[0], fix=reason.split(": ")[1])
    from onnxruntime import (  # type: ignore[attr-defined]
        GraphOptimizationLevel,
        InferenceSession,
        SessionOptions,
    )

    if not Path(path).is_file():
        raise ProfileError(f"there is no file {path}", fix="pass the path of an ONNX file")
    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if as_written:
        options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3  # its warnings are about its own choices, not about the file
    # onnxruntime 1.31 rewrites float8 pairs wrongly beyond its basic level: products become a QGemm that it refuses,
    # convolutions give other values without a word (measured on a network of eight, and not with the basic rewrites).
    basic = GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        try:
            session = InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            rewritten = session.get_modelmeta().custom_metadata_map.get("precision") == "fp8" and not as_written
        except Exception as error:  # onnxruntime raises a family of exceptions without a common base of its own
            if "float8" not in str(error):
                raise
            rewritten = True
        if rewritten:
            options.graph_optimization_level = basic
            session = InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ProfileError(
            f"onnxruntime refuses {path}: {str(error).splitlines()[0]}", fix="check it with onnx.checker.check_model"
        ) from error
    return Loaded(session, threads)


def measure(
    path: Path,
    target: Target | None = None,
    inputs: Arrays | None = None,
    *,
    batch: int = 1,
    threads: int = 1,
    seconds: float = 1.0,
    pin: bool = True,
) -> Measurement:
    """Time one forward pass with onnxruntime.

    Args:
        target: None measures on whatever processor there is.
        inputs: None takes normal random numbers of the model's own shapes.
        batch: where `inputs` is None.
        threads: >= 1.
        pin: keep the threads on one physical core each while it lasts; see `profiles.cores`.

    Raises:
        WrongDeviceError: this processor is not of the target's kind.
        ProfileError: as `load`, the model's batch is fixed at another, or the runs spread too wide.
    """
    return session.measure(
        lambda: load(path, threads=threads),
        timed,
        setup,
        target,
        inputs,
        batch=batch,
        threads=threads,
        seconds=seconds,
        pin=pin,
    )


def timed(loaded: Loaded, inputs: Arrays) -> Any:
    """One run as a caller makes it, without the checks of `run`."""
    session = loaded._session
    feed = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
    return lambda: session.run(None, feed)


def setup(inputs: Arrays, threads: int, on: Sequence[int] = ()) -> Setup:
    """What a measurement with these inputs says about itself; `on`: the cores that it is pinned to."""
    import onnxruntime

    version = onnxruntime.__version__
    clock = "wall clock, inputs and outputs in host memory"
    return Setup(batch_of(inputs), threads, cpu(), f"onnxruntime {version}", clock, tuple(on))


def _spec(item: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in item.shape)
    return TensorSpec(item.name, shape, np.dtype(DTYPES.get(item.type, np.float32)))
