"""Generated C of the four MLPerf Tiny networks on emulated cores, in one table; and of random graphs on this machine.

    python tools/bench_c.py [--inputs 16] [--cores cortex-m4,cortex-m55] [--emx PROGRAM] [--jobs 2]
    python tools/bench_c.py --graphs 500 [--board-graphs 8]         # random graphs instead of the table

Columns of the table:

- codes: every code of every quantised tensor against onnxruntime's integer kernels, over all inputs;
- ends: share of those codes that are -128 or 127 (a tensor that is nothing else would prove little; -128 is also what
  a Relu leaves of negative numbers);
- Minstr: instructions of one inference, emulated (exact; no interval), and the ratio to tuned vendor-style kernels on
  the same emulation;
- emx: instructions of emx-onnx-cgen's C over ours. It is given the Q/DQ graph and the graph that onnxruntime fuses to
  integer operators, and the better of the two counts; "-" where the program is not there (--emx names it);
- arena, stack: static memory of the model, and the largest sum of frames on any path of calls (compiler's figures);
- bound: most bytes of tensors that are needed at once, the caller's arrays aside; arena and stack over it. Then the
  same with the caller's arrays of floats in both;
- flash: code and constants of the linked model.
"""

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import c_graphs
import emulate_cores
import mlperf_tiny
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

import profiles
from exporters import onnx_to_c, onnx_to_emx_c
from exporters.c import arena, graph
from exporters.c.lower import lower
from exporters.errors import ExportError
from profiles.errors import ProfileError
from profiles.runners import on_cortex_m

CHUNK = 25  # graphs between lines of progress
CORES = ("cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55")

VENDOR: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {  # million instructions of hand-tuned kernels of CMSIS-NN's kind on the same emulated cores
        "cortex-m4": {
            "ds-cnn (kws)": 7.9,
            "mobilenet-v1-0.25 (vww)": 26.1,
            "resnet8 (ic)": 30.1,
            "fc-autoencoder (ad)": 1.46,
        },
        "cortex-m55": {
            "ds-cnn (kws)": 1.85,
            "mobilenet-v1-0.25 (vww)": 6.9,
            "resnet8 (ic)": 4.9,
            "fc-autoencoder (ad)": 0.17,
        },
    }
)


@dataclass(frozen=True)
class Memory:
    """Bytes. `bound`: the most that tensors need at once; `caller`: input and output floats."""

    arena: int
    bound: int
    caller: int


def memory(path: Path) -> Memory:
    """What the plan of a model takes, and the least that any plan of its tensors could."""
    program = lower(graph.read(path)).program
    times = arena.lifetimes(program.steps)
    scratch = {buffer.number for step in program.steps for buffer in step.scratch}
    tensors = [program.buffers[number] for number in times if number not in scratch]
    bound = 0
    for at, step in enumerate(program.steps):
        live = [b for b in tensors if times[b.number][0] <= at <= times[b.number][1]]
        over = step.inplace
        shared = 0
        if over is not None and over.place == "arena" and times[over.number][1] == at:
            shared = min(over.bytes, sum(buffer.bytes for buffer in step.writes if buffer.place == "arena"))
        bound = max(bound, sum(buffer.bytes for buffer in live) - shared)
    caller = sum(buffer.bytes for buffer in program.buffers if buffer.place != "arena")
    return Memory(arena.plan(program).bytes, bound, caller)


def fused(path: Path, out: Path) -> Path:
    """The graph as onnxruntime rewrites it for integer kernels, with the shapes that another generator needs."""
    from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions  # type: ignore[attr-defined]

    options = SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    options.optimized_model_filepath = str(out)
    InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    model = onnx.load(str(out))
    own = {value.name for value in model.graph.output}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(
        onnx.ValueInfoProto(name=name) for node in model.graph.node for name in node.output if name not in own
    )
    options = SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    session = InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {value.name: np.zeros([d if isinstance(d, int) else 1 for d in value.shape], np.float32)
             for value in session.get_inputs()}  # fmt: skip
    kinds = {np.dtype(np.int8): TensorProto.INT8, np.dtype(np.float32): TensorProto.FLOAT}
    del model.graph.value_info[:]
    for value, result in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        array = np.asarray(result)
        if value.name not in own:
            info = helper.make_tensor_value_info(value.name, kinds[array.dtype], array.shape)
            model.graph.value_info.append(info)
    onnx.save(model, str(out))
    return out


def by_emx(path: Path, folder: Path, cores: Sequence[str]) -> dict[str, float]:
    """Core -> million instructions of emx-onnx-cgen's C: the fewer of its two ways to take the graph."""
    target = profiles.target("hearing-aid")
    found: dict[str, float] = {}
    for kind, source in (("written", path), ("fused", fused(path, folder / f"{path.stem}_fused.onnx"))):
        made = onnx_to_emx_c.convert(source, target, folder / f"{path.stem}_{kind}").path
        for core in cores:
            try:
                with on_cortex_m.load(made, core) as board:
                    ((name, size),) = board.facts["inputs"].items()
                    x = np.random.default_rng(0).normal(size=(1, size)).astype(np.float32)
                    count = float(board.emulate({name: x}).instructions[0]) / 1e6
            except ProfileError:  # its tensors do not fit the board's stack
                continue
            found[core] = min(found.get(core, np.inf), count)
    return found


