"""The kernels of known architectures, and the time that the model of TensorRT's kernels gives them.

latency/kernels.csv holds the kernels of the models of the tables at batch 1: their work and their activations grow with
the batch, their weights do not. A model that is not there is built by tools/architectures where torch is installed;
where it is not, or the architecture is not known, there are none and a row is predicted from its totals.

    python tools/latency_kernels.py TABLE.csv > tools/latency/kernels.csv
"""

import csv
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))
import numpy as np
from latency_rows import FACTS, Array, Gpu, Row, gpu_of, likely

from profiles.cost import Precision
from profiles.fuse import Kernel, KernelKind
from profiles.latency import nvidia_gpu
from profiles.latency.nvidia_gpu import Constants
from profiles.target import Hardware


def width_of(precision: str) -> Precision:
    """What a table's precision is to the kernels."""
    if "int8" in precision or "fp8" in precision:
        return "int8"
    return "fp16" if "16" in precision else "fp32"


def kernels_of(model: str, shape: str, precision: Precision) -> tuple[Kernel, ...] | None:
    """The kernels of a table's model at batch 1, equal ones as one that repeats; None where they cannot be known."""
    stored = _stored().get((model, shape, precision))
    return stored or _built(model, shape, precision)


@lru_cache(maxsize=4096)
def _built(model: str, shape: str, precision: Precision) -> tuple[Kernel, ...] | None:
    try:
        import architectures
    except ImportError:  # no torch
        return None
    from profiles.errors import ProfileError
    from profiles.fuse import fuse

    try:
        graph = architectures.graph_of(model, shape, 1)
    except (ProfileError, ValueError, RuntimeError, KeyError, IndexError):
        return None  # a shape that the architecture does not take: the totals are still there
    return None if graph is None else merged(fuse(graph, "nvidia-gpu", precision).kernels)


def merged(kernels: Iterable[Kernel]) -> tuple[Kernel, ...]:
    """Kernels that the model gives the same time, as one that repeats; what it does not look at is left out."""
    counted: Counter[Kernel] = Counter()
    for kernel in kernels:
        counted[_plain(kernel.once)] += kernel.repeats
    return tuple(replace(kernel, macs=kernel.macs * count, repeats=count) for kernel, count in counted.items())


def _plain(kernel: Kernel) -> Kernel:
    attention = nvidia_gpu.kind_of(kernel) == "attention"
    return _kernel(
        kernel.kind, attention, kernel.precision, kernel.macs, kernel.depth, kernel.channels, kernel.elements,
        kernel.activation_bytes, kernel.weight_bytes, kernel.padding,
    )  # fmt: skip


def _kernel(
    kind: KernelKind,
    attention: bool,
    precision: Precision,
    macs: int,
    depth: int,
    channels: int,
    elements: int,
    moved: int,
    weights: int,
    padding: float,
) -> Kernel:
    """One run of a kernel, with what the model of its time looks at and nothing else."""
    return Kernel(
        "", kind, ("Softmax",) if attention else (), macs, depth, channels, elements, (), (), (), moved, 0, weights,
        precision, 0, padding=padding,
    )  # fmt: skip


def at_batch(kernels: Iterable[Kernel], batch: int) -> tuple[Kernel, ...]:
    """The kernels of a batch, from those of one item."""
    return tuple(
        replace(k, macs=k.macs * batch, elements=k.elements * batch, read_bytes=k.read_bytes * batch) for k in kernels
    )


# --- time -------------------------------------------------------------------------------------------------------------

GENERATIONS = {"8.7": "jetson", "11.0": "jetson", "7.2": "jetson-xavier", "5.3": "jetson-cuda-cores"}
GENERATIONS["6.2"] = GENERATIONS["5.3"]
SERVERS = "a100"  # of any other compute capability
NAMES = tuple(Constants.__dataclass_fields__)


def generation(gpu: Gpu) -> str:
    """The devices that share constants with this one."""
    return GENERATIONS.get(gpu.capability, SERVERS)


@dataclass(frozen=True)
class Timed:
    """A row as the kernel model sees it."""

    kernels: tuple[Kernel, ...]  # of the batch
    hardware: Hardware
    generation: str
    batch: int


