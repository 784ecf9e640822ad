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


def test_tensors_of_a_kernel() -> None:
    kernel = build_log.kernels(LOG)[1]
    assert [(t.name, t.dims, t.type) for t in kernel.inputs] == [("a", (-1, 16), "Int8")]
    assert [(t.name, t.type) for t in kernel.constants] == [("w", "Float")]
    assert [t.name for t in kernel.outputs] == ["w"]


def kernel(name: str, inputs: str, outputs: str, kind: str = "kgen") -> build_log.Kernel:
    sides = [(build_log.Tensor("t", (1,), type_),) for type_ in (inputs, outputs)]
    return build_log.Kernel(name, kind, (), inputs=sides[0], outputs=sides[1])


def test_a_kernel_that_only_requantises() -> None:
    """Cast, multiply, clamp, round: yes. A mean, a float side or a plain copy: no."""
    assert kernel("__myl_CastMulMulMinMaxRounCastConc_myl0_7", "Int8", "Int8").requantises
    assert not kernel("__myl_CastMulMeanMulMinMaxRounCast_myl0_7", "Int8", "Int8").requantises
    assert not kernel("__myl_MulMinMaxRounCast_myl0_1", "Float", "Int8").requantises
    assert not kernel("__myl_Tran_myl0_9", "Int8", "Int8").requantises


def test_fused_attention_is_a_heavy_kernel() -> None:
    """As a vision transformer's log has it: both products and the softmax in one kernel of type kgen."""
    fused = line("_gemm_mha_v2_myl0_8", "kgen", "Int8", "qk", "softmax", "pv")
    found = build_log.kernels(fused)
    assert found[0].heavy
    assert build_log.int8_share(found, ["qk", "pv"], ["qk", "pv"]).share == 1.0
    assert build_log.types_of(found) == {"qk": "Int8", "softmax": "Int8", "pv": "Int8"}
