"""How long a candidate takes to cost, how much memory ten thousand leave behind, and what the best order is worth.

    python tools/bench_costing.py [--target a100] [--candidates 10000] [--only speed|memory|orders|reading|spaces]
        [--plans 400]

speed: a candidate of 100 convolutions (each with batch normalisation and activation, residual additions between them)
as a graph: of a structure that was never seen, of a known one with other widths, and one that was costed before.
memory: resident memory after different candidates, most of known structures, some of new ones.
reading: the way from a torch module and from an ONNX file to the same cost.
orders: peak memory of well-known networks in their own order and in the best one.
spaces: candidates per second of student spaces, each built and traced, and worked out from shapes once its structure is
learned; and how many plans pay for the learning. Every twentieth cost is compared, and has to be the same.

Times are of this process's thread, median and 90th percentile, so that other processes disturb little.
"""

import argparse
import gc
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np

import profiles
from profiles import costing
from profiles.fuse import fuse
from profiles.graph import Edge, Graph, Kind, Op, Weight, edge
from profiles.liveness import Program
from profiles.predict import predict
from profiles.predict import statistics as kept
from profiles.target import Target

LAYERS = 100
SIDE = 32
NETWORKS = (
    ("resnet50", "3x224x224"), ("resnet101", "3x224x224"), ("densenet121", "3x224x224"), ("squeezenet1_0", "3x224x224"),
    ("googlenet", "3x224x224"), ("efficientnet-b0", "3x224x224"), ("shufflenet_v2_x1_0", "3x224x224"),
    ("efficientvit-b1", "3x224x224"), ("yolov8n", "3x640x640"), ("yolo11n", "3x640x640"),
    ("retinanet-r50", "3x800x800"), ("ssd-resnet34", "3x1200x1200"),
)  # fmt: skip


def candidate(widths: Sequence[int], skips: Sequence[int]) -> Graph:
    """A chain of 3x3 convolutions with batch normalisation and activation.

    Args:
        widths: channels of each convolution.
        skips: behind which of them the activation before the last one is added, where the channels agree.
    """
    edges: dict[str, Edge] = {"x": edge("x", (1, 3, SIDE, SIDE), "float32")}
    ops: list[Op] = []

    def add(operator: str, kind: Kind, inputs: tuple[str, ...], wide: int, **fields: object) -> str:
        name = f"t{len(edges)}"
        edges[name] = edge(name, (1, wide, SIDE, SIDE), "float32")
        ops.append(Op(f"{operator}_{len(ops)}", operator, kind, inputs, (name,), **fields))  # type: ignore[arg-type]
        return name

    last, before, skip = "x", 3, ""
    for index, width in enumerate(widths):
        depth = before * 9
        weights = (Weight(f"w{index}", width * depth, "float32"),)
        macs = width * depth * SIDE * SIDE
        conv = add("conv", "conv", (last,), width, macs=macs, weights=weights, depth=depth, channels=width,
                   window=(3, 3), strides=(1, 1))  # fmt: skip
        norm = tuple(Weight(f"{part}{index}", width, "float32") for part in ("scale", "bias", "mean", "variance"))
        out = add("batch_norm", "batchnorm", (conv,), width, weights=norm)
        if index in skips and skip and edges[skip].shape == edges[out].shape:
            out = add("add", "pointwise", (out, skip), width)
        skip, last, before = last, add("relu", "pointwise", (out,), width), width
    return Graph(tuple(ops), edges, ("x",), (last,), 1)


