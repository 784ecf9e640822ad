"""An ONNX graph with Q/DQ pairs as C99 for one Cortex-M core: source, header, example and static library.

What is quantised runs in integers and gives onnxruntime's results bit for bit but for rare last bits; what is not
(a spectral front-end, for one) runs in single-precision floats. No heap; one static arena, planned from liveness.
"""

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from exporters.artifact import Artifact
from exporters.builder import BuildOptions
from exporters.c import arena, emit, graph, stack
from exporters.c.context import Context
from exporters.c.lower import lower
from exporters.errors import ExportError
from profiles.atomic import TEMPORARY_MARK, rename_new_folder, write_bytes, write_text
from profiles.runners.cortex_m import toolchain
from profiles.target import Target

FOLDER = "c"
SOFT = "-mfloat-abi=soft"  # a core without a floating-point unit


@dataclass(frozen=True)
class Choices:
    """What `convert` can be asked for; see there."""

    cmsis_nn: bool
    sizes: Mapping[str, int]
    fixed_point: bool | None


def can_run(target: Target, *, remote: str | None = None) -> str | None:
    """Why no C can be made for `target` here; None where it can. The sources need no compiler."""
    if remote is not None:
        return "C is generated on this machine; it needs no remote one"
    if target.family != "cortex-m":
        return f"C is generated for Cortex-M cores; {target.name} is {target.family}"
    return None


def convert(
    model: Path,
    target: Target,
    out: Path,
    *,
    options: BuildOptions | None = None,
    cmsis_nn: bool = False,
    sizes: Mapping[str, int] | None = None,
    fixed_point: bool | None = None,
) -> Artifact:
    """Write a folder `c` below `out`: model.c, model.h, main.c, Makefile, CMakeLists.txt, model.json and, where
    there is a cross-compiler, lib<name>.a.

    Args:
        model: ONNX with float32 inputs. int8 or uint8 activations with one scale, int8 weights with one scale per
            output channel or one in all. Dynamic first dimensions become 1.
        target: its core decides the compiler's flags.
        out: folder; made where it is missing. A folder of the same name in it is replaced.
        options: its name, where it has one, is the folder's.
        cmsis_nn: call the user's own CMSIS-NN for convolutions and products; no library is built then.
        sizes: dynamic dimension's name -> the size that the C is for.
        fixed_point: compute a spectral front-end in integers; None: where the core has no floating-point unit.

    Returns:
        The folder, kind "c-library". Its facts: core, flash_bytes and static_ram_bytes of the model linked alone and
        stack_bytes, its deepest stack (None without a compiler), arena_bytes, input_bytes (the caller's),
        weight_bytes, macs, kernels, fallback (nodes that decode quantised tensors because no integer kernel fits).
        The same model and core give the same bytes.

    Raises:
        ExportError: the graph cannot be read, or a node has no kernel (the message names it).
        ProfileError: the target's core is unknown, or the cross-compiler fails.
    """
    missing = can_run(target)
    if missing is not None:
        raise ExportError(missing, fix="choose a target of the family cortex-m")
    out.mkdir(parents=True, exist_ok=True)
    final = out / ((options.name if options else None) or FOLDER)
    partial = Path(tempfile.mkdtemp(prefix=f".{final.name}{TEMPORARY_MARK}", dir=out))
    try:
        partial.chmod(0o755)
        note, facts = _write(Path(model), target, partial, Choices(cmsis_nn, sizes or {}, fixed_point))
        if final.exists():
            shutil.rmtree(final)
        rename_new_folder(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    purpose = options.purpose if options else "artifact"
    return Artifact(final, "c-library", purpose, note, facts)


def stack_bytes(folder: Path, core: str) -> int | None:
    """The deepest stack, in bytes, of generated C in `folder` compiled for a core.

    Raises:
        ProfileError: the core is unknown, or the cross-compiler fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("model.c", "model.h"):
            shutil.copyfile(folder / name, Path(scratch) / name)
        return stack.depth(toolchain.core_of(core), Path(scratch))


def sources(
    model: Path,
    target: Target,
    out: Path,
    *,
    cmsis_nn: bool = False,
    sizes: Mapping[str, int] | None = None,
    fixed_point: bool | None = None,
) -> Path:
    """Write the sources alone, with no compiler and no library, into the folder `out`; the folder.

    Raises:
        ExportError, ProfileError: as `convert`.
    """
    out.mkdir(parents=True, exist_ok=True)
    _sources(model, target, out, Choices(cmsis_nn, sizes or {}, fixed_point))
    return out


def _sources(model: Path, target: Target, out: Path, choices: Choices) -> tuple[Context, arena.Plan, str]:
    core = toolchain.core_of(target.hardware.core)
    fixed = SOFT in core.flags if choices.fixed_point is None else choices.fixed_point
    context = lower(graph.read(model, choices.sizes), choices.cmsis_nn, fixed)
    plan = arena.plan(context.program)
    name = re.sub(r"[^A-Za-z0-9_]", "_", model.stem)
    write_text(out / "model.c", emit.source(context, plan, name))
    write_text(out / "model.h", emit.header(context, plan, name))
    write_text(out / "main.c", emit.example())
    write_text(out / "Makefile", emit.makefile(core.flags, toolchain.OPTIMISATION, core.name))
    write_text(out / "CMakeLists.txt", emit.cmake(toolchain.OPTIMISATION))
    write_text(out / "model.json", emit.table(context, plan, core.name))
    return context, plan, name


def _write(model: Path, target: Target, out: Path, choices: Choices) -> tuple[str, dict[str, object]]:
    core = toolchain.core_of(target.hardware.core)
    context, plan, name = _sources(model, target, out, choices)
    program = context.program
    facts: dict[str, object] = {
        "core": core.name,
        "flash_bytes": None,
        "static_ram_bytes": None,
        "stack_bytes": None,
        "arena_bytes": plan.bytes,
        "input_bytes": sum(buffer.bytes for buffer in program.buffers if buffer.place == "input"),
        "weight_bytes": sum(values.nbytes for _, values in program.constants.values()),
        "macs": sum(step.macs for step in program.steps),
        "kernels": sorted(frozenset[str]().union(*(step.kernels for step in program.steps))),
        "fallback": context.fallback,
    }
    library = f"lib{name}.a"
    note = "the caller holds the input and output arrays; static RAM is the model's own"
    if choices.cmsis_nn:
        note = (
            "model.c calls your CMSIS-NN: add its sources and its Include folder to the build; codes may differ by one"
        )
        return note, facts
    absent = toolchain.missing("arm-none-eabi-gcc", "arm-none-eabi-ar", "arm-none-eabi-size")
    if absent is not None:
        flags = " ".join((*core.flags, *toolchain.OPTIMISATION))
        note = (
            f"{library} was not built: {absent}. Build it with: {toolchain.PACKAGES}; "
            f"arm-none-eabi-gcc {flags} -c model.c && arm-none-eabi-ar rcsD {library} model.o"
        )
        return note, facts
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        built = toolchain.archive(core, out, folder, library)
        used = toolchain.footprint(core, folder)
        deepest = stack.depth(core, folder)
        write_bytes(out / library, built.read_bytes())
    facts.update(flash_bytes=used.flash, static_ram_bytes=used.ram, stack_bytes=deepest, library=library)
    return note, facts
