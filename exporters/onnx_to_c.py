"""An ONNX graph with Q/DQ pairs as C99 for one Cortex-M core: source, header, example and static library.

What is quantised runs in integers and gives onnxruntime's results bit for bit but for rare last bits; what is not
(a spectral front-end, for one) runs in single-precision floats. No heap; one static arena, planned from liveness.
"""

import re
import tempfile
from pathlib import Path

from exporters.artifact import Artifact
from exporters.c import arena, emit, graph
from exporters.c.lower import lower
from exporters.errors import ExportError
from profiles.atomic import write_bytes, write_text
from profiles.runners.cortex_m import toolchain
from profiles.target import Target


def can_run(target: Target) -> str | None:
    """Why no C can be made for `target` here; None where it can. The sources need no compiler."""
    if target.family != "cortex-m":
        return f"C is generated for Cortex-M cores; {target.name} is {target.family}"
    return None


def convert(model: Path, target: Target, out: Path) -> Artifact:
    """Write model.c, model.h, main.c, model.json and, where there is a cross-compiler, lib<name>.a into `out`.

    Args:
        model: ONNX with float32 inputs. int8 or uint8 activations with one scale, int8 weights with one scale per
            output channel or one in all. Dynamic first dimensions become 1.
        target: its core decides the compiler's flags.
        out: folder; made where it is missing.

    Returns:
        The folder as a "c-library". Its facts: flash_bytes and static_ram_bytes of the model linked alone (None
        without a compiler), arena_bytes, input_bytes (the caller's), kernels, fallback (quantised tensors that went
        through a float kernel), weight_bytes, macs.

    Raises:
        ExportError: the graph cannot be read, or a node has no kernel.
    """
    core = toolchain.core_of(target.hardware.core)
    context = lower(graph.read(Path(model)))
    plan = arena.plan(context.program)
    name = re.sub(r"[^A-Za-z0-9_]", "_", Path(model).stem)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "model.c", emit.source(context, plan, name))
    write_text(out / "model.h", emit.header(context, plan, name))
    write_text(out / "main.c", emit.example())
    write_text(out / "model.json", emit.table(context, plan))
    program = context.program
    facts: dict[str, object] = {
        "core": core.name,
        "flash_bytes": None,
        "static_ram_bytes": None,
        "arena_bytes": plan.bytes,
        "input_bytes": sum(buffer.bytes for buffer in program.buffers if buffer.place == "input"),
        "weight_bytes": sum(values.nbytes for _, values in program.constants.values()),
        "macs": sum(step.macs for step in program.steps),
        "kernels": sorted(set().union(*(step.kernels for step in program.steps))),
        "fallback": context.fallback,
    }
    library = f"lib{name}.a"
    note = "the caller holds the input and output arrays; static RAM is the model's own"
    absent = toolchain.missing("arm-none-eabi-gcc", "arm-none-eabi-ar", "arm-none-eabi-size")
    if absent is not None:
        flags = " ".join((*core.flags, *toolchain.OPTIMISATION))
        note = (
            f"{library} was not built: {absent}. Build it with: {toolchain.PACKAGES}; "
            f"arm-none-eabi-gcc {flags} -c model.c && arm-none-eabi-ar rcsD {library} model.o"
        )
        return Artifact(out, "c-library", note=note, facts=facts)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        built = toolchain.archive(core, out, folder, library)
        used = toolchain.footprint(core, folder)
        write_bytes(out / library, built.read_bytes())
    facts.update(flash_bytes=used.flash, static_ram_bytes=used.ram, library=library)
    return Artifact(out, "c-library", note=note, facts=facts)


__all__ = ["ExportError", "can_run", "convert"]
