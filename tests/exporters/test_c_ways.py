"""Ways to use generated C: CMSIS-NN, strict compilers, C++, float layers between, several inputs, random graphs."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from exporters import onnx_to_c
from exporters.c import cmsis_nn, stack
from exporters.errors import ExportError
from profiles.runners import on_cortex_m
from profiles.runners.cortex_m import toolchain
from profiles.target import Target, target

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import c_graphs

Array = NDArray[Any]
FAKES = Path(__file__).parent / "fakes" / "cmsis_nn"
needs_host = pytest.mark.skipif(toolchain.host_compiler() is None, reason="this machine has no C compiler")
needs_board = pytest.mark.skipif(on_cortex_m.available() is not None, reason=str(on_cortex_m.available()))


@pytest.fixture(scope="module")
def aid() -> Target:
    return target("hearing_aid")


def network(seed: int = 0) -> c_graphs.Builder:
    """Two inputs, standard, depthwise and 1x1 convolutions, a residual sum, a product of matrices; two outputs."""
    net = c_graphs.Builder(seed)
    at = net.pair(net.op("Add", net.input(1, 3, 9, 8), net.input(1, 3, 9, 8)))
    for channels, group, kernel in ((8, 1, 3), (8, 8, 3), (6, 1, 1)):
        weight, scale = net.weights((channels, net.shape(at)[1] // group, kernel, kernel))
        made = net.op("Conv", at, weight, net.bias(at, scale), group=group, pads=[kernel // 2] * 4)
        at = net.pair(net.op("Relu", made))
    middle = at
    at = net.pair(net.op("Flatten", net.pair(net.op("GlobalAveragePool", at))))
    weight, scale = net.weights((5, 6))
    at = net.pair(net.op("Gemm", at, weight, net.bias(at, scale), transB=1))
    net.outputs = [middle, at]
    return net


def save(net: c_graphs.Builder, path: Path) -> Path:
    onnx.save(net.model(net.outputs), str(path))
    return path


def reference(net: c_graphs.Builder, integers: bool = True) -> list[Array]:
    runner = c_graphs.session(net.model(net.outputs), integers=integers)
    rows = [runner.run(None, {k: v[at : at + 1] for k, v in net.feeds.items()}) for at in range(c_graphs.INPUTS)]
    return [np.concatenate([row[place] for row in rows]) for place in range(len(net.outputs))]


@needs_host
def test_two_inputs_and_two_outputs(tmp_path: Path, aid: Target) -> None:
    net = network()
    folder = onnx_to_c.sources(save(net, tmp_path / "net.onnx"), aid, tmp_path / "c")
    assert (
        "void model_run(const float input_x0[216], const float input_x1[216], float output_"
        in (folder / "model.h").read_text()
    )
    ours = on_cortex_m.run_on_host(folder, net.feeds)
    for name, theirs in zip(net.outputs, reference(net), strict=True):
        np.testing.assert_allclose(ours[name].reshape(theirs.shape), theirs, atol=1e-6)


@needs_host
def test_cmsis_nn_is_called_and_differs_by_one_code_at_most(tmp_path: Path, aid: Target) -> None:
    net = network()
    folder = onnx_to_c.sources(save(net, tmp_path / "net.onnx"), aid, tmp_path / "c", cmsis_nn=True)
    source = (folder / "model.c").read_text()
    assert source.count("arm_convolve_wrapper_s8(&context") == 3  # two convolutions and the product
    assert source.count("arm_depthwise_conv_wrapper_s8(&context") == 1
    ours = c_graphs.on_host(folder, net.feeds, (f"-I{FAKES}", *c_graphs.SANITIZED))
    for name, theirs in zip(net.outputs, reference(net), strict=True):
        steps = np.abs(ours[name].reshape(theirs.shape) - theirs) / net.steps[name][0]
        assert steps.max() < 1.5
        assert (steps > 0.5).mean() < 0.05


def test_fixed_point_multipliers_worked_by_hand() -> None:
    whole, shift = cmsis_nn.fixed_point(np.array([0.5, 0.375, 1.5, 1 - 2.0**-40]))
    assert whole.tolist() == [2**30, 3 * 2**29, 3 * 2**29, 2**30]
    assert shift.tolist() == [0, -1, 1, 1]


@needs_host
def test_random_graphs_are_equal_code_for_code() -> None:
    found = c_graphs.compare((127, *range(1000, 1006)))  # 127: a pool as wide as its input, but padded
    assert found["differ"] == []
    assert found["codes"] > 10_000


@needs_board
def test_a_random_graph_is_equal_on_vectors(tmp_path: Path) -> None:
    assert c_graphs.compare([1003], core="cortex-m55")["differ"] == []


@needs_host
def test_one_float_layer_between_integer_ones(tmp_path: Path, aid: Target) -> None:
    """What mixed precision writes: the second convolution has float weights and no pair around it."""
    net = c_graphs.Builder(5)
    at = net.input(1, 4, 8, 8)
    weight, scale = net.weights((6, 4, 3, 3))
    at = net.pair(net.op("Relu", net.op("Conv", at, weight, net.bias(at, scale), pads=[1] * 4)))
    real = net.const(net.rng.normal(0, 0.2, (5, 6, 3, 3)).astype(np.float32))
    at = net.pair(net.op("Relu", net.op("Conv", at, real, pads=[1] * 4)))
    weight, scale = net.weights((3, 5, 1, 1))
    at = net.pair(net.op("Conv", at, weight, net.bias(at, scale)))
    net.outputs = [at]
    artifact = onnx_to_c.convert(save(net, tmp_path / "net.onnx"), aid, tmp_path)
    assert len(artifact.facts["fallback"]) == 1  # type: ignore[arg-type]
    assert "Conv node" in artifact.facts["fallback"][0]  # type: ignore[index]
    ours = on_cortex_m.run_on_host(artifact.path, net.feeds)
    (theirs,) = reference(net, integers=False)  # its integer kernels would quantise the float weights themselves
    steps = np.abs(ours[at].reshape(theirs.shape) - theirs) / net.steps[at][0]
    assert steps.max() < 1.5  # sums of floats in another order may cross a half
    assert (steps > 0.5).mean() < 0.01


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_strict_compilers_take_it(compiler: str, tmp_path: Path, aid: Target) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    folder = onnx_to_c.sources(save(network(), tmp_path / "net.onnx"), aid, tmp_path / "c")
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wvla", "-O1", "-c", "model.c", "-o", "m.o"]
    subprocess.run([compiler, *strict], cwd=folder, check=True)


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
@needs_host
def test_a_program_in_cpp_links_it(tmp_path: Path, aid: Target) -> None:
    folder = onnx_to_c.sources(save(network(), tmp_path / "net.onnx"), aid, tmp_path / "c")
    (folder / "main.cpp").write_text(
        '#include "model.h"\nstatic float in[MODEL_INPUT_FLOATS], out[MODEL_OUTPUT_FLOATS];\n'
        "int main() { MODEL_CALL(in, out); return 0; }\n"
    )
    subprocess.run([str(toolchain.host_compiler()), "-O1", "-c", "model.c", "-o", "m.o"], cwd=folder, check=True)
    strict = ["-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    subprocess.run(["g++", *strict, "main.cpp", "m.o", "-lm", "-o", "program"], cwd=folder, check=True)
    subprocess.run([str(folder / "program")], check=True)


@needs_host
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_builds_and_runs_the_example(tmp_path: Path, aid: Target) -> None:
    folder = onnx_to_c.sources(save(network(), tmp_path / "net.onnx"), aid, tmp_path / "c")
    said = subprocess.run(["make", "-s"], cwd=folder, check=True, capture_output=True, text=True).stdout
    assert len([float(line) for line in said.split()]) == 16
    if toolchain.missing("arm-none-eabi-gcc") is None:
        subprocess.run(["make", "-s", "clean"], cwd=folder, check=True)
        subprocess.run(["make", "-s", "CROSS=arm-none-eabi-"], cwd=folder, check=True, capture_output=True)


@needs_board
def test_no_heap_a_bounded_stack_and_weights_in_flash(tmp_path: Path, aid: Target) -> None:
    artifact = onnx_to_c.convert(save(network(), tmp_path / "net.onnx"), aid, tmp_path)
    assert 0 < int(str(artifact.facts["stack_bytes"])) < 1500
    (library,) = artifact.path.glob("*.a")
    symbols = subprocess.run(
        ["arm-none-eabi-nm", "-S", str(library)], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    kinds = {line.split()[-1]: line.split()[-2] for line in symbols if len(line.split()) >= 2}
    assert not {"malloc", "calloc", "free", "alloca"} & set(kinds)
    assert {kind for name, kind in kinds.items() if name.startswith("model_data")} == {"r"}
    assert [name for name, kind in kinds.items() if kind in "bBdD"] == ["model_arena"]


def test_the_deepest_stack_worked_by_hand() -> None:
    graph = """graph: { title: "model.c"
node: { title: "model.c:b" label: "b\\nmodel.c:1:1\\n24 bytes (static)" }
node: { title: "model.c:c" label: "c\\nmodel.c:2:1\\n100 bytes (static)" }
node: { title: "memset" label: "memset\\n<built-in>" shape : ellipse }
node: { title: "model_run" label: "model_run\\nmodel.c:3:1\\n40 bytes (static)" }
edge: { sourcename: "model.c:b" targetname: "memset" label: "x" }
edge: { sourcename: "model_run" targetname: "model.c:b" label: "x" }
edge: { sourcename: "model_run" targetname: "model.c:c" label: "x" }
edge: { sourcename: "model.c:b" targetname: "model.c:c" label: "x" }
}"""
    assert stack.deepest(graph) == 40 + 24 + 100
    assert stack.deepest(graph.replace("100 bytes (static)", "100 bytes (dynamic)")) is None


def test_a_dynamic_length_is_refused_with_its_name(tmp_path: Path, aid: Target) -> None:
    weight = numpy_helper.from_array(np.ones((2, 3, 1), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="layer")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, "length"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "n.onnx")
    with pytest.raises(ExportError, match="dimension 2 of graph input 'x' is not fixed"):
        onnx_to_c.sources(tmp_path / "n.onnx", aid, tmp_path / "c")
    folder = onnx_to_c.sources(tmp_path / "n.onnx", aid, tmp_path / "c", sizes={"length": 11})
    assert "input_x[33]" in (folder / "model.h").read_text()
