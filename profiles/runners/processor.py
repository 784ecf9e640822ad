"""What runners on processors share: whether this one fits a target, and what a measurement on it says of itself."""

import platform
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from profiles import machine
from profiles.errors import ProfileError
from profiles.measure import Measurement, TensorSpec
from profiles.runners import Arrays
from profiles.target import Target

# Words of a target's `hardware.core` -> flags of /proc/cpuinfo that a processor with that feature has, any of them.
# "AVX-512 VNNI" and "AVX-VNNI" are two encodings of the same instructions, on registers of different width.
FLAGS = {
    r"\bAMX\b": ("amx_int8", "amx_tile"),
    r"\bAVX-?512[ _-]?VNNI\b": ("avx512_vnni",),
    r"\bAVX[_-]?VNNI\b": ("avx_vnni", "avx512_vnni"),
    r"\bAVX-?512\b": ("avx512f",),
    r"\bAVX-?2\b": ("avx2",),
}
NAMES = dict(zip(FLAGS, ("AMX", "AVX-512 VNNI", "AVX-VNNI", "AVX-512", "AVX2"), strict=True))
IMPLIES = {  # features of every processor that has the first
    "AMX": ("AVX-512 VNNI", "AVX-VNNI", "AVX-512", "AVX2"),
    "AVX-512 VNNI": ("AVX-VNNI", "AVX-512", "AVX2"),
    "AVX-VNNI": ("AVX2",),
    "AVX-512": ("AVX2",),
    "AVX2": (),
}
_WITHOUT = re.compile(r"\b(?:without|no)\s+([A-Za-z0-9 /,_-]+)", re.IGNORECASE)


def misfit(target: Target, cpuinfo: Path = Path("/proc/cpuinfo"), architecture: str | None = None) -> str | None:
    """Why this processor cannot stand for the target; None where it can, as far as the system tells.

    Args:
        target: `hardware.core` names its features, such as "x86-64 with AVX-512 VNNI".
        cpuinfo: what the kernel says of the processor.
        architecture: None asks the system.
    """
    if target.family != "x86-cpu":
        return f"the target {target.name} is no processor that onnxruntime or OpenVINO run on"
    here = architecture or platform.machine()
    is_x86 = "x86" in target.hardware.core.lower() or any(_says(word, target.hardware.core) for word in FLAGS)
    if is_x86 and here.lower() not in ("x86_64", "amd64", "x64"):
        return f"the target is an x86-64 processor, this one is {here}"
    flags = features(cpuinfo)
    if not flags:
        return None
    wanted = _WITHOUT.sub("", target.hardware.core)
    named = {NAMES[word] for word in FLAGS if _says(word, wanted)}
    lacking = [name for name in NAMES.values() if name in named - _here(flags)]
    if lacking:
        return f"the target has {' and '.join(lacking)}, this processor has not"
    # A runtime takes every instruction that it finds: where the target lacks one, times taken with it are not its own.
    extra = [name for name in _beyond(named, flags) if name != "AMX"]
    if extra:
        return f"the target has no {' and no '.join(extra)}, this processor has, and runtimes use it"
    return None


def surplus(target: Target, cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """What this processor has beyond the target that `misfit` accepts, in words; None if nothing.

    AMX is accepted beyond VNNI: few kernels of small batches use it, and most servers that have one have the other.
    """
    named = {NAMES[word] for word in FLAGS if _says(word, _WITHOUT.sub("", target.hardware.core))}
    extra = _beyond(named, features(cpuinfo))
    return f"this processor has {' and '.join(extra)}, which the target has not; runtimes may use it" if extra else None


def _here(flags: frozenset[str]) -> set[str]:
    return {NAMES[word] for word, any_of in FLAGS.items() if flags & {*any_of}}


def _beyond(named: set[str], flags: frozenset[str]) -> list[str]:
    """Features that this processor has and that those `named` do not imply; none where nothing is named."""
    implied = {other for name in named for other in (name, *IMPLIES[name])}
    return [name for name in NAMES.values() if named and name in _here(flags) - implied]


def features(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The flags that the kernel lists for the first core; empty where it lists none."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return frozenset(line.partition(":")[2].split())


def said(found: Measurement, memory_bytes: int | None, target: Target | None) -> Measurement:
    """The measurement with its memory, and notes on the processor's cores, its clock and how it fits the target."""
    notes = [*found.notes]
    if target is not None and (more := surplus(target)) is not None:
        notes.append(more)
    where = f"pinned to core {_listed(found.cores)}" if found.cores else "not pinned to a core"
    clock = machine.setting(machine.read(found.cores))
    notes.append(f"{where}; {clock or 'the system tells neither clock nor governor'}")
    if memory_bytes is not None:
        notes.append(f"loading and running took {memory_bytes / 2**20:.1f} MiB of memory more than was held before")
    return replace(found, notes=tuple(notes), peak_memory_bytes=memory_bytes)


def _listed(cores: tuple[int, ...]) -> str:
    return " and ".join(str(core) for core in cores)


def _says(word: str, text: str) -> bool:
    return re.search(word, text, re.IGNORECASE) is not None


def check_inputs(specs: Sequence[TensorSpec], inputs: Arrays) -> None:
    """Whether arrays fit a model.

    Raises:
        ProfileError: names, shapes or types do not fit.
    """
    wanted = {spec.name for spec in specs}
    if set(inputs) != wanted:
        raise ProfileError(
            f"the model's inputs are {', '.join(sorted(wanted))}; given were {', '.join(sorted(inputs)) or 'none'}",
            fix="pass exactly the model's inputs",
        )
    for spec in specs:
        given = inputs[spec.name]
        fits = len(given.shape) == len(spec.shape) and all(
            size is None or size == have for size, have in zip(spec.shape, given.shape, strict=True)
        )
        if not fits or given.dtype != spec.dtype:
            raise ProfileError(
                f"input {spec.name!r} takes {spec.dtype} {_shape(spec.shape)}, not {given.dtype} {given.shape}",
                fix="pass an array of that type and shape",
            )


def _shape(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"