def staged(rng: random.Random, layers: int = LAYERS) -> list[int]:
    """Widths in stages of four, so that residual additions fit."""
    return [width for _ in range(layers // 4) for width in [8 * rng.randint(1, 64)] * 4]


def timed(call: Callable[[], object]) -> float:
    """Milliseconds of this thread."""
    start = time.thread_time()
    call()
    return (time.thread_time() - start) * 1e3


def told(what: str, times: Sequence[float]) -> None:
    """One line of the table."""
    ordered = sorted(times)
    p90 = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
    print(f"{what:58} median {statistics.median(times):8.3f} ms   p90 {p90:8.3f} ms   of {len(times)}")


def costs(make: Callable[[random.Random], Graph], count: int, target: Target, layers: bool) -> list[float]:
    """Milliseconds of each of `count` candidates; each is made, costed and let go, as a search does."""
    rng = random.Random(1)
    times = []
    for _ in range(count):
        graph = make(rng)
        times.append(timed(partial(predict, graph, target, "int8", layers)))
    return times


def again(make: Callable[[random.Random], Graph], count: int, target: Target, layers: bool) -> list[float]:
    """Milliseconds of costing the very same graph a second time."""
    rng = random.Random(1)
    times = []
    for _ in range(count):
        graph = make(rng)
        predict(graph, target, "int8", layers)
        times.append(timed(partial(predict, graph, target, "int8", layers)))
    return times


def speed(target: Target, count: int = 200) -> None:
    """Costs of candidates, without and with the list of kernels."""
    for convolutions in (LAYERS, LAYERS // 3):

        def other(rng: random.Random, total: int = convolutions) -> Graph:
            return candidate(staged(rng, total), rng.sample(range(total), total * 2 // 5))

        def wider(rng: random.Random, total: int = convolutions) -> Graph:
            return candidate(staged(rng, total), range(2, total, 4))

        operators = len(wider(random.Random(0)).ops)
        for layers in (False, True):
            costing.forget()
            listed = "kernels listed" if layers else "kernels not listed"
            print(f"{convolutions} convolutions, {operators} operators, {listed}")
            told("  structure not seen before", costs(other, count, target, layers))
            told("  known structure, other widths", costs(wider, count, target, layers)[1:])
            told("  an equal graph was costed before", costs(wider, count, target, layers))
            told("  the same graph was costed before", again(wider, count, target, layers))
    print(f"kept: {kept()}")


def memory(target: Target, count: int) -> None:
    """Resident memory while different candidates are costed."""
    import psutil

    process = psutil.Process()  # type: ignore[no-untyped-call]
    rng = random.Random(2)
    marks = {0, min(1000, count // 10), count // 2, count}
    for number in range(count + 1):
        if number in marks:
            gc.collect()
            print(f"after {number:6} candidates: {process.memory_info().rss / 2**20:8.1f} MiB   kept: {kept()}")
        skips = rng.sample(range(LAYERS), 40) if number % 10 == 0 else range(2, LAYERS, 4)
        predict(candidate(staged(rng), skips), target, "int8", layers=number % 2 == 0)


def reading(target: Target, count: int = 15) -> None:
    """The same cost from a torch module and from an ONNX file."""
    import onnx
    import torch
    from onnx import TensorProto, helper
    from torch import nn

    torch.set_num_threads(1)
    rng = random.Random(3)
    example = torch.zeros(1, 3, SIDE, SIDE)

    def module() -> nn.Module:
        layers: list[nn.Module] = []
        before = 3
        for width in staged(rng):
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        return nn.Sequential(*layers)

    with torch.device("meta"):
        modules = [module() for _ in range(count)]

    def cost(model: Any, example: torch.Tensor | None) -> object:
        return profiles.profile(model, target, precision="int8", example=example, layers=False)

    profiles.read(modules[0], example=example)
    told("read a torch module (meta device)", [timed(partial(profiles.read, m, 1, example)) for m in modules])
    told("read and cost a torch module", [timed(partial(cost, m, example)) for m in modules])

    def model() -> onnx.ModelProto:
        nodes, stored, before, last = [], [], 3, "x"
        for index, width in enumerate(staged(rng)):
            weights = helper.make_tensor(
                f"w{index}", TensorProto.FLOAT, [width, before, 3, 3], b"\0" * (4 * width * before * 9), raw=True
            )
            stored.append(weights)
            nodes.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1]))
            nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
            last, before = f"r{index}", width
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
        y = helper.make_tensor_value_info(last, TensorProto.FLOAT, None)
        return helper.make_model(
            helper.make_graph(nodes, "g", [x], [y], stored), opset_imports=[helper.make_opsetid("", 17)]
        )

    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for index in range(count):
            paths.append(Path(folder) / f"{index}.onnx")
            onnx.save(model(), str(paths[-1]))
        profiles.read(paths[0])
        size = statistics.median(path.stat().st_size for path in paths) / 2**20
        told(f"read an ONNX file ({size:.0f} MiB, folded)", [timed(partial(profiles.read, path)) for path in paths])
        told("read and cost an ONNX file", [timed(partial(cost, path, None)) for path in paths])


def orders() -> None:
    """Peak memory of well-known networks in int8: as their file has them, shuffled, and in the best order."""
    import architectures

    rng = random.Random(4)
    print(
        f"{'network':20} family      kernels   KiB: own order   a random one      the best      ms   how good, tensors"
    )
    for name, shape in NETWORKS:
        graph = architectures.graph_of(name, shape)
        if graph is None:
            continue
        for family in ("nvidia-gpu", "cortex-m"):
            plan = fuse(graph, family, "int8")
            start = time.thread_time()
            program = Program(plan.kernels, plan.inputs, plan.outputs, plan.inputs)
            found = program.best(plan.sizes)
            spent = (time.thread_time() - start) * 1e3
            size = np.array([plan.sizes[tensor] for tensor in program.names])
            peaks = [int(program.costs(shuffled(program, rng), size)[0].max()) for _ in range(25)]
            print(
                f"{name:20} {family:10} {len(plan.kernels):8} {found.given_bytes / 1024:16.1f}"
                f" {statistics.median(peaks) / 1024:14.1f} {found.peak_bytes / 1024:13.1f} {spent:7.1f}"
                f"   {found.says}, {len(found.live)}"
            )


def spaces(target: Target, count: int) -> None:
    """Candidates per second of plans drawn as a search draws them."""
    import torch
    from torch import nn

    from compress.contracts.space import Space, SpaceContext
    from compress.network import Model
    from compress.selection.quick_costs import QuickCosts
    from compress.spaces import derived, int8_conv

    def model(network: nn.Module) -> nn.Module:
        return Model(nn.Identity(), network)

    torch.manual_seed(0)
    features = torch.randn(4, 3, SIDE, SIDE)
    rng = random.Random(5)
    made: list[tuple[str, Space[Any]]] = []
    for blocks in (4, 12):
        plan = int8_conv.Plan("residual", 1, (32, 48, 64, 96), (blocks,) * 4)
        teacher = int8_conv.ConvNet(plan, (3, SIDE, SIDE), 10).eval()
        convolutions = sum(isinstance(module, nn.Conv2d) for module in teacher.modules())
        context = SpaceContext(teacher, features, 10, target.width_multiple, target.family)
        made.append((f"derived from {convolutions} convolutions", derived.SPACE(context)))
    free = SpaceContext(None, features, 10, target.width_multiple, target.family)
    made.append(("int8_conv", int8_conv.SPACE(free)))
    for name, space in made:
        plans = [space.sample(rng) for _ in range(count)]
        keys = {outline.key for plan in plans if (outline := space.outline(plan)) is not None}
        costs = QuickCosts(space, model, "network", (features[:1],), target, "int8", learnt_after=0)
        first = {space.outline(plan).key: plan for plan in plans}  # type: ignore[union-attr]
        learning = sum(timed(partial(costs, plan)) for plan in first.values())
        traced, quick = [], []
        for number, plan in enumerate(plans):
            start = time.thread_time()
            found = costs(plan)
            quick.append((time.thread_time() - start) * 1e3)
            if number % max(1, count // 20) == 0:
                start = time.thread_time()
                expected = profiles.profile(
                    model(space.build(plan)), target, precision="int8", example=features[:1], layers=False
                )
                traced.append((time.thread_time() - start) * 1e3)
                assert found == expected, plan
        before, after = statistics.fmean(traced), statistics.fmean(quick)
        pays = learning / len(keys) / max(1e-9, before - after)
        print(
            f"{name:32} built and traced {1e3 / before:7.1f} per second, from shapes {1e3 / after:7.1f}"
            f" ({before / after:.1f} times); {len(keys)} structures learned in {learning / len(keys):.0f} ms each,"
            f" which {pays:.0f} plans pay for"
        )


def shuffled(program: Program, rng: random.Random) -> list[int]:
    """A random topological order."""
    missing = [len(before) for before in program.before]
    ready = [step for step, count in enumerate(missing) if not count]
    order: list[int] = []
    while ready:
        step = ready.pop(rng.randrange(len(ready)))
        order.append(step)
        for after in program.after[step]:
            missing[after] -= 1
            if not missing[after]:
                ready.append(after)
    return order


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="a100")
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--only", choices=("speed", "memory", "reading", "orders", "spaces"))
    parser.add_argument("--plans", type=int, default=400)
    given = parser.parse_args()
    target = profiles.target(given.target)
    parts: dict[str, Callable[[], None]] = {
        "speed": lambda: speed(target),
        "memory": lambda: memory(target, given.candidates),
        "reading": lambda: reading(target),
        "orders": orders,
        "spaces": lambda: spaces(target, given.plans),
    }
    for name, part in parts.items():
        if given.only in (None, name):
            print(f"--- {name} ({target.name})")
            part()


if __name__ == "__main__":
    main()
