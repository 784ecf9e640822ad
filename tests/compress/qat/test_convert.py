"""From a prepared student to the graph that ships, and the same network in three computations."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions
from torch import Tensor, nn

from compress.errors import RunError
from compress.qat import prepare as qat
from compress.qat.fake_quantize import FLOOR
from compress.qat.quantizer import names, rules
from exporters import torch_to_onnx

Make = Callable[..., nn.Module]
Inputs = Callable[..., Tensor]
QUANTIZERS = [name for name in names() if rules(name).ships == "int8"]


def prepared(student: nn.Module, x: Tensor, quantizer: str) -> qat.Prepared:
    model = qat.prepare(student, (x[:1],), quantizer)
    qat.calibrate(model, [x])
    return model


def run(path: Path, x: Tensor, level: GraphOptimizationLevel) -> Tensor:
    options = SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    session = InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_converted_computes_what_was_trained(name: str, quantizer: str, make: Make, inputs: Inputs) -> None:
    x = inputs(name)
    model = prepared(make(name), x, quantizer)
    with torch.no_grad():
        expected, found = model(x), qat.convert(model)(x)
    step = float(expected.abs().max()) / 127
    # A value within float rounding of a tie takes another code.
    assert (found - expected).abs().le(step).float().mean() >= 0.999


def test_three_computations_agree(made: Any) -> None:
    with torch.no_grad():
        expected = made.model(made.x)
        found = made.converted(made.x)
    # Logits that stay float get the step that eight bits would have.
    logits = list(made.model.activations())[-1]
    step = float(logits.scale if made.model.quantizer == "cortex_m" else expected.abs().max() / 127)
    # A value within float rounding of a tie takes another code; integer kernels round once more where they rescale.
    assert (found - expected).abs().le(step).float().mean() >= 0.999
    for level in (GraphOptimizationLevel.ORT_DISABLE_ALL, GraphOptimizationLevel.ORT_ENABLE_EXTENDED):
        assert (run(made.path, made.x, level) - expected).abs().le(step * 1.001).float().mean() >= 0.999
    graph = onnx.load(made.path).graph
    count = Counter(node.op_type for node in graph.node)
    assert count["BatchNormalization"] == count["Dropout"] == 0
    stored = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert sum(len(tensor.dims) > 1 for tensor in stored) == sum(site.quantized for site in made.model.sites)


def test_the_prepared_student_stays_usable(make: Make, inputs: Inputs) -> None:
    x = inputs("residual")
    model = prepared(make("residual"), x, "tensorrt")
    state = {key: value.clone() for key, value in model.state_dict().items()}
    before = model(x)
    qat.convert(model)
    assert torch.equal(model(x), before)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    model.train()(x).sum().backward()


def test_folds_by_hand() -> None:
    conv = nn.Conv2d(1, 2, 1, bias=True)
    norm = nn.BatchNorm2d(2, eps=0.0)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1.27, -0.635]).reshape(2, 1, 1, 1))
        conv.bias.copy_(torch.tensor([1.0, 2.0]))
        norm.weight.copy_(torch.tensor([2.0, -3.0]))
        norm.bias.copy_(torch.tensor([0.5, 0.25]))
        norm.running_mean.copy_(torch.tensor([3.0, 1.0]))
        norm.running_var.copy_(torch.tensor([4.0, 9.0]))
    x = torch.full((2, 1, 1, 1), 1.0)
    converted = qat.convert(prepared(nn.Sequential(conv, norm), x, "tensorrt"))
    # factors 2/2 = 1 and -3/3 = -1; bias (1 - 3) * 1 + 0.5 and (2 - 1) * -1 + 0.25
    bias = next(value for key, value in converted.named_parameters() if key.endswith("bias"))
    torch.testing.assert_close(bias, torch.tensor([-1.5, -0.75]))
    codes = next(value for value in converted.buffers() if value.dtype == torch.int8 and value.dim() == 4)
    assert codes.flatten().tolist() == [127, 127]
    torch.testing.assert_close(converted(x)[0].flatten(), torch.tensor([1.27 - 1.5, 0.635 - 0.75]))


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_dead_channels_give_valid_scales_and_the_same_output(
    quantizer: str, make: Make, inputs: Inputs, tmp_path: Path
) -> None:
    student, x = make("residual"), inputs("residual")
    first, norm = student.network[0][0], student.network[0][1]
    with torch.no_grad():
        first.weight[3] = 0.0  # a pruned channel
        norm.weight[5] = 0.0  # one that its batch norm silenced
        norm.weight[6] = 1e-12
        norm.bias[3] = 2.0  # with a bias that needs more than 2^-24 of a scale in int32
    model = prepared(student, x, quantizer)
    converted = qat.convert(model)
    for key, value in converted.named_buffers():
        if "scale" in key:
            assert bool(torch.isfinite(value).all())
            assert float(value.min()) >= FLOOR * float(value.max()) * 0.999
    with torch.no_grad():
        expected = model(x)
    step = float(expected.abs().max()) / 127
    assert (converted(x) - expected).abs().le(step).float().mean() >= 0.999
    if quantizer != "tensorrt":
        return
    path = tmp_path / "model.onnx"  # the placement that ONNX Runtime rewrites least, so the easiest to upset
    torch_to_onnx.convert(converted, (x[:2],), path, opset=20, input_names=["x"], output_names=["y"], metadata={})
    found = run(path, x, GraphOptimizationLevel.ORT_ENABLE_EXTENDED)
    assert (found - expected).abs().le(step * 1.001).float().mean() >= 0.999


def test_layers_that_share_a_weight_fold_their_own_batch_norm() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
            self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])

        def forward(self, x: Tensor) -> Tensor:
            return self.norms[1](self.conv(self.norms[0](self.conv(x)).relu()))

    torch.manual_seed(0)
    student = Shared()
    with torch.no_grad():
        for norm in student.norms:
            norm.weight.uniform_(0.5, 2.0)
            norm.running_var.uniform_(0.5, 2.0)
    x = torch.randn(4, 4, 6, 6)
    model = prepared(student, x, "tensorrt")
    with torch.no_grad():
        expected = model(x)
        step = float(expected.abs().max()) / 127
        assert (qat.convert(model)(x) - expected).abs().le(step).float().mean() >= 0.999


def test_a_batch_norm_that_nothing_absorbs_becomes_a_factor_and_a_shift(inputs: Inputs) -> None:
    torch.manual_seed(0)
    student = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))
    x = inputs("residual")
    model = prepared(student, x, "tensorrt")
    with torch.no_grad():
        converted = qat.convert(model)
        torch.testing.assert_close(converted(x), model(x))
    assert "aten.batch_norm" not in converted.code


def test_refuses_without_ranges_and_with_broken_weights(make: Make, inputs: Inputs) -> None:
    x = inputs("mlp")
    model = qat.prepare(make("mlp"), (x,), "tensorrt")
    with pytest.raises(RunError, match="no range was ever seen"):
        qat.convert(model)
    qat.calibrate(model, [x])
    with torch.no_grad():
        next(model.parameters())[0] = float("nan")
    with pytest.raises(RunError, match="not finite"):
        qat.convert(model)


def test_converting_twice_gives_the_same(make: Make, inputs: Inputs) -> None:
    x = inputs("separable")
    model = prepared(make("separable"), x, "cortex_m")
    first, second = (qat.convert(model).state_dict() for _ in range(2))
    assert list(first) == list(second)
    assert all(torch.equal(first[key], second[key]) for key in first)
