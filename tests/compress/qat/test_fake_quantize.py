"""Rounding, its gradient, and the two modules."""

import pytest
import torch
from torch import Tensor

from compress.qat.fake_quantize import (
    FLOOR,
    ObservedActivation,
    ObservedWeightPerChannel,
    channel_scales,
    round_to_grid,
)


def activation(symmetric: bool = True) -> ObservedActivation:
    scheme = torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine
    return ObservedActivation(torch.int8, -128, 127, scheme)


def weights() -> ObservedWeightPerChannel:
    return ObservedWeightPerChannel(torch.int8, -127, 127, torch.per_channel_symmetric, 0)


def test_rounds_half_to_even_and_saturates_at_both_ends() -> None:
    x = torch.tensor([0.25, 0.75, -0.25, 1.1, 63.4, 100.0, -100.0])
    expected = torch.tensor([0.0, 1.0, 0.0, 1.0, 63.5, 63.5, -64.0])  # codes 0, 2, 0, 2, 127, 127, -128 times 0.5
    assert torch.equal(round_to_grid(x, 0.5, 0, -128, 127), expected)


def test_zero_point_moves_the_grid_and_keeps_zero() -> None:
    x = torch.tensor([0.0, -1.0, 3.0, 300.0])
    # codes 10 + x, saturating at 127: 127 - 10 = 117
    assert torch.equal(round_to_grid(x, 1.0, 10, -128, 127), torch.tensor([0.0, -1.0, 3.0, 117.0]))


def test_gradient_passes_inside_and_stops_where_clipped() -> None:
    x = torch.tensor([-200.0, -3.3, 0.0, 5.2, 200.0], requires_grad=True)
    round_to_grid(x, 1.0, 0, -128, 127).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("zero_point", [-128, 0, 17])
def test_agrees_with_torch_except_at_ties(zero_point: int) -> None:
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    ours = round_to_grid(x, 0.0123, zero_point, -128, 127)
    theirs = torch.fake_quantize_per_tensor_affine(x, 0.0123, zero_point, -128, 127)
    # torch adds the zero point before rounding: a value within float32 of a tie may fall on the other side.
    assert (ours != theirs).float().mean() < 1e-4
    assert float((ours - theirs).abs().max()) <= 0.0123 * 1.001


def test_bfloat16_input_gives_the_code_of_its_value() -> None:
    x = torch.linspace(-2, 2, 999).bfloat16()
    expected = round_to_grid(x.float(), 2 / 127, 0, -128, 127)
    assert torch.equal(round_to_grid(x, 2 / 127, 0, -128, 127), expected.bfloat16())


def test_channel_scales_by_hand() -> None:
    weight = torch.tensor([[1.27, -0.5], [0.0, 0.254]])
    torch.testing.assert_close(channel_scales(weight, 0), torch.tensor([0.01, 0.002]))
    torch.testing.assert_close(channel_scales(weight, 1), torch.tensor([0.01, 0.5 / 127]))


def test_a_dead_channel_and_a_dead_tensor_get_a_valid_scale() -> None:
    scales = channel_scales(torch.tensor([[2.54, 0.0], [0.0, 0.0]]), 0)
    torch.testing.assert_close(scales, torch.tensor([0.02, 0.02 * FLOOR]))
    assert channel_scales(torch.zeros(3, 4), 0).tolist() == [FLOOR] * 3


def test_codes_of_a_channel_do_not_change_when_it_is_multiplied() -> None:
    weight = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    factor = torch.tensor([0.01, 1.0, -1.0, 3.7, -0.2, 100.0, 1e-3, -5.0]).reshape(-1, 1, 1, 1)
    fake = weights()
    fake.fit(weight)

    def codes(w: Tensor) -> Tensor:
        return torch.round(fake(w) / channel_scales(w, 0).reshape(-1, 1, 1, 1))

    # Codes at a tie of the multiplied weight may fall on either side.
    assert (codes(weight * factor) != codes(weight) * factor.sign()).float().mean() < 0.005


def test_activation_range_is_the_mean_of_the_first_batches_and_then_moves_slowly() -> None:
    fake = activation().train()
    fake(torch.tensor([-1.0, 2.0]))
    fake(torch.tensor([-3.0, 4.0]))
    assert (float(fake.low), float(fake.high)) == (-2.0, 3.0)
    assert float(fake.scale) == pytest.approx(3.0 / 127)
    assert int(fake.zero_point) == 0
    for _ in range(300):
        fake(torch.tensor([-3.0, 4.0]))
    before = float(fake.high)
    fake(torch.tensor([-3.0, 104.0]))
    assert float(fake.high) == pytest.approx(before + 0.01 * (104 - before))


def test_asymmetric_range_of_a_relu_starts_at_the_lowest_code() -> None:
    fake = activation(symmetric=False).train()
    fake(torch.tensor([0.0, 5.1]))
    assert float(fake.scale) == pytest.approx(5.1 / 255)
    assert int(fake.zero_point) == -128


def test_a_range_that_excludes_zero_is_stretched_to_it() -> None:
    fake = activation(symmetric=False).train()
    fake(torch.tensor([2.0, 4.0]))
    assert int(fake.zero_point) == -128
    assert float(fake.scale) == pytest.approx(4.0 / 255)


def test_evaluation_moves_nothing_and_the_frozen_training_neither() -> None:
    fake = activation().train()
    fake(torch.tensor([-1.0, 1.0]))
    fake.eval()
    fake(torch.tensor([-9.0, 9.0]))
    fake.train()
    fake.disable_observer()
    fake(torch.tensor([-9.0, 9.0]))
    assert float(fake.high) == 1.0


def test_before_any_batch_the_input_passes() -> None:
    x = torch.randn(5)
    assert torch.equal(activation().eval()(x), x)


def test_a_batch_that_is_not_finite_moves_nothing() -> None:
    fake = activation().train()
    fake(torch.tensor([-1.0, 1.0]))
    for bad in (float("nan"), float("inf")):
        fake(torch.tensor([bad, 1.0]))
    assert (float(fake.low), float(fake.high)) == (-1.0, 1.0)


def test_a_dead_activation_has_a_valid_scale() -> None:
    fake = activation().train()
    assert torch.equal(fake(torch.zeros(4)), torch.zeros(4))
    assert float(fake.scale) == FLOOR


def test_frozen_weights_clip_and_stop_the_gradient_there() -> None:
    fake = weights().train()
    fake.fit(torch.tensor([[1.27, 0.5]]))
    fake.disable_observer()
    grown = torch.tensor([[2.0, 0.5]], requires_grad=True)
    out = fake(grown)
    torch.testing.assert_close(out, torch.tensor([[1.27, 0.5]]))
    out.sum().backward()
    assert grown.grad is not None
    assert grown.grad.tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("x", [torch.empty(0, 3), torch.empty(0)])
def test_an_empty_batch_moves_nothing(x: Tensor) -> None:
    fake = activation().train()
    fake(torch.tensor([-1.0, 1.0]))
    assert fake(x).shape == x.shape
    assert float(fake.high) == 1.0


def test_refuses_dynamic_scales() -> None:
    with pytest.raises(ValueError, match="constant"):
        ObservedActivation(torch.int8, -128, 127, torch.per_tensor_symmetric, is_dynamic=True)
    with pytest.raises(ValueError, match="codes -127"):
        ObservedWeightPerChannel(torch.int8, -128, 127, torch.per_channel_symmetric, 0)