def timed(row: Row, batch: int, devices: Sequence[Gpu]) -> Timed | None:
    """The kernels and the hardware of a row; None where either is not known."""
    gpu = gpu_of(row, devices)
    if not likely(row, gpu):
        return None
    kernels = kernels_of(row.model, row.shape, width_of(row.precision))
    return None if kernels is None else Timed(at_batch(kernels, batch), hardware_of(gpu), generation(gpu), batch)


def hardware_of(gpu: Gpu) -> Hardware:
    """A GPU of latency/gpus.csv as the kernel model takes it."""
    tops = {"fp32": gpu.fp32, "tf32": gpu.tf32, "fp16": gpu.fp16, "int8": gpu.int8}
    return Hardware(gpu.clock_mhz, int(gpu.units), tops, gpu.bandwidth_gbs, cache_kib=int(gpu.cache_kib))


def log_ms(rows: Sequence[Timed | None], constants: Mapping[str, Array]) -> Array:
    """(rows,), logarithm of the milliseconds per item that the kernels take; NaN where they are not known.

    Args:
        constants: generation -> logarithms of the fields of `Constants`, in their order.
    """
    values = {name: Constants(*np.exp(logs).tolist()) for name, logs in constants.items()}
    out = np.full(len(rows), np.nan)
    for index, row in enumerate(rows):
        if row is not None and row.generation in values:
            constant = values[row.generation]
            total = constant.fixed_us / 1e3 + sum(
                nvidia_gpu.kernel_ms(k.once, row.hardware, constant)[0] * k.repeats for k in row.kernels
            )
            out[index] = np.log(total / row.batch)
    return out


# --- storage ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _stored() -> dict[tuple[str, str, str], tuple[Kernel, ...]]:
    path = FACTS / "kernels.csv"
    if not path.is_file():
        return {}
    kinds: list[Kernel] = []
    found: dict[tuple[str, str, str], tuple[Kernel, ...]] = {}
    with path.open(newline="", encoding="utf-8") as handle:
        for record in csv.reader(line for line in handle if not line.startswith("#")):
            if record[0] == "kernel":
                kind, attention, precision, padding, *numbers = record[1:]
                macs, depth, channels, elements, moved, weights = map(int, numbers)
                kinds.append(
                    _kernel(
                        cast(KernelKind, kind), attention == "1", cast(Precision, precision), macs, depth, channels,
                        elements, moved, weights, float(padding),
                    )
                )  # fmt: skip
            else:
                counted = (item.split("x") for item in record[4].split())
                found[record[1], record[2], record[3]] = tuple(
                    replace(kinds[int(at)], macs=kinds[int(at)].macs * int(count), repeats=int(count))
                    for at, count in counted
                )
    return found


def main(tables: Iterable[str]) -> None:
    from latency_model import COMPILED
    from latency_rows import engine, read_table

    wanted = sorted(
        {
            (row.model, row.shape, width_of(row.precision))
            for table in tables
            for row in read_table(Path(table))[0]
            if row.table == "published" and engine(row.runtime) in COMPILED
        }
    )
    known = {key: kernels for key in wanted if (kernels := _built(*key))}
    kinds: dict[Kernel, int] = {}
    for kernels in known.values():
        for kernel in kernels:
            kinds.setdefault(kernel.once, len(kinds))
    print("# Written by tools/latency_kernels.py from tools/architectures: no measurement is in here.")
    print("# kernel,kind,attention,precision,padding,macs,depth,channels,elements,activation_bytes,weight_bytes")
    print("# graph,model,shape,precision,numbers of its kernels in the order above, each with how often it runs")
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for k in kinds:
        attention = int(nvidia_gpu.kind_of(k) == "attention")
        writer.writerow(
            ["kernel", k.kind, attention, k.precision, f"{k.padding!r}", k.macs, k.depth, k.channels, k.elements,
             k.activation_bytes, k.weight_bytes]
        )  # fmt: skip
    for key, kernels in known.items():
        writer.writerow(["graph", *key, " ".join(f"{kinds[k.once]}x{k.repeats}" for k in kernels)])


if __name__ == "__main__":
    main(sys.argv[1:])
