"""Both readers: nets worked by hand, and each other."""

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import profiles
from profiles import read_onnx
from profiles.errors import ProfileError
from profiles.fuse import fuse

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def onnx_model(
    nodes: list[onnx.NodeProto], inputs: dict[str, list[int | str]], outputs: list[str], **stored: np.ndarray
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def quantised_model() -> onnx.ModelProto:
    """x -> Q/DQ -> Conv(int8) -> Relu -> Q/DQ -> Conv(float weights)."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd", "b"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["rq"]),
        helper.make_node("DequantizeLinear", ["rq", "s", "z"], ["rd"]),
        helper.make_node("Conv", ["rd", "v"], ["y"], kernel_shape=[1, 1]),
    ]
    return onnx_model(
        nodes,
        {"x": ["batch", 4, 8, 8]},
        ["y"],
        w=np.ones((16, 4, 1, 1), np.int8),
        ws=floats(16),
        wz=np.zeros(16, np.int8),
        b=floats(16),
        v=floats(2, 16, 1, 1),
        s=np.float32(0.1).reshape(()),
        z=np.int8(0).reshape(()),
    )


def test_a_quantised_graph_by_hand() -> None:
    cost = profiles.profile(quantised_model(), "a100", batch=3)
    assert cost.macs == 3 * 64 * (16 * 4 + 2 * 16)
    assert cost.params == 16 * 4 + 16 + 2 * 16
    assert cost.weight_bytes == 16 * 4 + 16 * 4 + 2 * 16 * 4  # int8 weights, float bias, float weights
    assert [layer.ops for layer in cost.layers] == [
        ("QuantizeLinear",),
        ("Conv", "Relu", "QuantizeLinear"),
        ("Conv",),
    ]
    assert [layer.precision for layer in cost.layers] == ["int8", "int8", "fp32"]
    assert cost.peak_activation_bytes == 3 * 64 * (16 + 2 * 4)  # codes of 16 channels beside the float output
    assert cost.precision == "int8"  # 12288 multiply-accumulates of 18432


def test_int8_weights_alone_do_not_make_a_layer_int8() -> None:
    model = quantised_model()
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    conv.input[0] = "x"
    layers = profiles.profile(model, "a100").layers
    assert next(layer for layer in layers if layer.ops[0] == "Conv").precision == "fp32"


def test_the_asked_precision_is_what_weights_and_activations_are_stored_in() -> None:
    model = onnx_model(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], kernel_shape=[1, 1])],
        {"x": [1, 4, 8, 8]},
        ["y"],
        w=floats(16, 4, 1, 1),
        b=floats(16),
    )
    by = {name: profiles.profile(model, "a100", precision=name) for name in ("fp32", "fp16", "int8")}
    assert {name: cost.weight_bytes for name, cost in by.items()} == {"fp32": 320, "fp16": 160, "int8": 64 + 4 * 16}
    assert {name: cost.peak_activation_bytes for name, cost in by.items()} == {"fp32": 5120, "fp16": 2560, "int8": 1280}


@pytest.mark.parametrize(
    ("node", "stored", "macs", "output"),
    [
        (
            helper.make_node("Conv", ["x", "w"], ["y"], group=4, kernel_shape=[3, 3]),
            {"w": floats(8, 1, 3, 3)},
            8 * 36 * 9,
            (2, 8, 6, 6),
        ),
        (
            helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]),
            {"w": floats(4, 5, 2, 2)},
            4 * 64 * 5 * 4,
            (2, 5, 16, 16),
        ),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), {"w": floats(8, 3)}, 4 * 8 * 3 * 8, (2, 4, 8, 3)),
        (helper.make_node("MatMul", ["x", "x"], ["y"]), {}, 4 * 8 * 8 * 8, (2, 4, 8, 8)),
        (
            helper.make_node("Einsum", ["x", "w"], ["y"], equation="bchw,wd->bchd"),
            {"w": floats(8, 3)},
            4 * 8 * 3 * 8,
            (2, 4, 8, 3),
        ),
    ],
)
def test_operators_by_hand(
    node: onnx.NodeProto, stored: dict[str, np.ndarray], macs: int, output: tuple[int, ...]
) -> None:
    graph = read_onnx.read(onnx_model([node], {"x": ["n", 4, 8, 8]}, ["y"], **stored), batch=2)
    assert graph.ops[0].macs == 2 * macs
    assert graph.edges["y"].shape == output


def test_recurrent_and_gemm_by_hand() -> None:
    lstm = helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], hidden_size=5)
    model = onnx_model([lstm], {"x": [7, 2, 3]}, ["y"], w=floats(1, 20, 3), r=floats(1, 20, 5), b=floats(1, 40))
    assert read_onnx.read(model, batch=7).ops[0].macs == 7 * 2 * 4 * 5 * (3 + 5)
    gemm = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    graph = read_onnx.read(onnx_model([gemm], {"x": ["n", 6]}, ["y"], w=floats(3, 6), b=floats(3)), batch=4)
    assert graph.ops[0].macs == 4 * 6 * 3
    assert [(item.elements, item.bias) for item in graph.ops[0].weights] == [(18, False), (3, True)]


def test_stft_by_hand() -> None:
    node = helper.make_node("STFT", ["x", "step", "window"], ["y"], onesided=1)
    model = onnx_model([node], {"x": [1, 64, 1]}, ["y"], step=np.int64(8).reshape(()), window=floats(16))
    graph = read_onnx.read(model)
    frames = (64 - 16) // 8 + 1
    assert graph.edges["y"].shape == (1, frames, 9, 2)
    assert graph.ops[0].macs == frames * 80  # 5 * 16 * 4 operations, half of them for real input, two per MAC
    assert not graph.uncounted


def test_an_operator_without_a_counter_is_named_and_not_silently_nothing() -> None:
    model = onnx_model([helper.make_node("Det", ["x"], ["y"])], {"x": [1, 4, 4]}, ["y"])
    cost = profiles.profile(model, "jetson")
    assert cost.uncounted == {"Det": 1}
    assert any("Det x1" in note for note in cost.notes)


def test_dynamic_batch_takes_the_asked_one_and_other_dimensions_need_an_example() -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    assert read_onnx.read(onnx_model([node], {"x": ["n", 3]}, ["y"]), batch=5).edges["y"].shape == (5, 3)
    model = onnx_model([node], {"x": ["n", "frames", 3]}, ["y"])
    with pytest.raises(ProfileError, match="dimension 1 of input 'x' is dynamic \\(frames\\)"):
        profiles.profile(model, "a100")
    cost = profiles.profile(model, "a100", batch=2, example={"x": floats(1, 50, 3)})
    assert cost.peak_activation_bytes == 2 * (2 * 50 * 3 * 4)  # the input is the caller's and not written over


def test_what_is_not_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="there is no file"):
        profiles.profile(tmp_path / "none.onnx", "a100")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(quantised_model().SerializeToString()[:-40])
    with pytest.raises(ProfileError, match=r"is not an ONNX model|holds no operators"):
        profiles.profile(cut, "a100")
    huge = onnx_model([helper.make_node("Relu", ["x"], ["y"])], {"x": [1, 1 << 20, 1 << 20]}, ["y"])
    with pytest.raises(ProfileError, match="which no device here can hold"):
        profiles.profile(huge, "a100")
    with pytest.raises(ProfileError, match="batch is 0"):
        profiles.profile(quantised_model(), "a100", batch=0)
    with pytest.raises(ProfileError, match="cannot be costed"):
        profiles.profile(3, "a100")  # type: ignore[arg-type]


def test_a_batch_that_is_written_into_the_graph_is_not_counted_wrongly() -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    model = onnx_model([node], {"x": [2, 3, 4]}, ["y"], shape=np.array([2, 12]))
    assert read_onnx.read(model, batch=2).edges["y"].shape == (2, 12)
    with pytest.raises(ProfileError, match=r"another batch size|cannot be inferred"):
        read_onnx.read(model, batch=5)


def test_external_weights_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "big.onnx"
    model = onnx_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 600]}, ["y"], w=floats(600, 600))
    onnx.save(model, str(path), save_as_external_data=True, location="big.data", size_threshold=0)
    (tmp_path / "big.data").unlink()
    assert profiles.profile(path, "a100").params == 360_000


@pytest.mark.parametrize("precision", [None, "int8"])
@pytest.mark.parametrize("batch", [1, 4])
def test_readers_agree_on_a_residual_network(
    tmp_path: Path, nets: ModuleType, precision: profiles.Precision | None, batch: int
) -> None:
    module = nets.trained(nets.Residual(2))
    example = torch.zeros(2, 3, 32, 32)
    traced = profiles.profile(module, "a100", batch, precision, example)
    stored = profiles.profile(nets.exported(module, example, tmp_path / "net.onnx"), "a100", batch, precision)
    assert traced.macs == stored.macs
    assert traced.params == stored.params
    assert traced.weight_bytes == stored.weight_bytes
    assert traced.peak_activation_bytes == stored.peak_activation_bytes
    assert len(traced.layers) == len(stored.layers)
    assert traced.latency_ms == pytest.approx(stored.latency_ms)
    folded = sum(w.numel() for w in module.parameters() if w.dim() > 1) + 10  # weights, and the head's bias
    folded += sum(m.num_features for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert traced.params == folded


def test_readers_agree_on_a_log_mel_front_end(tmp_path: Path, nets: ModuleType) -> None:
    module = nets.LogMel().eval()
    example = torch.zeros(2, 4000)
    traced = profiles.profile(module, "hearing-aid", example=example)
    stored = profiles.profile(nets.exported(module, example, tmp_path / "mel.onnx"), "hearing-aid")
    assert (traced.macs, traced.params, traced.weight_bytes) == (stored.macs, stored.params, stored.weight_bytes)
    assert traced.peak_activation_bytes == pytest.approx(stored.peak_activation_bytes, rel=0.02)
    frames = (4000 - 256) // 128 + 1
    transform = 5 * 256 * 8 // 2 // 2
    assert traced.macs == frames * (transform + 129 * 20) + (frames - 2) * 8 * 20 * 3
    assert not traced.uncounted
    assert not stored.uncounted


def test_tracing_leaves_the_module_as_it_was(nets: ModuleType) -> None:
    module = nets.Residual().train()
    module.pool.eval()
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in module.state_dict().items()}
    flags = [child.training for child in module.modules()]
    profiles.profile(module, "x86", example=torch.zeros(1, 3, 32, 32))
    assert flags == [child.training for child in module.modules()]
    for name, tensor in module.state_dict().items():
        assert tensor.data_ptr() == before[name][0]
        assert torch.equal(tensor, before[name][1])


def test_a_module_that_fails_is_refused_and_left_as_it_was(nets: ModuleType) -> None:
    module = nets.Residual().train()
    with pytest.raises(ProfileError, match="fails on inputs of shape"):
        profiles.profile(module, "x86", example=torch.zeros(1, 4, 32, 32))
    assert module.training
    assert not any(tensor.is_meta for tensor in module.state_dict().values())
    with pytest.raises(ProfileError, match="without example inputs"):
        profiles.profile(module, "x86")


def test_a_module_that_looks_at_values_is_run_instead() -> None:
    class Peeking(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) if float(x.sum()) > 0 else x

    cost = profiles.profile(Peeking(), "x86", batch=2, example=torch.ones(2, 4))
    assert cost.macs == 2 * 4 * 6


def test_shared_weights_are_stored_once() -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(torch.relu(self.linear(x)))

    cost = profiles.profile(Twice(), "x86", example=torch.zeros(1, 8))
    assert (cost.macs, cost.params, cost.weight_bytes) == (128, 72, 288)


def test_recurrent_layers_of_torch_are_one_operator() -> None:
    module = torch.nn.GRU(8, 6, num_layers=2, batch_first=True, bidirectional=True)
    cost = profiles.profile(module, "x86", batch=3, example=torch.zeros(3, 20, 8))
    assert cost.macs == 3 * 20 * 3 * 6 * 2 * ((8 + 6) + (12 + 6))
    assert cost.params == sum(tensor.numel() for tensor in module.parameters())
    assert [layer.ops for layer in cost.layers] == [("gru",)]


def test_an_attention_layer_agrees_with_torchs_own_counter() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    module = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    example = torch.zeros(2, 5, 16)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.device("meta"):
        module.to("meta")(example.to("meta"))
    assert profiles.profile(module, "a100", 2, example=example).flops == counter.get_total_flops()


def test_batch_normalisation_without_a_convolution_before_it_keeps_scale_and_offset() -> None:
    module = torch.nn.Sequential(torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 8, 1, bias=False))
    cost = profiles.profile(module, "a100", example=torch.zeros(1, 4, 8, 8))
    assert cost.params == 2 * 4 + 4 * 8


def test_skip_additions_are_fused_where_the_runtime_has_such_a_kernel(nets: ModuleType) -> None:
    graph = profiles.read(nets.Residual(1), 1, torch.zeros(1, 3, 32, 32))
    adds = {
        family: sum("add" in kernel.operators[1:] for kernel in fuse(graph, family).kernels)
        for family in ("nvidia-gpu", "x86-cpu", "cortex-m")
    }
    assert adds == {"nvidia-gpu": 3, "x86-cpu": 3, "cortex-m": 0}
