"""The fast way to a cost gives the numbers of the slow one, and keeps no more than it says."""

import copy
import gc
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import profiles
from profiles import costing
from profiles import predict as predicting
from profiles.cost import Precision
from profiles.costing import Kept, Recent, kernel_time, skeleton
from profiles.fuse import fuse
from profiles.graph import Edge, Graph, Op, Weight, edge
from profiles.latency.models import latency_model
from profiles.liveness import best_order
from profiles.predict import memory, predict

TARGETS = ("a100", "jetson", "x86", "hearing_aid")


def candidate(widths: Sequence[int], rounded: bool = False, joined: bool = False, size: int = 16) -> Graph:
    """Convolution, batch normalisation, activation, residual addition; a convolution per width, one width per stage."""
    edges: dict[str, Edge] = {"x": edge("x", (1, 3, size, size), "float32")}
    ops: list[Op] = []

    def add(operator: str, kind: str, inputs: str, wide: int, **fields: object) -> str:
        name = f"t{len(edges)}"
        dtype = "int8" if kind == "quantize" else "float32"
        edges[name] = edge(name, (1, wide, size, size), dtype)
        ops.append(Op(f"op{len(ops)}", operator, kind, tuple(inputs.split()), (name,), **fields))  # type: ignore[arg-type]
        return name

    last, before = "x", 3
    skip, skipped = "", 0
    for index, width in enumerate(widths):
        depth = before * 9
        weights = (Weight(f"w{index}", width * depth, "float32"),)
        macs = width * size * size * depth
        last = add("Conv", "conv", last, width, macs=macs, weights=weights, depth=depth, channels=width, window=(3, 3))
        norm = tuple(Weight(f"{part}{index}", width, "float32") for part in "gbmv")
        last = add("BatchNormalization", "batchnorm", last, width, weights=norm)
        if skip and skipped == width:
            last = add("Add", "pointwise", f"{last} {skip}", width)
        if index % 3 == 2:  # as exporters write it
            gate = add("Sigmoid", "pointwise", last, width)
            last = add("Mul", "pointwise", f"{last} {gate}", width)
        else:
            last = add("Relu", "pointwise", last, width)
        if rounded:
            last = add("QuantizeLinear", "quantize", last, width)
            last = add("DequantizeLinear", "dequantize", last, width)
        if joined and skip and index % 4 == 3:
            last = add("Concat", "copy", f"{last} {skip}", width + skipped)
            width += skipped
        skip, skipped, before = last, width, width
    return Graph(tuple(ops), edges, ("x",), (last,), 1)


@given(
    st.lists(st.sampled_from([4, 8, 16, 24]), min_size=1, max_size=8),
    st.booleans(),
    st.booleans(),
    st.sampled_from(TARGETS),
    st.sampled_from([None, "fp16", "int8"]),
)
@settings(max_examples=60, deadline=None)
def test_equals_the_sum_over_the_kernels(
    widths: list[int], rounded: bool, joined: bool, name: str, precision: Precision | None
) -> None:
    target = profiles.target(name)
    graph = candidate(widths, rounded, joined)
    for sized in (graph, candidate([2 * width for width in widths], rounded, joined)):  # the second by the first's plan
        cost = predict(sized, target, precision)
        plan = fuse(sized, target.family, precision)
        model = latency_model(target)
        times = [kernel_time(model, target.hardware, kernel)[0] for kernel in plan.kernels]
        assert [layer.latency_ms for layer in cost.layers] == times
        assert cost.latency_ms == pytest.approx(model.fixed_ms + sum(times))
        assert cost.macs == sum(op.macs for op in sized.ops)
        assert [layer.weight_bytes for layer in cost.layers] == [kernel.weight_bytes for kernel in plan.kernels]
        assert [layer.activation_bytes for layer in cost.layers] == [kernel.activation_bytes for kernel in plan.kernels]
        assert [layer.precision for layer in cost.layers] == [kernel.precision for kernel in plan.kernels]
        assert [layer.ops for layer in cost.layers] == [kernel.operators for kernel in plan.kernels]
        assert cost.weight_bytes == sum(kernel.weight_bytes for kernel in plan.kernels)
        assert cost.weight_bytes == sum(cost.weight_bytes_by_dtype.values())
        stored = {weight.name: weight.elements for kernel in plan.kernels for weight in kernel.weights}
        assert cost.params == sum(stored.values())
        best = best_order(plan.kernels, plan.sizes, plan.inputs, plan.outputs, held=plan.inputs)
        assert cost.peak_activation_bytes == best.peak_bytes


