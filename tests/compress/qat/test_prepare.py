"""From a student to one that trains with fake quantisation."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from compress.errors import RecipeError, TaskError
from compress.qat import prepare as qat
from compress.qat.fake_quantize import ActivationFakeQuantize
from compress.qat.quantizer import names, rules
from compress.qat.rounding import rounding

Make = Callable[..., nn.Module]
Inputs = Callable[..., Tensor]
QUANTIZERS = [name for name in names() if rules(name).ships == "int8"]


def prepared(student: nn.Module, x: Tensor, quantizer: str, calibrated: bool = True) -> qat.Prepared:
    result = qat.prepare(student, (x[:1],), quantizer)
    if calibrated:
        qat.calibrate(result, [x])
    return result


def train(model: qat.Prepared, x: Tensor, steps: int, rate: float = 0.02) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    target = torch.arange(len(x)) % 10
    model.train()
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_there_are_three_runtimes() -> None:
    assert {"cortex_m", "onnxruntime_x86", "tensorrt", "tensorrt_fp8", "int4_weights", "float16"} < set(names())


def test_before_calibration_activations_pass_and_the_student_is_left_alone(
    name: str, make: Make, inputs: Inputs
) -> None:
    student, x = make(name), inputs(name)
    before = copy.deepcopy(student.state_dict())
    model = prepared(student, x, "tensorrt", calibrated=False)
    for weight in model.weights():
        weight.disable_fake_quant()
    student.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(x), student(x))
    train(model, x, 1)
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_every_network_trains_and_comes_close_to_float(name: str, quantizer: str, make: Make, inputs: Inputs) -> None:
    student, x = make(name), inputs(name)
    model = prepared(student, x, quantizer)
    student.eval()
    with torch.no_grad():
        expected, found = student(x), model(x)
    # Eight bits at every layer of a six-layer network: a few steps of the output's 127.
    assert float((expected - found).abs().max()) < 4 * float(expected.abs().max()) / 127
    losses = train(model, x, 8, rate=0.05)
    assert losses[-1] < losses[0]
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_state_round_trips_through_safetensors_into_a_freshly_built_student(
    quantizer: str, make: Make, inputs: Inputs, tmp_path: Path
) -> None:
    x = inputs("residual")
    model = prepared(make("residual", 0), x, quantizer)
    train(model, x, 2)
    qat.enter(model, qat.Phase.FIXED_RANGES)
    save_file(model.state_dict(), tmp_path / "student.safetensors")  # refuses tensors under two names
    again = qat.prepare(make("residual", 5), (x[:1],), quantizer)
    again.load_state_dict(load_file(tmp_path / "student.safetensors"))
    model.eval()
    assert torch.equal(again(x), model(x))
    assert [module.observer_enabled.item() for module in again.activations()] == [0] * len(list(model.activations()))


def test_two_runs_give_the_same_weights(make: Make, inputs: Inputs) -> None:
    def run() -> dict[str, Tensor]:
        x = inputs("separable")
        model = prepared(make("separable"), x, "onnxruntime_x86")
        torch.manual_seed(3)
        train(model, x, 3)
        return model.state_dict()

    first, second = run(), run()
    assert list(first) == list(second)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_training_mode_uses_batch_statistics_until_batch_norm_freezes(make: Make, inputs: Inputs) -> None:
    x = inputs("residual")
    model = prepared(make("residual"), x, "tensorrt")
    key = next(key for key in model.state_dict() if key.endswith("running_mean"))
    start = model.state_dict()[key].clone()
    model(x)
    assert torch.equal(model.state_dict()[key], start)
    model.train()
    model(x)
    moved = model.state_dict()[key].clone()
    assert not torch.equal(moved, start)
    qat.enter(model, qat.Phase.FIXED_BATCHNORM)
    high = next(iter(model.activations())).high.clone()
    model(2 * x)
    assert torch.equal(model.state_dict()[key], moved)
    assert not torch.equal(next(iter(model.activations())).high, high)
    qat.enter(model, qat.Phase.FIXED_RANGES)
    high = next(iter(model.activations())).high.clone()
    scales = [weight.scale.clone() for weight in model.weights()]
    train(model, x, 1)
    assert torch.equal(next(iter(model.activations())).high, high)
    assert all(torch.equal(a, b.scale) for a, b in zip(scales, model.weights(), strict=True))
    qat.enter(model, qat.Phase.ADAPT)
    model(x)
    assert not torch.equal(model.state_dict()[key], moved)


def test_frozen_training_mode_computes_what_evaluation_computes(make: Make, inputs: Inputs) -> None:
    x = inputs("residual")
    model = prepared(make("residual"), x, "cortex_m")
    qat.enter(model, qat.Phase.FIXED_RANGES)
    model.train()
    trained = model(x)
    assert torch.equal(trained, model.eval()(x))


def test_dropout_drops_in_training_only_and_does_not_stretch_ranges(make: Make, inputs: Inputs) -> None:
    x = inputs("mlp")
    model = prepared(make("mlp"), x, "tensorrt")
    high = float(list(model.activations())[1].high)
    model.train()
    qat.enter(model, qat.Phase.FIXED_BATCHNORM)
    assert not torch.equal(model(x), model(x))
    # The rounding stands in front of the dropout: same values as in calibration, so the same range.
    assert float(list(model.activations())[1].high) == pytest.approx(high, rel=1e-3)
    model.eval()
    assert torch.equal(model(x), model(x))


def test_momentum_and_epsilon_stay_the_students_own() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, eps=0.1, momentum=0.5), nn.ReLU())
    x = torch.randn(8, 3, 6, 6)
    model = qat.prepare(network, (x,), "tensorrt", float_modules=("0", "1", "2"))
    model.train()
    network.train()
    torch.testing.assert_close(model(x), network(x))
    mean = next(value for key, value in model.state_dict().items() if key.endswith("running_mean"))
    torch.testing.assert_close(mean, network[1].running_mean)


def test_a_batch_norm_that_starts_at_zero_learns() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(network[1].weight)
    x = torch.randn(8, 3, 6, 6)
    model = prepared(network, x, "tensorrt")
    train(model, x, 3)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    assert bool(model.graph.get_parameter("1.weight").all())


def test_the_percentile_method_ignores_an_outlier(make: Make, inputs: Inputs) -> None:
    x = inputs("residual").clone()
    x[0, 0, 0, 0] = 1000.0
    model = qat.prepare(make("residual"), (x,), "tensorrt", rounding=rounding("percentile"))
    qat.calibrate(model, [x])
    # The outlier is 3998 behind the frontend, everything else within 2.
    assert float(next(iter(model.activations())).high) < 2.1


def test_bfloat16_autocast_trains(make: Make, inputs: Inputs) -> None:
    x = inputs("residual")
    model = prepared(make("residual"), x, "tensorrt")
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = nn.functional.cross_entropy(model(x).float(), torch.arange(len(x)) % 10)
    loss.backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())
    assert all(bool(torch.isfinite(module.scale).all()) for module in model.activations())


def test_a_copy_is_independent_and_in_the_same_mode(make: Make, inputs: Inputs) -> None:
    x = inputs("residual")
    model = prepared(make("residual"), x, "tensorrt")
    qat.enter(model.train(), qat.Phase.FIXED_BATCHNORM)
    twin = copy.deepcopy(model)
    assert torch.equal(model(x), twin(x))
    expected = model.eval()(x)
    train(twin, x, 2)
    assert torch.equal(model(x), expected)


def test_several_inputs_and_structured_outputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 3), nn.Linear(5, 3)])

        def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
            left, right = (layer(x) for layer, x in zip(self.layers, inputs, strict=True))
            return {"sum": left + right, "left": left}

    torch.manual_seed(0)
    batch = (torch.rand(6, 4), torch.rand(6, 5))
    model = qat.prepare(Two(), tuple(x[:1] for x in batch), "onnxruntime_x86")
    qat.calibrate(model, [batch])
    converted = qat.convert(model)
    with torch.no_grad():
        expected, found = model(*batch), converted(*batch)
    assert {key: value.shape for key, value in found.items()} == {"sum": (6, 3), "left": (6, 3)}
    for key in expected:
        torch.testing.assert_close(found[key], expected[key])


def test_calibration_keeps_the_mode_and_moves_no_weight(make: Make, inputs: Inputs) -> None:
    x = inputs("plain")
    model = prepared(make("plain"), x, "cortex_m", calibrated=False)
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items() if key.startswith("graph.network")}
    qat.calibrate(model, [(x,), x])
    assert model.training
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert all(int(module.seen) == 2 for module in model.activations())


def test_refuses_an_unknown_quantizer(make: Make, inputs: Inputs) -> None:
    x = inputs("mlp")
    with pytest.raises(RecipeError, match="no quantizer is called 'tensor'; there are bfloat16, cortex_m, float16"):
        qat.prepare(make("mlp"), (x,), "tensor")


def test_refuses_a_student_with_a_fixed_batch_size() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(2, 8) * 2

    with pytest.raises(RecipeError, match="free batch size"):
        qat.prepare(Fixed(), (torch.randn(2, 8),), "tensorrt")


def test_refuses_to_calibrate_with_nothing_or_with_nan(make: Make, inputs: Inputs) -> None:
    x = inputs("mlp")
    model = prepared(make("mlp"), x, "tensorrt", calibrated=False)
    with pytest.raises(TaskError, match="got no range"):
        qat.calibrate(model, [])
    with pytest.raises(TaskError, match="got no range"):
        qat.calibrate(model, [x * float("nan")])
    assert all(bool(module.fake_quant_enabled) for module in model.activations())


def test_nothing_inside_the_frontend_is_quantised(name: str, make: Make, inputs: Inputs) -> None:
    x = inputs(name)
    model = prepared(make(name), x, "cortex_m")
    for node in model.graph.graph.nodes:
        if node.op == "call_module" and isinstance(model.graph.get_submodule(node.target), ActivationFakeQuantize):
            assert node.args[0].op != "placeholder"
    assert all(site.module.startswith("network") for site in model.sites)
