"""A trained network that no longer changes."""

import pytest
import torch
from torch import nn

from compress.contracts.batch import Batch
from compress.errors import RecipeError
from compress.teachers.frozen import FrozenTeacher


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


def batch(size: int = 5) -> Batch:
    return Batch((torch.rand(size, 3, generator=torch.Generator().manual_seed(1)),), None, torch.arange(size))


def test_answers_in_eval_mode_whatever_was_done_to_the_network() -> None:
    inner = network()
    teacher = FrozenTeacher(inner, fingerprint="f")
    first = teacher.observe(batch()).output
    inner.train()
    torch.testing.assert_close(teacher.observe(batch()).output, first, rtol=0, atol=0)
    assert inner[1].num_batches_tracked == 0  # type: ignore[comparison-overlap]


def test_no_gradient_and_nothing_that_an_optimiser_would_move() -> None:
    inner = network()
    answer = FrozenTeacher(inner, taps=["0"], fingerprint="f").observe(batch())
    assert not answer.output.requires_grad
    assert not answer.taps["0"].requires_grad
    assert not any(parameter.requires_grad for parameter in inner.parameters())


def test_its_answers_may_be_part_of_a_loss() -> None:
    answer = FrozenTeacher(network(), fingerprint="f").observe(batch()).output
    student = torch.rand(5, 2, requires_grad=True)
    (student * answer).sum().backward()  # saves the teacher's answer for the backward pass
    assert torch.equal(student.grad, answer)  # type: ignore[arg-type]


def test_taps_are_features_by_module_name() -> None:
    inner = network()
    teacher = FrozenTeacher(inner, taps=["1", "0"], fingerprint="f")
    answer = teacher.observe(batch())
    assert list(answer.taps) == ["1", "0"]
    torch.testing.assert_close(answer.taps["0"], inner[0](batch().inputs[0]))
    teacher.close()
    assert not inner[0]._forward_hooks


def test_a_wrong_tap_is_refused() -> None:
    with pytest.raises(RecipeError, match="no module called 'layer4'"):
        FrozenTeacher(network(), taps=["layer4"], fingerprint="f")


def test_float32_whatever_the_precision_of_the_pass() -> None:
    teacher = FrozenTeacher(network(), taps=["0"], fingerprint="f")
    with torch.autocast("cpu", torch.bfloat16):
        answer = teacher.observe(batch())
    assert answer.output.dtype == torch.float32
    assert answer.taps["0"].dtype == torch.float32


def test_is_cacheable_under_its_fingerprint() -> None:
    teacher = FrozenTeacher(network(), fingerprint="abc")
    assert teacher.cacheable
    assert teacher.fingerprint == "abc"
