"""Run and time an ONNX file with onnxruntime's CUDA execution provider.

The latency is that of one call with inputs and outputs in device memory, from the call to its return, when the GPU is
done; with copies it is measured apart. Written after onnxruntime's documents: no machine of the authors has a GPU, and
the tests take the same way on a processor.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from profiles.errors import ProfileError
from profiles.measure import Array, Measurement, Setup, UnsteadyError, example_inputs, wall_clock
from profiles.measure import measure as measure_sample
from profiles.runners import Arrays, WrongDeviceError, batch_of, cuda_driver, gpu, nvml
from profiles.runners.on_onnxruntime import Loaded as Session
from profiles.target import Target

PROVIDER = "CUDAExecutionProvider"
DEVICE = "cuda"
FALL_BACK = ("CPUExecutionProvider",)  # for operators that CUDA has no kernel for
_ALL_OF_IT = "session.disable_cpu_ep_fallback"  # onnxruntime_session_options_config_keys.h


def available() -> str | None:
    """Why it cannot run here; None where it can."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed: pip install onnxruntime-gpu"
    if cuda_driver.driver() is None:
        return "this machine has no NVIDIA GPU, or no driver for it: run on the device"
    from onnxruntime import get_available_providers  # type: ignore[attr-defined]

    if PROVIDER not in get_available_providers():
        return "this onnxruntime was built without CUDA: pip install onnxruntime-gpu in its place"
    return None


class Loaded:
    """An inference session on the GPU."""

    def __init__(self, session: Any, whole: bool) -> None:
        self.session = session
        self.whole = whole  # no operator runs on the processor
        self._checked = Session(session, 1)
        self.inputs, self.outputs = self._checked.inputs, self._checked.outputs

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Outputs by name for inputs by name, in host memory; errors as `on_onnxruntime.Loaded.run`."""
        return self._checked.run(inputs)

    def bound(self, inputs: Arrays) -> Callable[[], None]:
        """A call that runs on inputs that lie in device memory and leaves the outputs there."""
        from onnxruntime import OrtValue  # type: ignore[attr-defined]

        binding = self.session.io_binding()
        for spec in self.inputs:
            array = np.ascontiguousarray(inputs[spec.name])
            binding.bind_ortvalue_input(spec.name, OrtValue.ortvalue_from_numpy(array, DEVICE, 0))
        for spec in self.outputs:
            binding.bind_output(spec.name, DEVICE)
        binding.synchronize_inputs()

        def call() -> None:
            self.session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return call


def load(path: Path, *, threads: int = 1) -> Loaded:
    """Open an ONNX file on the GPU; operators that CUDA lacks run on the processor where nothing else is possible.

    Raises:
        ProfileError: onnxruntime, its CUDA part or a GPU is missing, or the file is refused.
    """
    reason = available()
    if reason is not None:
        raise ProfileError(reason.split(": ")[0], fix=reason.split(": ")[1])
    if not Path(path).is_file():
        raise ProfileError(f"there is no file {path}", fix="pass the path of an ONNX file")
    refusal = ""
    for whole in (True, False):
        try:
            session = _session(path, threads, whole)
        except Exception as error:  # onnxruntime raises a family of exceptions without a common base of its own
            refusal = str(error).splitlines()[0]
            continue
        if session.get_providers()[0] != PROVIDER:  # it falls back without an error where its libraries do not load
            raise ProfileError(
                f"onnxruntime runs {path.name} on {session.get_providers()[0]} in place of {PROVIDER}",
                fix="install the CUDA and cuDNN versions that this onnxruntime was built for",
            )
        return Loaded(session, whole)
    raise ProfileError(f"onnxruntime refuses {path}: {refusal}", fix="check it with onnx.checker.check_model")


def measure(
    path: Path,
    target: Target | None = None,
    inputs: Arrays | None = None,
    *,
    batch: int = 1,
    threads: int = 1,
    seconds: float = 1.0,
) -> Measurement:
    """Time one forward pass; arguments as `on_tensorrt.measure`.

    Raises:
        WrongDeviceError: this GPU is not the target's.
        ProfileError: as `load`, the model's batch is fixed at another, or the runs spread too wide.
    """
    reason = available()
    wrong = gpu.misfit(target) if target is not None and reason is None else None
    if wrong is not None:
        raise WrongDeviceError(wrong, fix="measure on the device itself")
    loaded = load(path, threads=threads)
    given = example_inputs(loaded.inputs, batch) if inputs is None else dict(inputs)
    size = batch_of(given, batch if inputs is None else None)
    loaded.run(given)  # checks names, shapes and types once
    import onnxruntime

    clock = "wall clock until the GPU is done, inputs and outputs in device memory"
    setup = Setup(size, 0, cuda_driver.description(), f"onnxruntime {onnxruntime.__version__} CUDA", clock)
    watched = nvml.device()
    found = measure_sample(
        wall_clock(loaded.bound(given)),
        setup,
        seconds,
        settle_seconds=gpu.SETTLE_S,
        state=lambda: nvml.state(watched),
        meter=nvml.meter(watched),
    )
    feed = {name: np.ascontiguousarray(value) for name, value in given.items()}
    try:
        copied = measure_sample(wall_clock(lambda: loaded.session.run(None, feed)), setup, min(seconds, 1.0))
        found = replace(found, with_transfer_ms=copied.median_ms)
    except UnsteadyError:
        pass  # the time without copies stands; the one with them is left out
    if not loaded.whole:
        found = replace(found, notes=(*found.notes, "some operators run on the processor: CUDA has no kernel for them"))
    return gpu.said(found, target)


def _session(path: Path, threads: int, whole: bool) -> Any:
    from onnxruntime import InferenceSession, SessionOptions  # type: ignore[attr-defined]

    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if whole:
        options.add_session_config_entry(_ALL_OF_IT, "1")
        return InferenceSession(str(path), options, providers=[PROVIDER])
    return InferenceSession(str(path), options, providers=[PROVIDER, *FALL_BACK])
