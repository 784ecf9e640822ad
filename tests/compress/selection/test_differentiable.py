"""The search loop: plain where it must be plain, equal for equal seeds, and that it learns."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.task import Task
from compress.errors import RecipeError
from compress.objectives.votes import vote_divergence
from compress.selection.bilevel import second_order
from compress.selection.differentiable import EpochLog, SearchNumbers, SelfTeacher, halves, search
from compress.structure.cell_network import Skeleton
from compress.structure.statistics import frozen_statistics
from compress.structure.supernet import Supernet
from compress.teachers.snapshots import SnapshotBank, hard_vote, soft_vote

SHAPE = (1, 4, 4)
NUMBERS = SearchNumbers(epochs=3, batch_size=16, rate=0.05, alpha_rate=0.02)
SAME = 1e-6


class Bright(Task):
    """Whether a picture is dark or bright."""

    name = "bright"
    labels = ("dark", "bright")
    input_shape = SHAPE

    def load(self, data: object) -> Splits:
        raise NotImplementedError

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        raise NotImplementedError


def examples(count: int = 64) -> TensorExamples:
    source = torch.Generator().manual_seed(0)
    y = torch.arange(count) % 2
    x = torch.randn(count, *SHAPE, generator=source)
    x[y == 1] += 1.0
    return TensorExamples(x, y, "bright")


def supernet() -> Supernet:
    torch.manual_seed(0)
    return Supernet(Skeleton(1, 4, (1,)), SHAPE, 2, ("none", "skip", "conv_1x1", "conv_3x3"), nodes=2)


class Past:
    """Votes of epoch snapshots."""

    def __init__(self, size: int, vote: Callable[[Sequence[Tensor]], Tensor] = soft_vote) -> None:
        self.bank, self.vote, self.seen = SnapshotBank(size), vote, 0

    def term(self, features: Tensor, logits: Tensor) -> Tensor | None:
        self.seen += 1
        found = self.bank.probabilities(features)
        return vote_divergence(logits, self.vote(found)) if found else None

    def after_step(self, supernet: Supernet) -> None: ...

    def after_epoch(self, supernet: Supernet) -> None:
        self.bank.push(supernet)


def trained(
    teacher: SelfTeacher | None = None, weight: float = 1.0, numbers: SearchNumbers = NUMBERS, seed: int = 0
) -> tuple[Supernet, list[EpochLog]]:
    network, data = supernet(), examples()
    parts = halves(64, 64, 0)
    logs = search(network, nn.Identity(), Bright(), data, parts, numbers, seed=seed, teacher=teacher, weight=weight)
    return network, logs


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_without_weight_or_voters_it_is_plain_darts_bit_by_bit() -> None:
    plain, _ = trained()
    assert same(plain, trained(Past(3), weight=0.0)[0])
    assert same(plain, trained(Past(0))[0])
    assert not same(plain, trained(Past(3))[0])


def test_a_teacher_equal_to_the_student_adds_no_gradient() -> None:
    network = supernet().train()
    bank = SnapshotBank(2)
    for _ in range(2):
        bank.push(network)
    data = examples()
    with frozen_statistics(network):
        logits = network(data.inputs)
        supervised = F.cross_entropy(logits, data.labels)
        term = vote_divergence(logits, soft_vote(bank.probabilities(data.inputs))).mean()
        parameters = [*network.weights(), network.alpha]
        plain = torch.autograd.grad(supervised, parameters, retain_graph=True)
        both = torch.autograd.grad(supervised + term, parameters)
    for one, other in zip(plain, both, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=SAME)


def test_the_halves_are_disjoint_and_cover_what_was_drawn() -> None:
    parts = halves(7, 20, 3)
    assert (len(parts.weights), len(parts.alpha)) == (4, 3)
    assert len(set(torch.cat([parts.weights, parts.alpha]).tolist())) == 7
    assert torch.equal(halves(7, 20, 3).alpha, parts.alpha)


def test_it_learns_and_the_same_seed_gives_the_same_bits() -> None:
    longer = replace(NUMBERS, epochs=8)
    network, logs = trained(Past(3), numbers=longer)
    assert logs[-1].train_loss < 0.8 * logs[0].train_loss
    assert logs[-1].entropy < logs[0].entropy
    assert [log.self_loss == 0.0 for log in logs] == [True] + 7 * [False]
    assert same(network, trained(Past(3), numbers=longer)[0])
    assert not same(network, trained(Past(3), numbers=longer, seed=1)[0])


def test_the_vote_and_the_order_of_the_gradient_matter() -> None:
    soft, _ = trained(Past(2))
    assert not same(soft, trained(Past(2, hard_vote))[0])
    second, logs = trained(Past(2), numbers=replace(NUMBERS, alpha_gradient=second_order))
    assert not torch.equal(second.alpha, soft.alpha)
    assert torch.isfinite(second.alpha).all()
    assert logs[-1].train_loss < logs[0].train_loss


def test_the_architecture_follows_the_vote_only_where_asked() -> None:
    past, both = Past(1), Past(1)
    trained(past)
    trained(both, numbers=replace(NUMBERS, teach_alpha=True))
    # The ramp starts at zero, and nobody is asked at no strength.
    assert (past.seen, both.seen) == (3 * 2 - 1, 2 * (3 * 2 - 1))


def test_a_penalty_moves_the_mixture() -> None:
    network, data = supernet(), examples()

    def only_wires(mixture: Tensor) -> Tensor:
        return 100.0 * mixture[:, 2:].sum()

    search(network, nn.Identity(), Bright(), data, halves(64, 64, 0), NUMBERS, seed=0, penalty=only_wires)
    shares = torch.softmax(network.alpha, dim=1)
    assert (shares[:, :2].min(dim=1).values > shares[:, 2:].max(dim=1).values).all()


@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_running_statistics_follow_the_batches_of_the_weights_alone(progress: float) -> None:
    network, data = supernet(), examples()
    data.inputs[halves(64, 64, 0).alpha] += 1000.0 * progress  # the architecture's half is far away
    search(network, nn.Identity(), Bright(), data, halves(64, 64, 0), replace(NUMBERS, alpha_rate=0.0), seed=0)
    assert float(network.stem[0][1].running_mean.abs().max()) < 10.0  # type: ignore[index,union-attr,operator]


def test_a_rate_below_the_usual_end_stays_where_it_is() -> None:
    before = supernet()
    after, _ = trained(numbers=replace(NUMBERS, rate=1e-9, weight_decay=0.0))
    moved = max(float((a - b).detach().abs().max()) for a, b in zip(after.weights(), before.weights(), strict=True))
    assert 0.0 < moved < 1e-6


def test_a_supernet_that_diverges_is_told_with_its_rates() -> None:
    data = examples()
    data.inputs[3] = torch.inf
    with pytest.raises(RecipeError, match=r"diverged in epoch 1 of 3: its losses are nan") as refusal:
        search(supernet(), nn.Identity(), Bright(), data, halves(64, 64, 0), NUMBERS, seed=0)
    assert "0.05 and 0.02" in (refusal.value.fix or "")
