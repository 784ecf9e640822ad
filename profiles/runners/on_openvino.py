"""Run and time an ONNX file with OpenVINO on this machine's processor."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from profiles.errors import ProfileError
from profiles.measure import Array, Measurement, Setup, TensorSpec, cpu
from profiles.runners import Arrays, batch_of, session
from profiles.runners.processor import check_inputs
from profiles.target import Target


def available() -> str | None:
    """Why it cannot run here; None where it can."""
    if importlib.util.find_spec("openvino") is None:
        return "OpenVINO is not installed: pip install openvino"
    return None


class Loaded:
    """A compiled model and one inference request."""

    def __init__(self, compiled: Any, threads: int, fixed: Callable[[Mapping[str, Sequence[int]]], Any]) -> None:
        self._request = compiled.create_infer_request()
        self._fixed = fixed
        self.threads = threads
        self.inputs = tuple(_spec(port) for port in compiled.inputs)
        self.outputs = tuple(_spec(port) for port in compiled.outputs)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Outputs by name for inputs by name.

        Raises:
            ProfileError: names, shapes or types do not fit the model.
        """
        check_inputs(self.inputs, inputs)
        results = self._request.infer({name: np.ascontiguousarray(value) for name, value in inputs.items()})
        return {spec.name: np.array(results[index]) for index, spec in enumerate(self.outputs)}

    def request_for(self, inputs: Arrays) -> Any:
        """A request of the model compiled for exactly these shapes; a plan for any batch takes up to 8 % longer."""
        return self._fixed({name: value.shape for name, value in inputs.items()}).create_infer_request()


def load(path: Path, *, threads: int = 1) -> Loaded:
    """Compile an ONNX file for this processor, for the shortest time of one request.

    Raises:
        ProfileError: OpenVINO is missing or refuses the file.
    """
    reason = available()
    if reason is not None:
        raise ProfileError(reason.split(":")[0], fix=reason.split(": ")[1])
    from openvino import Core  # type: ignore[attr-defined,unused-ignore]

    if not Path(path).is_file():
        raise ProfileError(f"there is no file {path}", fix="pass the path of an ONNX file")
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    try:
        core = Core()
        compiled = core.compile_model(core.read_model(str(path)), "CPU", options)

        def fixed(shapes: Mapping[str, Sequence[int]]) -> Any:
            model = core.read_model(str(path))
            model.reshape({name: list(shape) for name, shape in shapes.items()})
            return core.compile_model(model, "CPU", options)

    except RuntimeError as error:
        raise ProfileError(
            f"OpenVINO refuses {path}: {str(error).splitlines()[0]}", fix="check it with onnx.checker.check_model"
        ) from error
    return Loaded(compiled, threads, fixed)


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
    """Time one forward pass with OpenVINO; arguments and errors as in `on_onnxruntime.measure`."""
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
    """One run as a caller makes it who compiled the model for the shapes that he has."""
    request = loaded.request_for(inputs)
    feed = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
    return lambda: request.infer(feed, share_inputs=True)


def setup(inputs: Arrays, threads: int, on: Sequence[int] = ()) -> Setup:
    """What a measurement with these inputs says about itself; `on`: the cores that it is pinned to."""
    from importlib.metadata import version as version_of

    version = version_of("openvino").split("-")[0]
    clock = "wall clock, inputs and outputs in host memory"
    return Setup(batch_of(inputs), threads, cpu(), f"openvino {version}", clock, tuple(on))


def _spec(port: Any) -> TensorSpec:
    shape = tuple(dim.get_length() if dim.is_static else None for dim in port.partial_shape)
    return TensorSpec(port.any_name, shape, np.dtype(port.element_type.to_dtype()))
