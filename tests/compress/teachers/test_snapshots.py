"""Votes worked by hand; a bank keeps the newest, and what it keeps stays."""

import pytest
import torch
from torch import nn

from compress.teachers.snapshots import SnapshotBank, hard_vote, soft_vote

THREE = [torch.tensor([row]) for row in ((0.7, 0.2, 0.1), (0.4, 0.5, 0.1), (0.45, 0.5, 0.05))]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


def test_votes_worked_by_hand_and_the_two_ways_differ() -> None:
    soft, hard = soft_vote(THREE), hard_vote(THREE)
    torch.testing.assert_close(soft, torch.tensor([[0.51666667, 0.4, 0.08333333]]))
    torch.testing.assert_close(hard, torch.tensor([[1 / 3, 2 / 3, 0.0]]))
    assert int(soft.argmax()) == 0
    assert int(hard.argmax()) == 1


@pytest.mark.parametrize("vote", [soft_vote, hard_vote])
def test_a_vote_is_a_distribution_and_does_not_know_the_order(vote: type[torch.Tensor]) -> None:
    voters = [torch.softmax(torch.randn(5, 7), dim=1) for _ in range(4)]
    torch.testing.assert_close(vote(voters).sum(dim=1), torch.ones(5))
    torch.testing.assert_close(vote(voters), vote(voters[::-1]))


def test_averaging_probabilities_is_not_averaging_logits() -> None:
    logits = [torch.tensor([[4.0, 0.0]]), torch.tensor([[-1.0, 0.0]])]
    mean = soft_vote([torch.softmax(z, dim=1) for z in logits])
    assert not torch.allclose(mean, torch.softmax(torch.stack(logits).mean(dim=0), dim=1), atol=0.05)


def test_the_newest_are_kept_and_do_not_change_when_training_goes_on() -> None:
    bank, student = SnapshotBank(3), network()
    taken = []
    for step in range(4):
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.fill_(float(step))
        student.train()(torch.randn(8, 3) + step)
        bank.push(student)
        taken.append({name: value.clone() for name, value in student.state_dict().items()})
    assert len(bank) == 3
    with torch.no_grad():
        for value in [*student.parameters(), *(b for b in student.buffers() if b.is_floating_point())]:
            value.add_(100.0)
    bank.probabilities(torch.randn(8, 3))
    for snapshot, kept in zip(bank.snapshots(), taken[1:], strict=True):
        assert all(torch.equal(snapshot.state_dict()[name], kept[name]) for name in kept)


def test_a_snapshot_normalises_by_the_batch_answers_the_same_twice_and_gives_no_gradient() -> None:
    student = network()
    student[1].running_mean.fill_(50.0)  # type: ignore[union-attr,operator]
    bank = SnapshotBank(1)
    bank.push(student)
    x = torch.randn(16, 3)
    first, second = bank.probabilities(x)[0], bank.probabilities(x)[0]
    torch.testing.assert_close(first, second)
    student.train()
    student[2].eval()
    torch.testing.assert_close(first, torch.softmax(student(x), dim=1))  # and not by the misleading running mean
    assert not first.requires_grad


def test_temperature_softens() -> None:
    bank = SnapshotBank(1)
    bank.push(nn.Linear(2, 3))
    x = torch.randn(4, 2)
    logits = bank.snapshots()[0](x)
    torch.testing.assert_close(bank.probabilities(x, 4.0)[0], torch.softmax(logits / 4.0, dim=1))


def test_a_bank_of_none_never_votes() -> None:
    bank = SnapshotBank(0)
    bank.push(network())
    assert bank.probabilities(torch.randn(2, 3)) == []
    with pytest.raises(ValueError, match="-1"):
        SnapshotBank(-1)
