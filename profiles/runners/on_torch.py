"""Run and time a torch program, eager: an exported one in memory, or a module with `measure_module`.

On a processor for targets that are one, else on the GPU with CUDA events. Files are refused: torch reads a .pt2 file
with pickle, which runs whatever code the file holds.
"""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from profiles import cores, meters, resident
from profiles.errors import ProfileError
from profiles.measure import Array, Measurement, Setup, TensorSpec, cpu, example_inputs, wall_clock
from profiles.measure import measure as measure_sample
from profiles.runners import Arrays, WrongDeviceError, batch_of, cuda_driver, gpu, nvml, processor
from profiles.target import Target

if TYPE_CHECKING:
    import torch


def available() -> str | None:
    """Why it cannot run here; None where it can."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed: pip install torch"
    return None


class Loaded:
    """An exported program on one device."""

    def __init__(self, program: "torch.export.ExportedProgram", device: str) -> None:
        self.module = program.module().to(device)
        self.device = device
        signature = program.graph_signature
        values = {node.name: node.meta.get("val") for node in program.graph.nodes}
        self.inputs = tuple(_spec(name, values[name]) for name in map(str, signature.user_inputs))
        self.outputs = tuple(_spec(str(name), values[str(name)]) for name in signature.user_outputs)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Outputs by name for inputs by name.

        Raises:
            ProfileError: names or shapes do not fit the program.
        """
        import torch

        try:
            with torch.inference_mode():
                outputs = self.module(*self.tensors(inputs))
        except (RuntimeError, AssertionError, TypeError) as error:
            raise ProfileError(
                f"the program does not take these inputs: {str(error).splitlines()[0]}",
                fix="pass the shapes and types that it was exported with",
            ) from error
        listed = outputs if isinstance(outputs, tuple | list) else (outputs,)
        return {spec.name: value.cpu().numpy() for spec, value in zip(self.outputs, listed, strict=True)}

    def tensors(self, inputs: Arrays) -> "list[torch.Tensor]":
        """The inputs on the program's device, in its order.

        Raises:
            ProfileError: names do not fit the program.
        """
        import torch

        wanted = [spec.name for spec in self.inputs]
        if set(inputs) != set(wanted):
            raise ProfileError(
                f"the program's inputs are {', '.join(wanted)}; given were {', '.join(sorted(inputs)) or 'none'}",
                fix="pass exactly the program's inputs",
            )
        return [torch.from_numpy(np.array(inputs[name])).to(self.device) for name in wanted]


def load(program: "Path | torch.export.ExportedProgram", *, device: str = "cpu") -> Loaded:
    """Bring an exported program to a device.

    Args:
        program: what `torch.export.export` gave. The path of a file is what other runners take, and is refused.
        device: "cpu" or "cuda".

    Raises:
        ProfileError: torch is missing or has no such device, or a file was passed.
    """
    reason = available()
    if reason is not None:
        raise ProfileError(reason.split(": ")[0], fix=reason.split(": ")[1])
    if isinstance(program, str | Path):
        raise ProfileError(
            f"{program} is not opened: torch reads exported programs with pickle, which runs the code in them",
            fix="pass the program itself (torch.export.load opens files that you trust), or profile an ONNX file",
        )
    _check_device(device)
    return Loaded(program, device)


def measure(
    program: "Path | torch.export.ExportedProgram",
    target: Target | None = None,
    inputs: Arrays | None = None,
    *,
    batch: int = 1,
    threads: int = 1,
    seconds: float = 1.0,
) -> Measurement:
    """Time one forward pass of an exported program; arguments as `on_onnxruntime.measure`.

    Raises:
        WrongDeviceError: this processor or GPU is not the target's.
        ProfileError: as `load`, the program's batch is fixed at another, or the runs spread too wide.
    """
    device = _device(target)
    loaded = load(program, device=device)
    given = example_inputs(loaded.inputs, batch) if inputs is None else dict(inputs)
    batch_of(given, batch if inputs is None else None)
    loaded.run(given)  # checks once
    return _measure(loaded.module, loaded.tensors(given), target, device, threads, seconds)


