"""Run generated C on an emulated Cortex-M, count its instructions, and run the same C on this machine.

QEMU executes every instruction but has no pipeline, cache or flash wait states: outputs and instruction counts are
exact, time is not. Instructions and outputs become cycles as published boards show it for int8 networks, with the range
that those have (profiles/latency/cortex_m.toml).
"""

import json
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from profiles import energy
from profiles.cost import Cost, LayerCost
from profiles.errors import ProfileError
from profiles.latency import cortex_m
from profiles.measure import TensorSpec
from profiles.runners.cortex_m import toolchain
from profiles.runners.cortex_m.toolchain import Core, Footprint
from profiles.target import Target

Array = NDArray[Any]

CALIBRATION = 1_000_000  # instructions of the loop in board.c
SEED = 0


@dataclass(frozen=True)
class Emulation:
    """What one run gave.

    Attributes:
        outputs: graph output -> (N, ...), float32.
        instructions: inside the model, per input, (inputs,). Resolution: `per_tick` instructions for each step.
        steps: the same per step, (inputs, steps).
        per_tick: instructions per tick of the counter.
    """

    outputs: Mapping[str, Array]
    instructions: NDArray[np.int64]
    steps: NDArray[np.int64]
    per_tick: int


class Loaded:
    """A model linked for one emulated core. Its files go when it is closed (or leaves `with`), or is forgotten."""

    def __init__(self, folder: Path, core: Core, facts: Mapping[str, Any], footprint: Footprint) -> None:
        self.folder = folder
        self.core = core
        self.facts = facts
        self.footprint = footprint
        self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def run(self, inputs: Mapping[str, Array], timeout_s: float = toolchain.TIMEOUT_S) -> Mapping[str, Array]:
        """Outputs (N, ...) by name for inputs (N, ...) by name; see `emulate`."""
        return self.emulate(inputs, timeout_s).outputs

    def emulate(self, inputs: Mapping[str, Array], timeout_s: float = toolchain.TIMEOUT_S) -> Emulation:
        """Run the model on every input, in one emulator process, and count.

        Args:
            inputs: graph input -> (N, ...) float32.

        Raises:
            ProfileError: sizes do not fit the model, or the emulator failed or took longer than `timeout_s`.
        """
        count = _write_inputs(self.folder / "in.bin", self.facts, inputs)
        command = ["qemu-system-arm", "-M", self.core.machine, "-nographic", "-monitor", "none", "-serial", "none"]
        command += ["-semihosting-config", "enable=on,target=native", "-icount", "shift=0", "-kernel", "board.elf"]
        toolchain.run(command, self.folder, timeout_s)
        ticks = np.fromfile(self.folder / "ticks.bin", dtype="<u4").astype(np.int64)
        steps = len(self.facts["steps"])
        if ticks.size != 1 + count * steps:
            raise ProfileError(
                f"the emulated board stopped after {(ticks.size - 1) // max(1, steps)} of {count} inputs",
                fix="check that the model fits the board's memory",
            )
        per_tick = round(CALIBRATION / int(ticks[0]))
        counted = ticks[1:].reshape(count, steps) * per_tick
        outputs = _read_outputs(self.folder / "out.bin", self.facts, count)
        return Emulation(outputs, counted.sum(axis=1), counted, per_tick)

    def close(self) -> None:
        """Remove the linked program."""
        self._remove()

    def __enter__(self) -> "Loaded":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def available() -> str | None:
    """Why nothing can be emulated here; None where it can."""
    absent = toolchain.missing("arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm")
    return None if absent is None else f"{absent}: {toolchain.PACKAGES}"


def load(path: Path, core: str | None = None) -> Loaded:
    """Compile and link generated C for an emulated board.

    Args:
        path: the folder with model.c, model.h and model.json.
        core: cortex-m3, cortex-m4, cortex-m7, cortex-m33 or cortex-m55; None is the one that the C was generated for.

    Raises:
        ProfileError: a tool or a file is missing, or the model does not compile.
    """
    facts = _facts(path)
    chosen = toolchain.core_of(facts["core"] if core is None else core)
    absent = toolchain.missing("arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm")
    if absent is not None:
        raise ProfileError(f"emulating a {chosen.name} needs tools that are not here: {absent}", fix=toolchain.PACKAGES)
    work = Path(tempfile.mkdtemp(prefix="cortex-m-"))
    try:
        for name in ("board.c", "step.h"):
            shutil.copyfile(toolchain.FOLDER / name, work / name)
        (work / "board.ld").write_text(_linker_script(chosen), encoding="utf-8")
        toolchain.archive(chosen, path, work, "libmodel.a")
        footprint = toolchain.footprint(chosen, work)
        _check_room(chosen, footprint)
        compiler = ["arm-none-eabi-gcc", *chosen.flags, *toolchain.OPTIMISATION]
        toolchain.run([*compiler, "-include", "step.h", "-c", "model.c", "-o", "model.o"], work)
        toolchain.run([*compiler, "-fno-tree-loop-distribute-patterns", "-c", "board.c", "-o", "board.o"], work)
        link = ["-nostartfiles", "--specs=nano.specs", "-T", "board.ld", "board.o", "model.o", "-lm", "-o", "board.elf"]
        toolchain.run(["arm-none-eabi-gcc", *chosen.flags, *link], work)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return Loaded(work, chosen, facts, footprint)