def exact(path: Path, folder: Path, core: str, inputs: Mapping[str, NDArray[np.float32]]) -> tuple[int, int, float]:
    """(codes that differ, codes, share of codes at either end) on an emulated core."""
    net = emulate_cores.tapped(onnx.load(str(path)))
    with on_cortex_m.load(folder, core) as board:
        ours = board.run(inputs)
    theirs = emulate_cores.run(net.model, inputs, net.outputs, rewrite=True)
    differ, _ = emulate_cores.steps_apart(ours, theirs, net)
    total = sum(theirs[name].size for name in net.outputs)
    ends = 0
    for name in net.scales:
        ends += int(np.isin(theirs[name], (theirs[name].min(), theirs[name].max())).sum())
    return differ, total, ends / total


def rows(name: str, cores: Sequence[str], count: int, emx: bool) -> tuple[list[str], bool]:
    """The lines of one network; whether every bar is met."""
    target = profiles.target("hearing-aid")
    lines, met = [], True
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        path = mlperf_tiny.write(name, folder)
        net = emulate_cores.tapped(onnx.load(str(path)))
        onnx.save(net.model, str(folder / "tapped.onnx"))
        whole = onnx_to_c.sources(folder / "tapped.onnx", target, folder / "tapped")
        plain = onnx_to_c.sources(path, target, folder / path.stem)
        others = by_emx(path, folder, cores) if emx else {}
        used = memory(path)
        shape = onnx.load(str(path)).graph.input[0].type.tensor_type.shape
        size = [count, *(dim.dim_value for dim in shape.dim[1:])]
        x = {"x": np.random.default_rng(1).normal(size=size).astype(np.float32)}
        for core in cores:
            with on_cortex_m.load(plain, core) as board:
                instructions = float(board.emulate({"x": x["x"][:1]}).instructions[0]) / 1e6
                flash = board.footprint.flash
            differ, total, ends = exact(path, whole, core, x)
            stack = onnx_to_c.stack_bytes(plain, core) or 0
            ratio = (used.arena + stack) / used.bound
            wide = (used.arena + stack + used.caller) / (used.bound + used.caller)
            tuned = VENDOR.get(core, {}).get(name)
            times = others.get(core, 0.0) / instructions
            met &= differ == 0 and wide <= 1.2 and (not times or times >= 4)
            met &= tuned is None or instructions <= tuned * (1.1 if core == "cortex-m4" else 1.5)
            lines.append(
                f"{name:<24} {core:<11} {total - differ:>10,}/{total:>10,} {ends:>5.0%} {instructions:>8.3f} "
                f"{f'{instructions / tuned:.2f}x' if tuned else '-':>7} {f'{times:.2f}x' if times else '-':>6} "
                f"{used.arena:>7,} {stack:>6,} {used.bound:>7,} {ratio:>5.2f}x {wide:>9.3f}x {flash:>8,}"
            )
    return lines, met


def table(cores: Sequence[str], count: int, emx: bool, jobs: int) -> bool:
    """Print the table, networks beside each other; whether every bar is met."""
    head = f"{'network':<24} {'core':<11} {'codes equal':>21} {'ends':>5} {'Minstr':>8} {'vendor':>7} {'emx':>6}"
    print(f"{head} {'arena':>7} {'stack':>6} {'bound':>7} {'ratio':>6} {'caller too':>10} {'flash':>8}")
    met = True
    with ThreadPoolExecutor(jobs) as pool:
        for lines, good in pool.map(lambda name: rows(name, cores, count, emx), mlperf_tiny.NETWORKS):
            print("\n".join(lines), flush=True)
            met &= good
    return met


def graphs(count: int, on_board: int, cores: Sequence[str]) -> bool:
    """Compare `count` random graphs on this machine and `on_board` on each core; whether every code is equal."""
    result: dict[str, Any] = {"graphs": 0, "codes": 0, "differ": [], "operators": Counter()}
    for first in range(0, count, CHUNK):
        part = c_graphs.compare(range(first, min(first + CHUNK, count)), sanitize=True)
        result = {key: value + part[key] for key, value in result.items() if key != "operators"} | {
            "operators": result["operators"] + Counter(part["operators"])
        }
        print(f"{result['graphs']} of {count} graphs, {len(result['differ'])} differ", flush=True)
    for core in cores if on_board else ():
        more = c_graphs.compare(range(on_board), core=core)
        print(f"{core}: {more['graphs']} graphs, {more['codes']:,} codes, {len(more['differ'])} graphs differ")
        result["differ"] += more["differ"]
    print(f"this machine: {result['graphs']} graphs, {result['codes']:,} codes; operators: {dict(result['operators'])}")
    for seed, what in result["differ"]:
        print(f"  seed {seed}: {what}")
    return not result["differ"]


def main() -> int:
    """Print; 1 where a code differs or a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=16)
    parser.add_argument("--cores", default=",".join(CORES))
    parser.add_argument("--emx", type=Path, help="emx-onnx-cgen's program, where it is not on the path")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="networks at a time")
    parser.add_argument("--graphs", type=int, help="compare this many random graphs instead")
    parser.add_argument("--board-graphs", type=int, default=0)
    given = parser.parse_args()
    cores = given.cores.split(",")
    if given.graphs is not None:
        return 0 if graphs(given.graphs, given.board_graphs, cores) else 1
    if given.emx:
        os.environ["PATH"] = f"{given.emx.resolve().parent}{os.pathsep}{os.environ['PATH']}"
    missing = onnx_to_emx_c.can_run(profiles.target("hearing-aid"))
    if missing:
        print(missing)
    try:
        return 0 if table(cores, given.inputs, not missing, given.jobs) else 1
    except (ExportError, ProfileError) as error:
        print(error)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