def measure_module(
    module: "torch.nn.Module",
    inputs: "torch.Tensor | Sequence[torch.Tensor]",
    target: Target | None = None,
    *,
    threads: int = 1,
    seconds: float = 1.0,
) -> Measurement:
    """Time one eager forward pass of a module; it is left as it was found, in mode and device.

    Args:
        module: run in evaluation mode, without gradients.
        inputs: what its forward takes, batch first.
        target, threads, seconds: see `on_onnxruntime.measure`.

    Raises:
        WrongDeviceError: this processor or GPU is not the target's.
        ProfileError: torch has no such device, or the runs spread too wide.
    """
    import torch

    device = _device(target)
    _check_device(device)
    given = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
    first = next(module.parameters(), None)
    before, training = (first.device if first is not None else None), module.training
    try:
        moved = module.eval().to(device)
        return _measure(moved, [value.to(device) for value in given], target, device, threads, seconds)
    finally:
        module.train(training)
        if before is not None:
            module.to(before)


def _measure(
    module: "Callable[..., Any]",
    inputs: "list[torch.Tensor]",
    target: Target | None,
    device: str,
    threads: int,
    seconds: float,
) -> Measurement:
    import torch

    batch = next((int(value.shape[0]) for value in inputs if value.ndim), 1)
    name = f"torch {torch.__version__}, eager"

    def run() -> None:
        with torch.inference_mode():
            module(*inputs)

    if device == "cuda":
        return gpu.said(_on_gpu(run, Setup(batch, 0, cuda_driver.description(), name, ""), seconds), target)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with cores.pinned(cores.choose(threads)) as on:
            with resident.peak() as memory:
                run()
            setup = Setup(batch, threads, cpu(), name, "wall clock, inputs and outputs in host memory", on)
            found = measure_sample(wall_clock(run), setup, seconds, meter=meters.of_processor())
    finally:
        torch.set_num_threads(before)
    return processor.said(found, memory.extra_bytes, target)


def _on_gpu(run: Callable[[], None], setup: Setup, seconds: float) -> Measurement:
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]

    def sample() -> float:
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    watched = nvml.device()
    clock = (
        "CUDA events around one call, inputs and outputs in device memory, Python's own time between kernels included"
    )
    return measure_sample(
        sample,
        Setup(setup.batch, 0, setup.device, setup.runtime, clock),
        seconds,
        settle_seconds=gpu.SETTLE_S,
        state=lambda: nvml.state(watched),
        meter=nvml.meter(watched),
    )


def _device(target: Target | None) -> str:
    """Where the target's programs run here.

    Raises:
        WrongDeviceError: this machine is not of its kind.
    """
    if target is None or target.family != "nvidia-gpu":
        wrong = processor.misfit(target) if target is not None else None
        device = "cpu"
    else:
        wrong = gpu.misfit(target)
        device = "cuda"
    if wrong is not None:
        raise WrongDeviceError(wrong, fix="measure on the device itself")
    return device


def _check_device(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ProfileError("this torch has no GPU to run on", fix="install a torch with CUDA, on a machine with a GPU")


def _spec(name: str, value: Any) -> TensorSpec:
    """Name, shape and type of a traced tensor; a dimension that is a symbol is the caller's to choose."""
    import torch

    if not isinstance(value, torch.Tensor):
        raise ProfileError(f"{name!r} of the program is no tensor", fix="export a program of tensors only")
    shape = tuple(size if type(size) is int else None for size in value.shape)
    try:
        dtype = torch.empty(0, dtype=value.dtype).numpy().dtype
    except TypeError as error:
        raise ProfileError(
            f"{name!r} of the program is {value.dtype}, which numpy does not have",
            fix="measure it with profiles.runners.on_torch.measure_module",
        ) from error
    return TensorSpec(name, shape, dtype)