@given(
    st.lists(st.sampled_from([4, 8, 16, 24]), min_size=1, max_size=8),
    st.booleans(),
    st.booleans(),
    st.sampled_from(TARGETS),
    st.sampled_from([None, "fp16", "int8"]),
)
@settings(max_examples=40, deadline=None)
def test_kernels_are_those_of_the_plan(
    widths: list[int], rounded: bool, joined: bool, name: str, precision: Precision | None
) -> None:
    family = profiles.target(name).family
    for factor in (1, 2):
        graph, structure, sizes = skeleton(candidate([factor * w for w in widths], rounded, joined), family, precision)
        work = structure.work(graph, sizes)
        kernels = tuple(structure.kernel(graph, index, work) for index in range(len(work.macs)))
        assert kernels == fuse(graph, family, precision).kernels


def test_a_weight_of_two_layers_is_stored_once() -> None:
    graph, target = candidate([8, 8, 8]), profiles.target("a100")
    convs = [op for op in graph.ops if op.kind == "conv"]
    shared = replace(
        graph, ops=tuple(replace(op, weights=convs[1].weights) if op is convs[2] else op for op in graph.ops)
    )
    apart, together = predict(graph, target, "int8"), predict(shared, target, "int8")
    assert apart.params - together.params == apart.weight_bytes - together.weight_bytes == 8 * 8 * 9
    assert [layer.weight_bytes for layer in apart.layers] == [layer.weight_bytes for layer in together.layers]


def test_the_same_graph_again_is_only_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, target = candidate([8, 16]), profiles.target("a100")
    precisions: tuple[Precision | None, ...] = (None, "int8")
    asked = [(precision, layers) for precision in precisions for layers in (True, False)]
    costs = [predict(graph, target, precision, layers) for precision, layers in asked]
    monkeypatch.setattr(predicting, "_priced", None)  # not asked again
    assert [predict(graph, target, precision, layers) for precision, layers in asked] == costs


def test_a_table_that_was_written_to_is_seen() -> None:
    graph = candidate([8, 16])
    target = replace(profiles.target("a100"), hardware=replace(profiles.target("a100").hardware, tops={"int8": 600.0}))
    first = predict(graph, target, "int8")
    target.hardware.tops["int8"] = 0.01  # type: ignore[index]
    assert predict(graph, target, "int8").latency_ms > first.latency_ms
    last = graph.outputs[0]
    graph.edges[last] = replace(graph.edges[last], dtype="int64")  # type: ignore[index]
    assert predict(graph, target, "int8") == predict(replace(graph), target, "int8")


def test_what_is_known_of_an_object_goes_with_it() -> None:
    known: Recent[int] = Recent(4)
    graph = candidate([8])
    known.put(graph, (), 1)
    assert (known.get(graph, ()), known.get(graph, ("other",)), known.get(candidate([8]), ())) == (1, None, None)
    del graph
    gc.collect()
    assert len(known) == 0
    assert copy.deepcopy(candidate([8])) == candidate([8])


def test_a_structure_is_worked_out_once_for_all_widths() -> None:
    costing.forget()
    target = profiles.target("a100")
    for width in range(8, 40, 4):
        predict(candidate([width] * 6), target, "int8")
    assert costing.kept()["structures"] == costing.kept()["structure_misses"] == 1
    assert costing.kept()["structure_hits"] == 7
    predict(candidate([8] * 7), target, "int8")
    assert costing.kept()["structures"] == 2


def test_sizes_that_group_otherwise_are_grouped_again() -> None:
    """A multiplication that broadcasts is no epilogue: the question is asked of every graph."""
    shapes = {"x": (1, 4, 5), "a": (1, 4, 5), "s": (1, 4, 1)}

    def product(out: tuple[int, ...]) -> Graph:
        edges = {name: edge(name, shape, "float32") for name, shape in {**shapes, "y": out}.items()}
        conv = Op("c", "Conv", "conv", ("x",), ("a",), 100, (), 5, 1, 4)
        return Graph((conv, Op("m", "Mul", "pointwise", ("a", "s"), ("y",))), edges, ("x", "s"), ("y",), 1)

    target = profiles.target("a100")
    assert [len(predict(product(out), target).layers) for out in ((1, 4, 5), (2, 4, 5), (1, 4, 5))] == [1, 2, 1]