def _check_room(core: Core, footprint: Footprint) -> None:
    for name, needed, (_, there) in (("flash", footprint.flash, core.code), ("RAM", footprint.ram, core.data)):
        if needed > there:
            raise ProfileError(
                f"the model takes {needed} bytes of {name}; the emulated {core.machine} has {there}",
                fix="emulate a smaller model, or on a core whose board has more: the others have 4 MiB of each",
            )


def measure(path: Path, target: Target, inputs: Mapping[str, Array] | None = None) -> Cost:
    """Cost of one inference on `target`'s core, from emulated instructions and published cycles per instruction.

    Args:
        inputs: graph input -> (N, ...) float32; the mean over N is reported. None: one input of normal
            numbers with a fixed seed. Instructions depend little on the values: loops have fixed lengths.

    Raises:
        ProfileError: as `load` and `Loaded.run`.
    """
    with load(path, target.hardware.core) as model:
        if inputs is None:
            rng = np.random.default_rng(SEED)
            sizes = model.facts["inputs"]
            inputs = {name: rng.standard_normal((1, size)).astype(np.float32) for name, size in sizes.items()}
        return _cost(model, model.emulate(inputs), target)


class HostLoaded:
    """The same C, compiled for this machine. Its files go when it is closed (or leaves `with`), or is forgotten."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.folder = folder
        self.facts = facts
        self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def run(self, inputs: Mapping[str, Array], timeout_s: float = toolchain.TIMEOUT_S) -> Mapping[str, Array]:
        """Outputs (N, ...) by name for inputs (N, ...) by name; equal to the emulated core's bit for bit.

        Raises:
            ProfileError: sizes do not fit the model, or the program failed or took longer than `timeout_s`.
        """
        count = _write_inputs(self.folder / "in.bin", self.facts, inputs)
        toolchain.run([str(self.folder / "host")], self.folder, timeout_s)
        return _read_outputs(self.folder / "out.bin", self.facts, count)

    def close(self) -> None:
        """Remove the program."""
        self._remove()

    def __enter__(self) -> "HostLoaded":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load_on_host(path: Path, timeout_s: float = toolchain.TIMEOUT_S) -> HostLoaded:
    """Compile generated C with this machine's compiler.

    Raises:
        ProfileError: there is no C compiler, a file is missing, or the C does not compile.
    """
    compiler = toolchain.host_compiler()
    if compiler is None:
        raise ProfileError("this machine has no C compiler (cc, gcc, clang)", fix="apt-get install gcc")
    facts = _facts(path)
    work = Path(tempfile.mkdtemp(prefix="host-c-"))
    try:
        for source in (path / "model.c", path / "model.h", toolchain.FOLDER / "host.c"):
            shutil.copyfile(source, work / source.name)
        flags = ("-O2", "-std=c99", "-ffp-contract=off", "-fno-math-errno")
        toolchain.run([compiler, *flags, "model.c", "host.c", "-o", "host", "-lm"], work, timeout_s)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return HostLoaded(work, facts)


def run_on_host(path: Path, inputs: Mapping[str, Array], timeout_s: float = toolchain.TIMEOUT_S) -> Mapping[str, Array]:
    """As `load_on_host` and `HostLoaded.run`, for one call."""
    with load_on_host(path, timeout_s) as model:
        return model.run(inputs, timeout_s)


def specs(facts: Mapping[str, Any]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs (N, elements) and outputs (N, ...) of generated C, all float32, as its model.json says."""
    single = np.dtype(np.float32)
    inputs = tuple(TensorSpec(name, (None, int(size)), single) for name, size in facts["inputs"].items())
    shapes = facts["output_shapes"]
    return inputs, tuple(TensorSpec(name, (None, *map(int, shapes[name])), single) for name in facts["outputs"])


