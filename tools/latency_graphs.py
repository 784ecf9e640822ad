"""The work of known architectures, summed over their kernels: what a row's totals do not say.

latency/graphs.csv holds it for the models of the tables. A model that is not there is built by tools/architectures
where torch is installed; where it is not, or the architecture is not known, a row is predicted from its totals.

    python tools/latency_graphs.py TABLE.csv > tools/latency/graphs.csv
"""

import csv
import sys
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from functools import lru_cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))
from latency_rows import FACTS, read_table


@dataclass(frozen=True)
class Work:
    """Of one item, after the fusion that a GPU's runtime does."""

    dense: float  # multiply-accumulates of convolutions and products with weights, billions
    matmul: float  # of products of two activations
    grouped: float
    depthwise: float
    outputs_m: float  # output elements of dense kernels, millions
    elements_m: float  # activations read and written, millions
    weights_m: float
    heavy: float  # kernels with multiply-accumulates
    light: float  # the others


@lru_cache(maxsize=1)
def _stored() -> dict[tuple[str, str], Work]:
    path = FACTS / "graphs.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as handle:
        return {
            (record["model"], record["shape"]): Work(*(float(record[f.name]) for f in fields(Work)))
            for record in csv.DictReader(line for line in handle if not line.startswith("#"))
        }


def work_of(model: str, shape: str) -> Work | None:
    """The work of a table's model; None where it is neither stored nor can be built."""
    return _stored().get((model, shape)) or _built(model, shape)


@lru_cache(maxsize=4096)
def _built(model: str, shape: str) -> Work | None:
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
    if graph is None:
        return None
    kernels = fuse(graph, "nvidia-gpu", "fp16").kernels

    def macs(*kinds: str) -> float:
        return sum(k.macs for k in kernels if k.kind in kinds) / 1e9

    heavy = [k for k in kernels if k.macs]
    known = macs("matmul"), macs("grouped"), macs("depthwise")
    return Work(
        sum(k.macs for k in kernels) / 1e9 - sum(known),
        *known,
        sum(k.macs / max(k.depth, 1) for k in heavy if k.kind in ("dense", "gemm")) / 1e6,
        sum(k.activation_bytes for k in kernels) / 2e6,
        sum(k.weight_bytes for k in kernels) / 2e6,
        float(len(heavy)),
        float(len(kernels) - len(heavy)),
    )


def main(tables: Iterable[str]) -> None:
    names = {
        (row.model, row.shape) for table in tables for row in read_table(Path(table))[0] if row.table == "published"
    }
    print("# Written by tools/latency_graphs.py from tools/architectures: no measurement is in here.")
    print(",".join(["model", "shape", *(f.name for f in fields(Work))]))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for model, shape in sorted(names):
        work = _built(model, shape)
        if work:
            writer.writerow([model, shape, *(f"{value:.6g}" for value in astuple(work))])


if __name__ == "__main__":
    main(sys.argv[1:])