def test_whatever_a_cost_depends_on_makes_another_key() -> None:
    graph = candidate([8, 8, 16])
    a100, jetson = profiles.target("a100"), profiles.target("jetson")
    first = predict(graph, a100, "int8")
    hits = predicting.statistics()["hits"]
    assert predict(candidate([8, 8, 16]), a100, "int8") == first
    assert predicting.statistics()["hits"] == hits + 1
    renamed = replace(graph, ops=(replace(graph.ops[0], name="stem"), *graph.ops[1:]))
    others = [
        (graph, jetson, "int8"),
        (graph, a100, "fp16"),
        (graph, replace(a100, hardware=replace(a100.hardware, bandwidth_gbs=1.0)), "int8"),
        (candidate([8, 8, 24]), a100, "int8"),
        (candidate([8, 8, 16], size=8), a100, "int8"),
        (renamed, a100, "int8"),
        (replace(graph, batch=2), a100, "int8"),
        (replace(graph, notes=("said",)), a100, "int8"),
        (replace(graph, uncounted={"Strange": 1}), a100, "int8"),
        (replace(graph, idle=(Weight("unused", 10, "float32"),)), a100, "int8"),
        (replace(graph, ops=(replace(graph.ops[0], strides=(2, 2)), *graph.ops[1:])), a100, "int8"),
    ]
    hits = predicting.statistics()["hits"]
    costs = [predict(*other) for other in others]  # type: ignore[arg-type]
    assert predicting.statistics()["hits"] == hits
    assert costs[5].layers[1].name == "stem"
    assert costs[9].params == first.params + 10
    assert costs[9].weight_bytes == first.weight_bytes + 10
    assert all(cost != first for cost in costs[:10])


def test_what_the_caller_does_to_a_cost_stays_with_him() -> None:
    graph, target = candidate([8]), profiles.target("a100")
    predict(graph, target, "int8").weight_bytes_by_dtype.clear()  # type: ignore[attr-defined]
    assert predict(graph, target, "int8").weight_bytes_by_dtype


def test_a_loop_costs_its_runs() -> None:
    graph, target = candidate([16]), profiles.target("a100")
    conv = graph.ops[0]
    ten = replace(graph, ops=(replace(conv, repeats=10, macs=10 * conv.macs), *graph.ops[1:]))
    once, often = predict(graph, target).layers[1], predict(ten, target).layers[1]
    assert often.latency_ms == pytest.approx(10 * once.latency_ms)
    assert (often.macs, often.activation_bytes) == (10 * once.macs, 10 * once.activation_bytes)


def test_the_peak_is_told_tensor_by_tensor() -> None:
    graph, target = candidate([8, 8, 16]), profiles.target("hearing_aid")
    schedule, sizes = memory(graph, target, "int8")
    assert schedule.exact
    assert sum(sizes[name] for name in schedule.live) == schedule.peak_bytes
    assert schedule.peak_bytes == predict(graph, target, "int8").peak_activation_bytes


def test_the_oldest_goes_where_there_is_no_room() -> None:
    kept: Kept[str, int] = Kept(2)
    kept.put("a", 1)
    kept.put("b", 2)
    assert kept.get("a") == 1
    kept.put("c", 3)
    assert (kept.get("b"), kept.get("a"), kept.get("c"), len(kept)) == (None, 1, 3, 2)
    assert (kept.hits, kept.misses) == (3, 1)


def test_many_different_candidates_use_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "_costs", Kept(20))
    monkeypatch.setattr(costing, "KERNELS", 200)
    monkeypatch.setattr(costing, "_kept", Kept(4))
    costing.forget()
    target = profiles.target("a100")

    def cost_some(first: int) -> None:
        for number in range(first, first + 150):
            predict(candidate([4 + number, 8, 12][: 2 + number % 2] * 2), target, "int8")

    cost_some(0)
    gc.collect()
    tracemalloc.start()
    cost_some(1000)
    gc.collect()
    filled, _ = tracemalloc.get_traced_memory()
    cost_some(2000)
    gc.collect()
    later, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    kept = costing.kept()
    assert kept["structures"] <= 4
    assert kept["kernels"] <= 200
    assert later < filled + 200_000  # bytes; every kept result is one of the second half now


@pytest.mark.parametrize("precision", [None, "int8"])
def test_a_graph_of_an_unusual_norm_is_costed_all_the_same(precision: Precision | None) -> None:
    """Batch normalisation whose tensors differ in length, as a broken export may have them."""
    graph = candidate([8])
    uneven = replace(graph.ops[1], weights=(Weight("g", 1, "float32"), Weight("b", 8, "float32")))
    graph = replace(graph, ops=(graph.ops[0], uneven, *graph.ops[2:]))
    target = profiles.target("a100")
    plan = fuse(graph, target.family, precision)
    assert predict(graph, target, precision).weight_bytes == sum(kernel.weight_bytes for kernel in plan.kernels)
    assert skeleton(graph, target.family, precision)


def test_a_graph_whose_operators_are_all_constants_costs_only_the_fixed_time() -> None:
    x = edge("x", (1, 4), "float32")
    graph = Graph((), {"x": x}, ("x",), ("x",), 1)
    target = profiles.target("jetson")
    cost = predict(graph, target)
    assert (cost.macs, cost.weight_bytes, cost.layers) == (0, 0, ())
    assert cost.latency_ms == latency_model(target).fixed_ms
