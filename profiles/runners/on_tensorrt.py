"""Run and time a TensorRT or TensorRT-RTX engine on this machine's GPU, with CUDA events.

The latency is the GPU's time between two events around one enqueue (or one launch of a CUDA graph); copies between host
and device are not in it, and are measured apart, from and to pinned memory. An engine is code, so only files that
somebody vouches for are loaded. Written after NVIDIA's documents and tested against stand-ins: no machine of the
authors could run it.
"""

import importlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from profiles import trust as vouched
from profiles.errors import ProfileError
from profiles.measure import Measurement, Setup, UnsteadyError, example_inputs
from profiles.measure import measure as measure_sample
from profiles.runners import Arrays, WrongDeviceError, batch_of, cuda_driver, gpu, nvml
from profiles.runners.cuda_memory import Memory, memory
from profiles.runners.tensorrt_engine import Loaded, Traits, refit
from profiles.target import Target

PACKAGES = ("tensorrt", "tensorrt_rtx")


def available() -> str | None:
    """Why it cannot run here; None where it can."""
    if not _installed():
        return "neither TensorRT nor TensorRT-RTX is installed: pip install tensorrt, or JetPack's own on a Jetson"
    if cuda_driver.driver() is None:
        return "this machine has no NVIDIA GPU, or no driver for it: run on the device"
    return None


def fits(target: Target) -> str | None:
    """Why this GPU is not the target's; None where it is. See `gpu.misfit`."""
    return gpu.misfit(target)


def load(path: Path, *, sha256: str | None = None, trust: bool = False, traits: Traits | None = None) -> Loaded:
    """Open an engine on this machine's GPU, if somebody vouches for it.

    Args:
        sha256, trust: see `profiles.trust.check`.
        traits: how it was built; None takes what the record beside it says.

    Raises:
        UntrustedError: nobody vouches for the file, or it is not what was vouched for.
        ProfileError: TensorRT or a GPU is missing, or every installed TensorRT refuses it.
    """
    reason = available()
    if reason is not None:
        raise ProfileError(reason.split(": ", 1)[0], fix=reason.split(": ", 1)[1])
    path = Path(path)
    if not path.is_file():
        raise ProfileError(f"there is no file {path}", fix="build the engine first")
    vouched.check(path, sha256=sha256, trust=trust)
    return open_engine(path.read_bytes(), path.name, memory(), traits or _traits(path))


def open_engine(plan: bytes, name: str, device: Memory, traits: Traits | None = None) -> Loaded:
    """Give the plan to each installed TensorRT until one accepts it; `device` is the engine's from then on."""
    known = traits or Traits()
    tried = []
    free = cuda_driver.free_bytes()
    for package_name in _installed():
        package = importlib.import_module(package_name)
        logger = package.Logger(package.Logger.ERROR)
        runtime = package.Runtime(logger)
        if known.host_code:
            runtime.engine_host_code_allowed = True
        if known.dla_core is not None:
            runtime.DLA_core = known.dla_core
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is not None:
            if known.weights is not None:
                refit(package, logger, engine, known.weights, device)
            return Loaded(package, engine, device, free)
        tried.append(f"{package_name} {package.__version__}")
    device.close()
    raise ProfileError(
        f"{name} is refused by {' and '.join(tried)}; engines run only on the GPU and version they were built for",
        fix=f"build it on this machine from its ONNX file: compress build {Path(name).stem}.onnx",
    )


def _traits(path: Path) -> Traits:
    """What the record beside an engine says of it."""
    try:
        told = json.loads(path.with_name(path.name + vouched.RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return Traits()
    dla = told.get("dla") if isinstance(told, dict) else None
    core = int(dla["core"]) if isinstance(dla, dict) and "core" in dla else None
    return Traits(isinstance(told, dict) and bool(told.get("version_compatible")), core)


def measure(
    path: Path,
    target: Target | None = None,
    inputs: Arrays | None = None,
    *,
    batch: int = 1,
    threads: int = 1,
    seconds: float = 3.0,
    cuda_graph: bool = False,
) -> Measurement:
    """Time one forward pass of an engine.

    Args:
        target: None measures on whatever GPU there is.
        inputs: None takes normal random numbers.
        batch: where `inputs` is None.
        threads: not used; the GPU has its own.
        cuda_graph: start the engine as one CUDA graph, as trtexec of TensorRT 11 does by default: small engines are
            faster, for the GPU does not wait for the host between kernels.

    Raises:
        WrongDeviceError: this GPU is not the target's.
        ProfileError: as `load`, the engine cannot be recorded as a graph, or the runs spread too wide.
    """
    reason = available()
    wrong = fits(target) if target is not None and reason is None else None
    if wrong is not None:
        raise WrongDeviceError(wrong, fix="measure on the device itself")
    with load(path) as loaded:
        given = example_inputs(loaded.inputs, batch) if inputs is None else dict(inputs)
        size = batch_of(given, batch if inputs is None else None)
        loaded.bind(given)
        if cuda_graph:
            loaded.record()
        how = "one launch of a CUDA graph" if cuda_graph else "one enqueue, without a CUDA graph"
        clock = f"CUDA events around {how}, without copies, buffers by {loaded.buffers}"
        setup = Setup(size, 0, cuda_driver.description(), loaded.runtime, clock)
        watched = nvml.device()
        found = measure_sample(
            loaded.elapsed_ms,
            setup,
            seconds,
            settle_seconds=gpu.SETTLE_S,
            state=lambda: nvml.state(watched),
            meter=nvml.meter(watched),
        )
        held = loaded.held_bytes()
        short = min(seconds, 1.0)
        found = replace(
            found,
            with_transfer_ms=_median(loaded.with_transfer(given), setup, short),
            back_to_back_ms=_median(loaded.back_to_back_ms, setup, short),
            peak_memory_bytes=held,
        )
    return gpu.said(found, target)


def _median(sample: Callable[[], float], setup: Setup, seconds: float) -> float | None:
    try:
        return measure_sample(sample, setup, seconds).median_ms
    except UnsteadyError:
        return None


def _installed() -> list[str]:
    return [name for name in PACKAGES if importlib.util.find_spec(name) is not None]
