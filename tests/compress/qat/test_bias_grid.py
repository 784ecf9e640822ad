"""Biases on the grid of integer kernels."""

import math

import pytest
import torch
from torch import Tensor, nn

from compress.qat import prepare as qat
from compress.qat.bias_grid import BiasToGrid, final_scale, fold, on_grid


def test_rounds_to_input_scale_times_weight_scale() -> None:
    # Grid 0.5 * (0.25, 0.125) = (0.125, 0.0625): 0.3 is 2.4 steps, so 2; -0.1 is -1.6 steps, so -2.
    rounded = on_grid(torch.tensor([0.3, -0.1]), 0.5, torch.tensor([0.25, 0.125]))
    assert rounded.tolist() == [0.25, -0.125]


def test_half_a_step_goes_to_the_even_code() -> None:
    rounded = on_grid(torch.tensor([0.125, 0.375, -0.125]), 0.5, torch.full((3,), 0.5))
    assert rounded.tolist() == [0.0, 0.5, 0.0]


def test_a_channel_of_tiny_weights_gets_a_scale_that_its_bias_fits() -> None:
    scale = final_scale(torch.tensor([1.0, 2.0**-24]), None, torch.tensor([1.0, 64.0]), 0.5)
    assert scale.tolist() == [1.0, 64.0 / (0.5 * 2.0**30)]
    assert float(64.0 / (0.5 * scale[1])) <= 2.0**31 - 1


def test_fold_of_a_batch_norm_worked_by_hand() -> None:
    # (conv + 1 - 3) * 2 / sqrt(3.99 + 0.01) + 5 = conv * 1 + 3
    one = torch.ones(1)
    factor, bias = fold(2 * one, 5 * one, 3 * one, 3.99 * one, 0.01, one)
    torch.testing.assert_close(factor, one)
    torch.testing.assert_close(bias, 3 * one)
    factor, bias = fold(None, None, 3 * one, 0.25 * one, 0.0, None)
    torch.testing.assert_close((factor, bias), (2 * one, -6 * one))


class Layer(nn.Module):
    """A convolution of weight 1 and a batch norm that multiplies by 2 and adds what the test says."""

    def __init__(self, shift: float, bias: float | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=bias is not None)
        self.norm = nn.BatchNorm2d(1, eps=0.0)
        with torch.no_grad():
            self.conv.weight.fill_(1.0)
            if self.conv.bias is not None and bias is not None:
                self.conv.bias.fill_(bias)
            self.norm.weight.fill_(2.0)
            self.norm.bias.fill_(shift)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


@pytest.mark.parametrize("bias", [None, 0.0013])
def test_the_prepared_model_the_converted_one_and_integers_agree(bias: float | None) -> None:
    x = torch.linspace(-1.0, 1.0, 64).reshape(4, 1, 4, 4)
    model = qat.prepare(Layer(0.01003, bias), (x,), "tensorrt")
    qat.calibrate(model, [x])
    # Input scale 1/127; weight scale 1/127 times the factor 2. In those units the folded bias is a whole number.
    grid = 2.0 / 127**2
    folded = 0.01003 + 2 * (bias or 0.0)
    codes = torch.round(x * 127)
    expected = (codes * 127 + round(folded / grid)) * grid
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(qat.convert(model)(x), expected, rtol=0, atol=1e-6)
    assert abs(folded / grid - round(folded / grid)) > 0.05  # so that rounding had something to do


def test_the_bias_moves_freely_until_ranges_are_fixed_and_its_gradient_passes() -> None:
    x = torch.randn(8, 4)
    model = qat.prepare(nn.Linear(4, 3), (x,), "onnxruntime_x86")
    (module,) = (found for found in model.modules() if isinstance(found, BiasToGrid))
    bias, weight = model.graph.get_parameter("bias"), model.graph.get_parameter("weight")
    assert torch.equal(module(bias, weight), bias)  # no range was seen
    qat.calibrate(model, [x])
    assert not torch.equal(module(bias, weight), bias)
    model.train()
    assert torch.equal(module(bias, weight), bias)
    qat.enter(model, qat.Phase.FIXED_RANGES)
    moved = module(bias, weight)
    assert not torch.equal(moved, bias)
    step = float(next(iter(model.activations())).scale) * next(iter(model.weights())).scale
    assert bool(((moved - bias).abs() <= step / 2 * 1.001).all())
    moved.sum().backward()
    assert bias.grad is not None
    assert bias.grad.tolist() == [1.0, 1.0, 1.0]
    assert not any("bias_to_grid" in name for name in model.state_dict())
    assert math.isfinite(float(moved.detach().abs().max()))
