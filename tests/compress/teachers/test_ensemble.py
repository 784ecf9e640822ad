"""Several teachers that answer as one."""

import math

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.errors import TeacherError
from compress.teachers.ema import EMATeacher
from compress.teachers.ensemble import EnsembleTeacher, mean_of_logits, mean_of_probabilities
from compress.teachers.frozen import FrozenTeacher


class Constant(nn.Module):
    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))
        self.inner = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(self.logits).expand(len(x), -1)
        return out


def frozen(*logits: float, taps: tuple[str, ...] = ()) -> FrozenTeacher:
    return FrozenTeacher(Constant(*logits), taps=taps, fingerprint=str(logits))


BATCH = Batch((torch.zeros(2, 1),), None, torch.arange(2))
THREE_TO_ONE, ONE_TO_THREE = (math.log(3.0), 0.0), (0.0, math.log(3.0))


def test_mean_of_logits_by_hand() -> None:
    teacher = EnsembleTeacher({"a": frozen(1.0, 3.0), "b": frozen(3.0, -1.0)})
    assert teacher.observe(BATCH).output.tolist() == [[2.0, 1.0]] * 2


def test_mean_of_probabilities_by_hand() -> None:
    members = {"a": frozen(*THREE_TO_ONE), "b": frozen(*ONE_TO_THREE)}
    teacher = EnsembleTeacher(members, weights=[3, 1], average=mean_of_probabilities)
    p = teacher.observe(BATCH).output.softmax(dim=1)
    # 3/4 * (3/4, 1/4) + 1/4 * (1/4, 3/4)
    torch.testing.assert_close(p, torch.tensor([[0.625, 0.375]] * 2))


def test_a_member_of_weight_zero_does_not_count() -> None:
    for average in (mean_of_logits, mean_of_probabilities):
        teacher = EnsembleTeacher({"a": frozen(*THREE_TO_ONE), "b": frozen(9.0, 0.0)}, weights=[1, 0], average=average)
        p = teacher.observe(BATCH).output.softmax(dim=1)
        torch.testing.assert_close(p, torch.tensor([[0.75, 0.25]] * 2))


def test_order_does_not_matter() -> None:
    stacked = torch.randn(3, 4, 5)
    shares = torch.tensor([0.2, 0.3, 0.5])
    for average in (mean_of_logits, mean_of_probabilities):
        torch.testing.assert_close(average(stacked.flip(0), shares.flip(0)), average(stacked, shares))


def test_taps_and_modules_carry_the_members_name() -> None:
    teacher = EnsembleTeacher({"a": frozen(1.0, 2.0, taps=("inner",)), "b": frozen(3.0, 4.0)})
    assert list(teacher.observe(BATCH).taps) == ["a.inner"]
    assert set(teacher.modules()) == {"a.network", "b.network"}


def test_is_cacheable_if_every_member_is_and_passes_steps_on() -> None:
    student = Constant(0.0, 0.0)
    average = EMATeacher(student, decay=0.0)
    teacher = EnsembleTeacher({"a": frozen(1.0, 1.0), "average": average})
    assert not teacher.cacheable
    assert EnsembleTeacher({"a": frozen(1.0, 1.0)}).cacheable
    with torch.no_grad():
        student.logits.fill_(4.0)
    teacher.after_step({"student": student})
    assert teacher.observe(BATCH).output[0, 0].item() == 2.5


def test_the_fingerprint_covers_members_weights_and_average() -> None:
    a, b = frozen(1.0, 1.0), frozen(2.0, 2.0)
    prints = {
        EnsembleTeacher({"a": a}).fingerprint,
        EnsembleTeacher({"a": a, "b": b}).fingerprint,
        EnsembleTeacher({"a": a, "b": b}, weights=[2, 1]).fingerprint,
        EnsembleTeacher({"a": a, "b": b}, average=mean_of_probabilities).fingerprint,
    }
    assert len(prints) == 4
    assert EnsembleTeacher({"a": a, "b": b}, weights=[2, 2]).fingerprint in prints  # only shares count


def test_members_of_different_tasks_are_refused() -> None:
    with pytest.raises(TeacherError, match=r"'b' answers with shape \(2, 3\), another with \(2, 2\)"):
        EnsembleTeacher({"a": frozen(1.0, 1.0), "b": frozen(1.0, 1.0, 1.0)}).observe(BATCH)


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0], [2.0, -1.0]])
def test_weights_that_cannot_be_used_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="2 members"):
        EnsembleTeacher({"a": frozen(1.0, 1.0), "b": frozen(1.0, 1.0)}, weights=weights)
    with pytest.raises(ValueError, match="0 members"):
        EnsembleTeacher({})
