"""Kernels and their types are read from lines as TensorRT-RTX 1.7.1 writes them."""

from exporters import build_log

TENSOR = "{{ Name: {0}, Dimensions: [-1,16], Strides: [16,1], StrideOrder: [1,0], Datatype: {1}, Format: (Linear) }}"


def line(name: str, kind: str, datatype: str, *nodes: str) -> str:
    metadata = "".join(f"[ONNX Layer: {node}]" for node in nodes)
    source, constant = TENSOR.format("a", datatype), TENSOR.format("w", "Float")
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {source}], Constants: [ {constant}], "
        f"Outputs: [ {constant}], TacticName: x, StreamId: 0, Metadata: {metadata}"
    )


LOG = "\n".join(
    [
        "VERBOSE Layers:",
        "Name: shape, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , Metadata: ",
        line("k1", "correlation", "Int8", "conv1", "dq1"),
        line("k2", "kgen", "Float", "relu", "matmul_wrong_axis"),
        line("k3", "gemm", "Int8", "q", "k", "v"),
        line("k4", "correlation", "Float", "depthwise"),
        "INFO Engine generation completed in 0.100573 seconds.",
    ]
)


def test_kernels() -> None:
    found = build_log.kernels(LOG)
    assert [(k.name, k.type, k.input_type, k.heavy) for k in found] == [
        ("shape", "shape_call", "", False),
        ("k1", "correlation", "Int8", True),
        ("k2", "kgen", "Float", False),
        ("k3", "gemm", "Int8", True),
        ("k4", "correlation", "Float", True),
    ]
    assert found[1].nodes == ("conv1", "dq1")


def test_int8_share_counts_nodes_and_names_what_was_missed() -> None:
    """conv1 and the fused q, k, v are int8: 4 of 6; a wrong axis disappears into a generated kernel."""
    weighted = ["conv1", "matmul_wrong_axis", "q", "k", "v", "depthwise"]
    quantised = ["conv1", "matmul_wrong_axis", "q", "k", "v"]
    found = build_log.int8_share(build_log.kernels(LOG), weighted, quantised)
    assert found.share == 4 / 6
    assert found.float == ("matmul_wrong_axis", "depthwise")
    assert found.missed == ("matmul_wrong_axis",)


def test_a_log_without_kernels() -> None:
    assert build_log.kernels("nothing here") == []
    assert build_log.int8_share([], [], []).share == 0.0


def test_durations_are_removed_and_nothing_else() -> None:
    text = "took 0.008312ms to assign 1 blocks\nin 1.5e-05 seconds.\nbatch 8, 3 milliseconds, 22151168 bytes"
    assert build_log.without_times(text) == (
        "took 0 ms to assign 1 blocks\nin 0 seconds.\nbatch 8, 0 milliseconds, 22151168 bytes"
    )
