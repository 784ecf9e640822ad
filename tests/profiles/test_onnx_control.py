"""Control flow, sequences and functions of ONNX: counted with a bound that a note states."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from profiles import read_onnx
from profiles.errors import ProfileError
from profiles.graph import Graph, totals

FLOAT = TensorProto.FLOAT


def part(nodes: list[onnx.NodeProto], inputs: list[str], outputs: list[str]) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        "part",
        [helper.make_tensor_value_info(name, FLOAT, None) for name in inputs],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
    )


def read(nodes: list[onnx.NodeProto], functions: tuple[onnx.FunctionProto, ...] = (), **stored: np.ndarray) -> Graph:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", FLOAT, ["batch", 4]), helper.make_tensor_value_info("yes", 9, [])],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in nodes[-1].output],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    domains = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]
    return read_onnx.read(helper.make_model(graph, opset_imports=domains, functions=list(functions)), batch=3)


def f(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


THEN = part([helper.make_node("MatMul", ["x", "w"], ["a"])], [], ["a"])
ELSE = part([helper.make_node("MatMul", ["x", "v"], ["b0"]), helper.make_node("MatMul", ["b0", "u"], ["b"])], [], ["b"])
BRANCHES = {"w": f(4, 5), "v": f(4, 2), "u": f(2, 5)}


def test_of_an_if_the_more_expensive_branch_counts_and_both_are_stored() -> None:
    graph = read([helper.make_node("If", ["yes"], ["y"], then_branch=THEN, else_branch=ELSE)], **BRANCHES)
    then, other = 3 * 4 * 5, 3 * (4 * 2 + 2 * 5)
    assert totals(graph).macs == max(then, other)
    assert totals(graph).params == 20 + 8 + 10
    assert graph.edges["y"].shape == (3, 5)
    assert graph.notes == (f"If 'If_0': counted the then branch, {then} MACs; the other has {other}",)


def test_a_known_condition_chooses() -> None:
    nodes = [helper.make_node("If", ["no"], ["y"], then_branch=THEN, else_branch=ELSE)]
    graph = read(nodes, no=np.array(False), **BRANCHES)
    assert totals(graph).macs == 3 * (4 * 2 + 2 * 5)
    assert not graph.notes


def loop(rounds: int | None, graph: onnx.GraphProto) -> Graph:
    trips = {} if rounds is None else {"trips": np.array(rounds)}
    count = "trips" if rounds is not None else ""
    nodes = [helper.make_node("Loop", [count, "", "x"], ["h", "all"], body=graph)]
    return read([*nodes, helper.make_node("Identity", ["all"], ["y"])], w=f(4, 4), **trips)


SAME = part(
    [helper.make_node("Identity", ["c"], ["go"]), helper.make_node("MatMul", ["h", "w"], ["h2"]),
     helper.make_node("Relu", ["h2"], ["out"])],
    ["i", "c", "h"],
    ["go", "h2", "out"],
)  # fmt: skip


@pytest.mark.parametrize("rounds", [0, 1, 7, 5000])
def test_a_loop_counts_as_often_as_it_runs(rounds: int) -> None:
    graph = loop(rounds, SAME)
    assert totals(graph).macs == rounds * 3 * 4 * 4
    if rounds:
        assert graph.edges["y"].shape == (rounds, 3, 4)
        assert totals(graph).params == 16
    products = [op for op in graph.ops if op.operator == "MatMul"]
    assert sum(op.repeats for op in products) == rounds
    assert len(products) == (rounds if rounds < 100 else 1)  # long ones are walked once
    assert any("runs 5000 times" in note for note in graph.notes) == (rounds == 5000)


def test_a_loop_of_unknown_length_counts_once_and_says_so() -> None:
    graph = loop(None, SAME)
    assert totals(graph).macs == 3 * 4 * 4
    assert "Loop 'Loop_0' runs a number of times that is not known: counted once" in graph.notes


def test_a_state_that_grows_is_followed_while_a_loop_is_unrolled() -> None:
    body = part(
        [helper.make_node("Identity", ["c"], ["go"]), helper.make_node("Concat", ["h", "x"], ["h2"], axis=0),
         helper.make_node("MatMul", ["h2", "w"], ["out"])],
        ["i", "c", "h"],
        ["go", "h2"],
    )  # fmt: skip
    nodes = [helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body)]
    graph = read(nodes, w=f(4, 4), trips=np.array(3))
    assert graph.edges[graph.outputs[0]].shape == (12, 4)
    assert totals(graph).macs == (6 + 9 + 12) * 16
    long = read(nodes, w=f(4, 4), trips=np.array(9000))
    assert any("grow" in note for note in long.notes)


def test_a_loop_that_may_stop_early_counts_the_most() -> None:
    body = part(
        [helper.make_node("MatMul", ["h", "w"], ["h2"]), helper.make_node("ReduceMax", ["h2"], ["m"], keepdims=0),
         helper.make_node("Cast", ["m"], ["go"], to=9)],
        ["i", "c", "h"],
        ["go", "h2"],
    )  # fmt: skip
    graph = read([helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body)], w=f(4, 4), trips=np.array(5))
    assert totals(graph).macs == 5 * 3 * 16
    assert "Loop 'Loop_0' may stop early: counted 5 times, which is the most" in graph.notes


def test_a_scan_counts_once_per_element() -> None:
    body = part(
        [helper.make_node("MatMul", ["e", "w"], ["m"]), helper.make_node("Add", ["s", "m"], ["s2"]),
         helper.make_node("Identity", ["s2"], ["o"])],
        ["s", "e"],
        ["s2", "o"],
    )  # fmt: skip
    nodes = [helper.make_node("Scan", ["zero", "x"], ["last", "y"], body=body, num_scan_inputs=1)]
    graph = read([*nodes, helper.make_node("Relu", ["y"], ["z"])], w=f(4, 6), zero=f(6))
    assert totals(graph).macs == 3 * 4 * 6
    assert graph.edges["z"].shape == (3, 6)
    assert "Scan 'Scan_0' runs 3 times" in graph.notes


def test_sequences_hold_tensors_of_their_own_shapes() -> None:
    each = part([helper.make_node("MatMul", ["one", "w"], ["m"])], ["one"], ["m"])
    nodes = [
        helper.make_node("SplitToSequence", ["x", "sizes"], ["seq"], axis=0),
        helper.make_node("SequenceInsert", ["seq", "x"], ["seq2"]),
        helper.make_node("SequenceMap", ["seq2"], ["seq3"], body=each),
        helper.make_node("ConcatFromSequence", ["seq3"], ["y"], axis=0),
    ]
    graph = read(nodes, w=f(4, 6), sizes=np.array([1, 2]))
    assert graph.edges["y"].shape == (6, 6)
    assert totals(graph).macs == 6 * 4 * 6
    assert "SequenceMap 'SequenceMap_2' runs 3 times" in graph.notes


def function(name: str, nodes: list[onnx.NodeProto], attributes: tuple[str, ...] = ()) -> onnx.FunctionProto:
    domains = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]
    return helper.make_function("f", name, ["a", "w"], ["c"], nodes, domains, list(attributes))


def test_functions_are_walked_where_they_are_called() -> None:
    twice = [
        helper.make_node("one", ["a", "w"], ["m"], domain="f"),
        helper.make_node("one", ["m", "w"], ["c"], domain="f"),
    ]
    gemm = helper.make_node("Gemm", ["a", "w"], ["c"])
    flag = gemm.attribute.add(name="transB", type=onnx.AttributeProto.INT)
    flag.ref_attr_name = "flip"
    one = function("one", [gemm], ("flip",))
    flipped = [helper.make_node("one", ["x", "w"], ["y"], domain="f", flip=1)]
    assert read(flipped, (one,), w=f(6, 4)).edges["y"].shape == (3, 6)
    graph = read([helper.make_node("two", ["x", "w"], ["y"], domain="f")], (one, function("two", twice)), w=f(4, 4))
    assert totals(graph).macs == 2 * 3 * 16
    assert totals(graph).params == 16
    assert len({op.name for op in graph.ops}) == len(graph.ops) == 2


def test_functions_that_call_themselves_or_explode_are_refused() -> None:
    itself = function("f0", [helper.make_node("f0", ["a", "w"], ["c"], domain="f")])
    with pytest.raises(ProfileError, match="calls itself"):
        read([helper.make_node("f0", ["x", "x"], ["y"], domain="f")], (itself,))
    bomb = [function("f0", [helper.make_node("Mul", ["a", "w"], ["c"])])]
    for level in range(1, 40):
        inner = f"f{level - 1}"
        calls = [
            helper.make_node(inner, ["a", "w"], ["m"], domain="f"),
            helper.make_node(inner, ["m", "w"], ["c"], domain="f"),
        ]
        bomb.append(function(f"f{level}", calls))
    with pytest.raises(ProfileError, match="makes 65536 operators"):
        read([helper.make_node("f39", ["x", "x"], ["y"], domain="f")], tuple(bomb))


def test_loops_inside_of_loops_multiply() -> None:
    inner = part(
        [helper.make_node("Identity", ["c2"], ["go2"]), helper.make_node("MatMul", ["k", "w"], ["k2"])],
        ["j", "c2", "k"],
        ["go2", "k2"],
    )
    outer = part(
        [helper.make_node("Identity", ["c"], ["go"]), helper.make_node("Loop", ["trips", "", "h"], ["h2"], body=inner)],
        ["i", "c", "h"],
        ["go", "h2"],
    )
    graph = read([helper.make_node("Loop", ["trips", "", "x"], ["y"], body=outer)], w=f(4, 4), trips=np.array(100))
    assert totals(graph).macs == 100 * 100 * 3 * 16
    assert len(graph.ops) < 3000
