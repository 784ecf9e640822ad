"""Steps that train: their gradients, that they stay valid, and that they freeze."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compress.qat import prepare as qat
from compress.qat.learned_steps import LearnedActivation, LearnedWeightPerChannel, round_learned
from compress.qat.quantizer import names, rules
from compress.qat.ranges import FLOOR
from compress.qat.rounding import rounding

Make = Callable[..., nn.Module]
Inputs = Callable[..., Tensor]
LEARNED = rounding("mse", steps="learned", weight_ranges="mse")


def activation(symmetric: bool = True) -> LearnedActivation:
    scheme = torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine
    return LearnedActivation(torch.int8, -128, 127, scheme).train()


def weights(weight: Tensor) -> LearnedWeightPerChannel:
    fake = LearnedWeightPerChannel(torch.int8, -127, 127, torch.per_channel_symmetric, 0).train()
    fake.fit(weight)
    return fake


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, requires_grad=True)


def grad(tensor: Tensor) -> list[float]:
    assert tensor.grad is not None
    return tensor.grad.reshape(-1).tolist()


def test_gradient_of_a_symmetric_step_by_equation_3() -> None:
    # Step 0.5, codes -4..3; x / step = 0.6, -1.8, 9, -8, 3.2: residues 1 - 0.6 and -2 + 1.8, then Q_P, -Q_N, Q_P.
    x, step = numbers(0.3, -0.9, 4.5, -4.0, 1.6), numbers(0.5)
    out = round_learned(x, step, torch.tensor([4 / 7]), -4, 3)
    assert out.tolist() == [0.5, -1.0, 1.5, -2.0, 1.5]
    weights = torch.tensor([1.0, 10.0, 100.0, 1000.0, 10_000.0])
    (out * weights).sum().backward()
    assert grad(step)[0] == pytest.approx(1 * 0.4 + 10 * -0.2 + 100 * 3 + 1000 * -4 + 10_000 * 3, rel=1e-5)
    assert grad(x) == [1.0, 10.0, 0.0, 0.0, 0.0]


def test_gradients_of_an_asymmetric_grid_by_hand() -> None:
    # 8 codes of step 0.5, two sevenths of them below zero: codes -2..5 around zero, range -1 to 2.5.
    x, step, below = numbers(0.7, -3.0, 5.0), numbers(0.5), numbers(2 / 7)
    out = round_learned(x, step, below, 0, 7)
    assert out.tolist() == [0.5, -1.0, 2.5]
    (out * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert grad(step)[0] == pytest.approx(1 * (1 - 1.4) + 10 * -2 + 100 * 5)
    assert grad(below)[0] == pytest.approx(-0.5 * 7 * (10 + 100))  # both ends move down by the whole range
    assert grad(x) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_equal_finite_differences_of_the_surrogate(layout: torch.memory_format) -> None:
    """Rounding as a constant offset per value, and clipping, have the gradients that rounding is given."""
    generator = torch.Generator().manual_seed(0)
    x = (2 * torch.randn(4, 3, 8, 8, generator=generator)).contiguous(memory_format=layout)
    upstream = torch.randn(4, 3, 8, 8, generator=generator)
    step, below = 0.02, 90 / 255

    def surrogate(step: float, below: float) -> float:
        values = x.double()
        # The residue of each value's code stays what it is at the point; the code itself moves with the step.
        residue = (values / 0.02).round() - values / 0.02
        low, high = -below * 255 * step, (1 - below) * 255 * step
        inside = (values > -90 * 0.02) & (values < 165 * 0.02)
        clipped = torch.where(values > 0, torch.tensor(high), torch.tensor(low)).double()
        return float((torch.where(inside, values + residue * step, clipped) * upstream.double()).sum())

    def difference(move: Callable[[float], float], at: float) -> float:
        return (move(at + 1e-4) - move(at - 1e-4)) / 2e-4

    learned_step, learned_below = numbers(step), numbers(below)
    (round_learned(x, learned_step, learned_below, 0, 255) * upstream).sum().backward()
    assert grad(learned_step)[0] == pytest.approx(difference(lambda s: surrogate(s, below), step), rel=1e-3)
    assert grad(learned_below)[0] == pytest.approx(difference(lambda b: surrogate(step, b), below), rel=1e-3)


def test_gradient_descent_moves_the_step_as_the_paper_does() -> None:
    """One small step of gradient descent changes the step by -rate * scale * equation 3, to first order."""
    fake = activation()
    x = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    fake(x)
    before = float(fake.log_step.detach().exp())
    upstream = torch.randn(2, 50, generator=torch.Generator().manual_seed(1))
    (fake(x) * upstream).sum().backward()
    step = numbers(before)
    (round_learned(x, step, torch.tensor([128 / 255]), -128, 127) * upstream).sum().backward()
    of_paper = grad(step)[0] / math.sqrt(50 * 128)
    rate = 1e-3 * before / abs(of_paper)
    torch.optim.SGD([fake.log_step], lr=rate).step()
    assert float(fake.log_step.detach().exp()) - before == pytest.approx(-rate * of_paper, rel=1e-2)


def test_gradient_of_weight_steps_by_hand() -> None:
    weight = torch.tensor([[1.27, -0.014], [0.5, 0.0]])
    fake = weights(weight)
    with torch.no_grad():
        fake.log_step.copy_(torch.tensor([0.005, 0.5 / 127]).log())  # first channel clips at 0.635
    leaf = weight.clone().requires_grad_()
    out = fake(leaf)
    torch.testing.assert_close(out, torch.tensor([[0.635, -0.015], [0.5, 0.0]]))
    (out * torch.tensor([[2.0, 3.0], [5.0, 7.0]])).sum().backward()
    # -0.014 / 0.005 = -2.8 gets code -3. The end's code 127 is not inside.
    raw = torch.tensor([2.0 * 127 + 3.0 * (-3 + 2.8), 5.0 * 127 + 7.0 * 0])
    expected = raw / math.sqrt(2 * 127) / torch.tensor([0.005, 0.5 / 127])
    torch.testing.assert_close(fake.log_step.grad, expected)
    assert grad(leaf) == [0.0, 3.0, 0.0, 7.0]


def test_starts_from_the_observed_range() -> None:
    fake = activation(symmetric=False)
    fake(torch.tensor([[-1.0, 4.1]]))
    assert float(fake.scale) == pytest.approx(0.02)
    assert int(fake.zero_point) == -128 + 50
    assert float(fake.log_step.detach().exp()) == pytest.approx(0.02)
    fake(torch.tensor([[-100.0, 100.0]]))  # later batches do not move it
    assert float(fake.scale) == pytest.approx(0.02)


def test_a_one_sided_tensor_keeps_its_zero() -> None:
    fake = activation(symmetric=False)
    x = torch.tensor([[0.0, 1.0, 2.55]])
    for _ in range(20):
        fake(x)
        (-1e6 * fake(3 * x).sum()).backward()
        torch.optim.SGD(fake.parameters(), lr=1e-3).step()
    assert float(fake.below.detach()) == 0.0
    assert int(fake.zero_point) == -128


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_no_update_makes_a_step_zero_negative_or_infinite(optimizer: type[torch.optim.Optimizer], sign: float) -> None:
    fake = activation(symmetric=False)
    x = torch.tensor([[-1.0, 0.3, 4.0]])
    fake(x)
    moves = optimizer(fake.parameters(), lr=1e3)  # type: ignore[call-arg]
    for _ in range(5):
        (sign * fake(x)).sum().backward()
        moves.step()
        fake(x)
        assert FLOOR * 0.99 <= float(fake.scale) <= 2.0**40 * 1.01
        assert -128 <= int(fake.zero_point) <= 127


def test_frozen_steps_get_no_gradient_and_evaluation_uses_what_was_learned() -> None:
    fake = activation()
    x = torch.linspace(-2, 2, 64).reshape(2, 32)
    fake(x)
    with torch.no_grad():
        fake.log_step.add_(1.0)
    learned = float(fake.log_step.detach().exp())
    fake.eval()
    assert float(fake.scale) == pytest.approx(learned)
    fake.train()
    fake.disable_observer()
    with torch.no_grad():
        fake.log_step.add_(1.0)
    leaf = x.clone().requires_grad_()
    fake(leaf).sum().backward()
    assert fake.log_step.grad is None
    assert float(fake.eval().scale) == pytest.approx(learned)
    frozen = weights(torch.ones(2, 3))
    with torch.no_grad():
        frozen.log_step.add_(1.0)
    frozen.disable_observer()
    torch.testing.assert_close(frozen.scale, torch.full((2,), math.e / 127))
    frozen(torch.ones(2, 3, requires_grad=True)).sum().backward()
    assert frozen.log_step.grad is None


def test_bfloat16_trains() -> None:
    fake = activation()
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    fake(x).float().square().sum().backward()
    assert fake(x).dtype == torch.bfloat16
    assert fake.log_step.grad is not None
    assert bool(fake.log_step.grad.isfinite())


@pytest.mark.parametrize("quantizer", [name for name in names() if rules(name).ships == "int8"])
def test_a_network_learns_its_steps_and_ships_them(quantizer: str, make: Make, inputs: Inputs) -> None:
    x = inputs("residual")
    model = qat.prepare(make("residual"), (x[:1],), quantizer, rounding=LEARNED)
    qat.calibrate(model, [x])
    starts = {name: p.detach().clone() for name, p in model.named_parameters() if name.endswith("log_step")}
    assert len(starts) == len(list(model.activations())) + len(list(model.weights()))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    target, losses = torch.arange(len(x)) % 10, []
    model.train()
    for step in range(12):
        qat.enter(model, qat.phase(step / 12))
        loss = nn.functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    moved = {name: p.detach() - starts[name] for name, p in model.named_parameters() if name in starts}
    assert all(bool(change.abs().max() > 0) for change in moved.values())
    assert all(bool(change.abs().max() < 0.02) for change in moved.values())  # about a rate of 1e-3 per step
    trained = model(x)
    model.eval()
    with torch.no_grad():
        assert torch.equal(trained, model(x))  # frozen: what trained is what ships
        converted = qat.convert(model)(x)
    assert (converted - trained).abs().max() < 0.02 * trained.abs().max()


def test_state_round_trips_into_a_freshly_prepared_student(make: Make, inputs: Inputs) -> None:
    x = inputs("separable")
    model = qat.prepare(make("separable"), (x[:1],), "onnxruntime_x86", rounding=LEARNED)
    qat.calibrate(model, [x])
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01)
    model.eval()
    again = qat.prepare(make("separable", 5), (x[:1],), "onnxruntime_x86", rounding=LEARNED)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(x), model(x))
