"""The placement that TensorRT wants, and what TensorRT-RTX builds from it ahead of time, without a GPU."""

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from compress.qat import prepare as qat
from compress.qat.fake_quantize import ActivationFakeQuantize

# Builds for compute capability 8.0 (A100) and prints the layers' lines. In a process of its own: a builder can crash.
BUILD = """
import sys
import tensorrt_rtx as trt

class Lines(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
        self.lines = []
    def log(self, severity, message):
        self.lines.append(message)

log = Lines()
builder = trt.Builder(log)
network = builder.create_network(0)
parser = trt.OnnxParser(network, log)
if not parser.parse(open(sys.argv[1], "rb").read()):
    sys.exit("; ".join(parser.get_error(index).desc() for index in range(parser.num_errors)))
config = builder.create_builder_config()
config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
config.num_compute_capabilities = 1
config.set_compute_capability(trt.ComputeCapability.SM80, 0)
profile = builder.create_optimization_profile()
tensor = network.get_input(0)
shape = tuple(tensor.shape)[1:]
profile.set_shape(tensor.name, (1, *shape), (8, *shape), (32, *shape))
config.add_optimization_profile(profile)
if builder.build_serialized_network(network, config) is None:
    sys.exit("the builder gave nothing")
print("\\n".join(line for line in log.lines if "LayerType: " in line))
"""


def heavy(path: Path) -> list[str]:
    """Type of the first input of each convolution or matrix kernel, in the order they run."""
    if find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx is not installed")
    run = subprocess.run([sys.executable, "-c", BUILD, str(path)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-1000:]
    layers = [line for line in run.stdout.splitlines() if "LayerType: correlation" in line or "LayerType: gemm" in line]
    return [line.split("Datatype: ", 1)[1].split(",", 1)[0] for line in layers]


def test_int8_kernels_are_those_of_the_policy(made: Any) -> None:
    kernels = heavy(made.path)
    assert kernels.count("Int8") == sum(site.quantized for site in made.model.sites)
    assert len(kernels) == len(made.model.sites)


def test_every_pair_is_symmetric_and_no_bias_is_quantised(made: Any) -> None:
    graph = onnx.load(made.path).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        scale = values[node.input[1]]
        assert (scale > 0).all()
        assert len(node.input) < 3 or not values[node.input[2]].any()
    floating = {output for node in pairs if node.op_type == "DequantizeLinear" for output in node.output}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            # Both inputs or neither; the bias never.
            assert (node.input[0] in floating) == (node.input[1] in floating)
            assert len(node.input) < 3 or node.input[2] not in floating


def rounded_inputs(model: qat.Prepared, operator: str) -> list[list[bool]]:
    """For each node of an operator, which of its inputs an activation quantiser feeds."""
    found = []
    for node in model.graph.graph.nodes:
        if node.op == "call_function" and node.target.__name__ == operator:
            found.append(
                [
                    source.op == "call_module"
                    and isinstance(model.graph.get_submodule(source.target), ActivationFakeQuantize)
                    for source in node.all_input_nodes
                ]
            )
    return found


def test_only_the_skip_branch_of_an_addition_carries_a_pair(exported: Callable[[str, str], Any]) -> None:
    # y + skip(x): the identity in the first block, the strided convolution, which runs later, in the second.
    model = exported("residual", "tensorrt").model
    assert rounded_inputs(model, "add.Tensor") == [[False, True], [True, False]]


def test_the_skip_reuses_the_scale_of_the_convolution_that_reads_the_same_tensor(
    exported: Callable[[str, str], Any],
) -> None:
    model = exported("residual", "tensorrt").model
    addition = next(node for node in model.graph.graph.nodes if node.name.startswith("add"))
    skip = addition.args[1]
    assert any(reader.name.startswith("conv2d") for reader in skip.users)


def test_depthwise_stays_float_with_a_reason(exported: Callable[[str, str], Any]) -> None:
    sites = exported("separable", "tensorrt").model.sites
    left = [site for site in sites if not site.quantized]
    assert [site.module for site in left] == ["network.2.body.2.0", "network.3.0"]
    assert all("depthwise" in site.reason for site in left)


def test_both_inputs_of_the_squeeze_excite_multiply_carry_a_pair(exported: Callable[[str, str], Any]) -> None:
    assert rounded_inputs(exported("separable", "tensorrt").model, "mul.Tensor") == [[True, True]]


def test_nothing_stands_between_convolution_batch_norm_and_activation(made: Any) -> None:
    graph = made.model.graph.graph
    for node in graph.nodes:
        if node.op == "call_function" and node.target.__name__ in ("batch_norm.default", "relu.default"):
            assert node.args[0].op == "call_function"


def test_inputs_of_a_concatenation_have_one_scale_also_where_another_layer_reads_them() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(4, 4, 1) for _ in range(3))
            self.d = nn.Conv2d(12, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.a(x).relu(), self.b(x).relu() * 5
            return self.d(torch.cat([a, b, self.c(a)], 1))

    torch.manual_seed(0)
    x = torch.randn(4, 4, 8, 8)
    model = qat.prepare(Fork(), (x,), "tensorrt")
    qat.calibrate(model, [x])
    graph = model.graph.graph
    cat = next(node for node in graph.nodes if node.name.startswith("cat"))
    assert len({source.target for source in cat.args[0]}) == 1
    consumer = next(node for node in graph.nodes if node.name == "conv2d_3")
    assert consumer.args[0].target == cat.args[0][0].target


def test_matrix_products_with_constants_and_with_tensors() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.randn(16, 16))
            self.out = nn.Linear(16, 10)

        def forward(self, x: Tensor) -> Tensor:
            q = torch.matmul(x, self.matrix)
            return self.out(torch.softmax(q @ x.transpose(1, 2), -1) @ x)

    torch.manual_seed(0)
    x = torch.randn(2, 5, 16)
    model = qat.prepare(Attention(), (x,), "tensorrt")
    qat.calibrate(model, [x])
    assert [site.quantized for site in model.sites] == [True] * 4
    with torch.no_grad():
        torch.testing.assert_close(qat.convert(model)(x), model(x))
    axes = sorted(weight.ch_axis for weight in model.weights())
    assert axes == [0, 1]
