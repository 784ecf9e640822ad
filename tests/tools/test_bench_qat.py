"""The protocol that every tool is compared under, and what is printed of it."""

import statistics

import pytest
import torch
from torch import nn

from tools import qat_protocol as protocol
from tools.bench_qat import share


def data(count: int = 256) -> protocol.Data:
    x = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = (x.mean((1, 2, 3)) > 0).long()
    return protocol.Data((x, y), (x[:100], y[:100]))


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_every_tool_sees_the_same_pictures_in_the_same_order() -> None:
    seen: list[list[torch.Tensor]] = []
    for _ in range(2):
        network, batches = linear(), []
        network.register_forward_pre_hook(lambda _, inputs, kept=batches: kept.append(inputs[0].clone()))
        torch.manual_seed(len(seen))  # what a tool does with torch's own generator changes nothing
        protocol.train(network, data(), epochs=2, rate=1e-3, seed=5)
        seen.append(batches)
    assert len(seen[0]) == 4
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def test_training_learns_and_tells_its_progress() -> None:
    network, told = linear(), []
    before = protocol.accuracy(network, data())
    protocol.train(network, data(), epochs=10, rate=3e-2, seed=0, before_step=told.append)
    assert protocol.accuracy(network, data()) > max(0.9, before)
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0.0, pytest.approx(19 / 20))


def test_the_teacher_of_a_mirrored_picture_is_asked_for_the_mirror_image() -> None:
    """A student that equals its teacher has nothing to learn from it: only the small weight on labels moves it."""
    found, x = data(), data().train[0]
    teacher = linear()
    soft = protocol.answers(teacher, torch.cat([x, x.flip(3)]))
    moved = []
    for answers in (soft, soft.flip(0)):
        student = linear()
        protocol.train(student, found, epochs=1, rate=1e-3, seed=0, soft=answers)
        with torch.no_grad():
            moved.append(float((student(x) - teacher(x)).abs().mean()))
    assert moved[0] < moved[1]


def test_data_survive_the_way_to_another_process(tmp_path: object) -> None:
    path = tmp_path / "data.npz"  # type: ignore[operator]
    data().save(path)
    again = protocol.Data.load(path)
    assert all(
        torch.equal(a, b) for a, b in zip((*data().train, *data().test), (*again.train, *again.test), strict=True)
    )


def test_ratios_are_taken_within_a_round() -> None:
    times = {"plain": [1.0, 10.0, 1.0], "other": [1.2, 12.0, 1.2]}  # a machine that slows down meanwhile
    assert protocol.ratio(times, "other")[0] == pytest.approx(1.2)
    assert statistics.mean(times["other"]) / statistics.median(times["plain"]) > 4


def test_a_share_is_won_back_only_of_a_loss_that_stands_out() -> None:
    assert share([0.02, 0.021, 0.019], [0.005, 0.005, 0.005]) == "75 %"
    assert "no loss" in share([0.003, -0.002, 0.001], [-0.03, -0.03, -0.03])  # more training is no recovery
    assert "no loss" in share([0.003], [-0.03])  # one seed tells no spread
