"""Values worked by hand, and what the bound of LEAF rests on."""

import pytest
import torch
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.signals import Signals
from compress.objectives.l2_align import L2Align, l2_align
from compress.structure.embedding_head import LeafHead, masked_mean, unit

Y = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
TARGET = torch.tensor([[4.0, 3.0], [0.0, 1.0]])


def test_equals_the_values_worked_by_hand() -> None:
    found = l2_align(Y, TARGET)  # (0.6, 0.8) and (0.8, 0.6): 0.04 + 0.04; (1, 0) and (0, 1): 1 + 1
    torch.testing.assert_close(found, torch.tensor([0.08, 2.0]))
    torch.testing.assert_close(found.mean(), torch.tensor(1.04))
    torch.testing.assert_close(2 - 2 * F.cosine_similarity(Y, TARGET), found)


def test_the_mean_over_dimensions_is_smaller_by_their_number() -> None:
    y, target = F.normalize(Y), F.normalize(TARGET)
    torch.testing.assert_close(F.mse_loss(y, target), torch.tensor(0.52))
    torch.testing.assert_close(l2_align(Y, TARGET).mean(), 2 * F.mse_loss(y, target))


def test_without_norm_it_is_the_plain_squared_distance() -> None:
    assert l2_align(Y, TARGET, normalize=False).tolist() == [2.0, 2.0]


def test_the_objective_has_both_of_unit_length_unless_it_is_told_otherwise() -> None:
    batch, clock = Batch((Y,), None, torch.arange(2)), Clock("distill", 0, 1, 0, 1)
    for objective, expected in ((L2Align(), [0.08, 2.0]), (L2Align(normalize=False), [2.0, 2.0])):
        found = objective(Signals(Y), Signals(TARGET), batch, clock)
        torch.testing.assert_close(found, torch.tensor(expected))


def test_gradients_are_those_of_the_distance_and_a_zero_vector_has_a_finite_one() -> None:
    torch.manual_seed(0)
    y, target = (torch.randn(5, 4, dtype=torch.float64) for _ in range(2))
    for normalize in (True, False):
        assert torch.autograd.gradcheck(lambda v, n=normalize: l2_align(v, target, n), [y.clone().requires_grad_()])
    nothing = torch.zeros(2, 4, requires_grad=True)
    l2_align(nothing, torch.ones(2, 4)).sum().backward()
    assert nothing.grad is not None
    assert bool(torch.isfinite(nothing.grad).all())


def test_is_zero_for_equal_vectors_and_nowhere_else() -> None:
    torch.manual_seed(0)
    y = torch.randn(50, 8)
    assert float(l2_align(y, y).max()) <= 1e-10
    assert float(l2_align(y, y.flip(0)).min()) > 1e-3


def test_turning_both_changes_nothing_and_turning_one_does() -> None:
    torch.manual_seed(0)
    y, target = torch.randn(20, 8, dtype=torch.float64), torch.randn(20, 8, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q
    torch.testing.assert_close(l2_align(y @ turn, target @ turn), l2_align(y, target))
    assert not torch.allclose(l2_align(y @ turn, target), l2_align(y, target), atol=0.1)


def test_the_gradient_is_orthogonal_to_the_vector_where_the_norm_is_on() -> None:
    torch.manual_seed(0)
    y = torch.randn(20, 8, dtype=torch.float64, requires_grad=True)
    target = torch.randn(20, 8, dtype=torch.float64, requires_grad=True)
    l2_align(y, target).sum().backward()
    assert y.grad is not None
    assert float((y.grad * y.detach()).sum(dim=1).abs().max()) < 1e-12
    assert float(y.grad.norm(dim=1).min()) > 1e-3
    assert target.grad is None


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\), teacher vectors \(2, 3\)"):
        l2_align(Y, torch.zeros(2, 3))


def test_inner_products_move_by_the_distance_at_most() -> None:
    torch.manual_seed(0)
    for _ in range(1000):
        target, z = (F.normalize(torch.randn(1, 16, dtype=torch.float64)) for _ in range(2))
        y = F.normalize(target + 0.3 * torch.rand(1) * torch.randn(1, 16, dtype=torch.float64))
        away = l2_align(y, target).sqrt()
        assert float(((y - target) * z).sum().abs()) <= float(away) + 1e-12


def test_a_prefix_of_the_difference_grows_with_its_length() -> None:
    torch.manual_seed(0)
    y, target = (F.normalize(torch.randn(100, 16, dtype=torch.float64)) for _ in range(2))
    lengths = torch.stack([(y - target)[:, :k].norm(dim=1) for k in range(1, 17)], dim=1)
    assert bool((lengths.diff(dim=1) >= 0).all())
    torch.testing.assert_close(lengths[:, -1], l2_align(y, target).sqrt())


def test_padding_does_not_reach_the_masked_mean() -> None:
    torch.manual_seed(0)
    states, mask = torch.randn(3, 5, 4), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    longer = torch.cat([states, 1e6 * torch.randn(3, 10, 4)], dim=1)
    padded = torch.cat([mask, torch.zeros(3, 10, dtype=torch.int64)], dim=1)
    for normalize in (True, False):
        head = LeafHead(4, 6, normalize)
        torch.testing.assert_close(head(longer, padded), head(states, mask), rtol=0, atol=0)
    torch.testing.assert_close(masked_mean(states, mask)[1], states[1, :2].mean(dim=0))
    assert masked_mean(states, torch.zeros_like(mask)).abs().max() == 0
    torch.testing.assert_close(head(states, torch.zeros_like(mask)), head.out.bias.expand(3, -1))


def test_the_head_gives_unit_vectors_or_not_and_survives_zeros() -> None:
    states, mask = torch.randn(3, 5, 4), torch.ones(3, 5)
    torch.testing.assert_close(LeafHead(4, 6)(states, mask).norm(dim=1), torch.ones(3))
    raw = LeafHead(4, 6, normalize=False)
    torch.testing.assert_close(unit(raw(states, mask)), LeafHead.forward(_normalising(raw), states, mask))
    assert bool(torch.isfinite(unit(torch.zeros(2, 3))).all())
    torch.testing.assert_close(unit(torch.tensor([[3e-4, 4e-4]])), torch.tensor([[0.6, 0.8]]))


def _normalising(head: LeafHead) -> LeafHead:
    head.normalize = True
    return head
