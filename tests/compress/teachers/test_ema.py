"""The moving average of a student."""

import pytest
import torch
from torch import nn

from compress.contracts.batch import Batch
from compress.taps import Taps
from compress.teachers.ema import EMATeacher


def student(value: float = 0.0) -> nn.Sequential:
    network = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    nn.init.constant_(network[0].weight, value)  # type: ignore[arg-type]
    return network


def batch(*values: float) -> Batch:
    inputs = torch.tensor(values)[:, None]
    return Batch((inputs,), None, torch.arange(len(values)))


def weight(teacher: EMATeacher) -> float:
    return teacher.modules()["average"].state_dict()["0.weight"].item()


def move(network: nn.Sequential, value: float) -> None:
    with torch.no_grad():
        network[0].weight.fill_(value)  # type: ignore[operator]


def test_follows_the_student_by_the_published_formula() -> None:
    network = student(0.0)
    teacher = EMATeacher(network, decay=0.9)
    move(network, 1.0)
    teacher.after_step({"student": network})
    assert weight(teacher) == pytest.approx(0.1)
    teacher.after_step({"student": network})
    assert weight(teacher) == pytest.approx(0.19)  # 0.9 * 0.1 + 0.1 * 1


def test_the_ends_of_the_range_are_a_copy_and_a_constant() -> None:
    network = student(0.0)
    copy, constant = EMATeacher(network, decay=0.0), EMATeacher(network, decay=1.0)
    move(network, 5.0)
    for teacher in (copy, constant):
        teacher.after_step({"student": network})
    assert weight(copy) == 5.0
    assert weight(constant) == 0.0


@pytest.mark.parametrize(("buffers", "expected"), [(True, 0.25), (False, 1.0)])
def test_statistics_are_averaged_or_copied(buffers: bool, expected: float) -> None:
    network = student()
    teacher = EMATeacher(network, decay=0.75, buffers=buffers)
    network[1].running_mean.fill_(1.0)  # type: ignore[operator]
    network[1].num_batches_tracked.fill_(7)  # type: ignore[operator]
    teacher.after_step({"student": network})
    state = teacher.modules()["average"].state_dict()
    assert state["1.running_mean"].item() == expected
    assert state["1.num_batches_tracked"].item() == 7  # a count has no average


def test_in_train_mode_the_batch_normalises_itself_and_leaves_no_trace() -> None:
    teacher = EMATeacher(student(1.0), decay=0.9, mode="train")
    before = {name: value.clone() for name, value in teacher.modules()["average"].state_dict().items()}
    output = teacher.observe(batch(10.0, 12.0)).output
    torch.testing.assert_close(output, torch.tensor([[-1.0], [1.0]]), atol=1e-4, rtol=0)  # BN's epsilon is 1e-5
    for name, value in teacher.modules()["average"].state_dict().items():
        assert torch.equal(value, before[name])


def test_in_eval_mode_examples_do_not_see_each_other() -> None:
    teacher = EMATeacher(student(1.0), decay=0.9)
    teacher.modules()["average"].train()  # as a loop might
    both = teacher.observe(batch(10.0, 12.0)).output
    torch.testing.assert_close(teacher.observe(batch(10.0)).output, both[:1])


def test_the_student_stays_as_it_was() -> None:
    network = student()
    teacher = EMATeacher(network, decay=0.5)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(parameter.requires_grad for parameter in teacher.modules()["average"].parameters())


def test_a_tapped_student_can_be_copied_and_taps_of_the_average_are_its_own() -> None:
    network = student(1.0)
    with Taps(network, ["0"]) as taps:
        network(torch.ones(2, 1))
        teacher = EMATeacher(network, decay=0.5, taps=["0"])
        answer = teacher.observe(batch(3.0, 3.0))
        bias = network[0].bias.item()  # type: ignore[operator]
        assert answer.taps["0"][0].item() == pytest.approx(3.0 + bias)
        assert taps.read()["0"][0].item() == pytest.approx(1.0 + bias)


def test_is_never_cacheable_and_its_fingerprint_moves() -> None:
    network = student()
    teacher = EMATeacher(network, decay=0.5)
    before = teacher.fingerprint
    teacher.after_step({"student": network})
    assert not teacher.cacheable
    assert teacher.fingerprint != before


def test_another_student_or_decay_is_refused() -> None:
    with pytest.raises(ValueError, match="decay"):
        EMATeacher(student(), decay=1.01)
    teacher = EMATeacher(student(), decay=0.5)
    with pytest.raises(ValueError, match="differ in"):
        teacher.after_step({"student": nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))})
