"""Scores: values worked by hand, independent of the batch size, modes put back."""

from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.examples import TensorExamples
from compress.errors import TaskError
from compress.training.evaluate import evaluate, evaluate_teacher, evaluating, outputs_of


class Brightest(nn.Module):
    """The input is the answer."""

    def forward(self, logits: Tensor) -> Tensor:
        return logits


EXAMPLES = TensorExamples(
    torch.tensor([[3.0, 0, 0], [0, 3, 0], [0, 0, 3], [3, 0, 0]]), torch.tensor([0, 1, 1, 0]), "hand"
)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_accuracy_by_hand(toy: ModuleType, batch_size: int) -> None:
    found = evaluate(Brightest(), EXAMPLES, toy.ToyTask(), batch_size=batch_size, outputs=True)
    assert (found.score, found.count) == (0.75, 4)
    assert found.outputs is not None
    assert torch.equal(found.outputs, EXAMPLES.inputs)
    assert torch.equal(outputs_of(Brightest(), EXAMPLES, batch_size=batch_size), EXAMPLES.inputs)


def test_teacher_and_its_network_score_the_same(toy: ModuleType) -> None:
    teacher, examples = toy.teacher(), toy.images(50, 3)
    network = teacher.modules()["network"]
    expected = evaluate(network, examples, toy.ToyTask()).score
    assert evaluate_teacher(teacher, examples, toy.ToyTask(), batch_size=7) == expected


def test_modes_are_put_back(toy: ModuleType) -> None:
    net = toy.network(dropout=0.5).train()
    net.norm.eval()  # a frozen batch norm inside a network that trains
    modes = [part.training for part in net.modules()]
    with evaluating(net):
        assert not any(part.training for part in net.modules())
    assert [part.training for part in net.modules()] == modes


def test_no_examples_and_no_labels_are_refused(toy: ModuleType) -> None:
    empty = TensorExamples(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "empty")
    for call in (lambda: evaluate(Brightest(), empty, toy.ToyTask()),
                 lambda: evaluate_teacher(toy.teacher(), empty, toy.ToyTask())):  # fmt: skip
        with pytest.raises(TaskError, match="no examples"):
            call()