def _cost(model: Loaded, run: Emulation, target: Target) -> Cost:
    cycles = cortex_m.cycles(model.core.name)
    clock_hz = target.hardware.clock_mhz * 1e6
    instructions = float(run.instructions.mean())
    per_step = run.steps.mean(axis=0)
    steps = model.facts["steps"]
    spent = [cycles.of(float(count), step["outputs"]) for step, count in zip(steps, per_step, strict=True)]
    middle = 1e3 * sum(spent) / clock_hz
    held = 4 * sum((*model.facts["inputs"].values(), *model.facts["outputs"].values()))  # the caller's arrays
    layers = tuple(
        LayerCost(
            name=step["name"],
            ops=tuple(step["ops"]),
            macs=step["macs"],
            weight_bytes=step["weight_bytes"],
            activation_bytes=step["activation_bytes"],
            latency_ms=1e3 * one / clock_hz,
            bound_by="compute",
            precision=step["precision"],
        )
        for step, one in zip(steps, spent, strict=True)
    )
    cost = Cost(
        target=target.name,
        runtime="c",
        batch=1,
        precision="int8" if any(layer.precision == "int8" for layer in layers) else "fp32",
        macs=model.facts["macs"],
        params=model.facts["params"],
        weight_bytes=model.facts["weight_bytes"],
        peak_activation_bytes=model.facts["arena_bytes"] + held,
        latency_ms=middle,
        interval_ms=(middle * cycles.low, middle * cycles.high),
        origin="emulated",
        layers=layers,
        notes=(
            f"{instructions:.0f} instructions on an emulated {model.core.name} ({model.core.machine}), "
            f"{instructions / max(1, model.facts['macs']):.2f} per multiply-accumulate",
            f"{cycles.per_instruction:g} cycles per instruction and {cycles.per_output:g} per output of int8 products "
            f"at {target.hardware.clock_mhz:g} MHz, {cycles.low:g} to {cycles.high:g} times that: {cycles.source}",
            f"flash {model.footprint.flash} bytes, static RAM {model.footprint.ram} bytes, "
            f"{held} bytes of input and output held by the caller (counted as activations)",
            *_too_large(model.footprint, held, target),
        ),
    )
    return energy.added(cost, target)


def _too_large(footprint: Footprint, held: int, target: Target) -> tuple[str, ...]:
    """What does not fit into the target; the emulated board has more memory."""
    found = []
    for name, needed, kib in (
        ("flash", footprint.flash, target.hardware.flash_kib),
        ("RAM", footprint.ram + held, target.hardware.ram_kib),
    ):
        if kib and needed > kib * 1024:
            found.append(f"does not fit {target.name}: {needed} bytes of {name}, and it has {kib * 1024}")
    return tuple(found)


def _facts(folder: Path) -> Mapping[str, Any]:
    for name in ("model.c", "model.h", "model.json"):
        if not (folder / name).is_file():
            raise ProfileError(f"{folder} has no {name}", fix="pass the folder that the C exporter wrote")
    facts: Mapping[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    return facts


def _linker_script(core: Core) -> str:
    text = (toolchain.FOLDER / "board.ld").read_text(encoding="utf-8")
    for name, (origin, length) in (("code", core.code), ("data", core.data)):
        text = text.replace(f"@{name}_origin@", f"{origin:#x}").replace(f"@{name}_length@", str(length))
    return text


def _write_inputs(path: Path, facts: Mapping[str, Any], inputs: Mapping[str, Array]) -> int:
    sizes = facts["inputs"]
    counts = {len(array) for array in inputs.values()}
    fits = set(inputs) == set(sizes) and len(counts) == 1 and min(counts) > 0
    if not fits or any(array.size != len(array) * sizes[name] for name, array in inputs.items()):
        given = {name: tuple(array.shape) for name, array in inputs.items()}
        raise ProfileError(
            f"inputs {given} do not fit; the model takes (N, elements) with elements {dict(sizes)}",
            fix="pass one array per graph input, by name, all with the same first dimension",
        )
    rows = [np.ascontiguousarray(inputs[name], dtype="<f4").reshape(-1, size) for name, size in sizes.items()]
    np.concatenate(rows, axis=1).tofile(path)
    return len(rows[0])


def _read_outputs(path: Path, facts: Mapping[str, Any], count: int) -> Mapping[str, Array]:
    sizes = facts["outputs"]
    flat = np.fromfile(path, dtype="<f4").reshape(count, sum(sizes.values()))
    parts = np.split(flat, np.cumsum(list(sizes.values()))[:-1], axis=1)
    shapes = facts["output_shapes"]
    return {name: part.reshape(count, *shapes[name]) for name, part in zip(sizes, parts, strict=True)}
