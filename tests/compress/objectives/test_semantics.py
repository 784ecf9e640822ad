"""The loss against the distance of autograd's gradients, classifiers of other widths, refusals."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.errors import RecipeError, TaskError
from compress.objectives.semantics import Semantics
from compress.similarity import semantic_distance

CLOCK = Clock("distill", 0, 1, 0, 1)
LABELS = torch.tensor([0, 2, 1, 1, 0, 2])


def side(width: int, seed: int, *, pooled: bool = True) -> tuple[Signals, nn.Linear]:
    torch.manual_seed(seed)
    head = nn.Linear(width, 3)
    vectors = torch.randn(6, width, requires_grad=True)
    tap = vectors if pooled else vectors[:, :, None, None]
    return Signals(head(vectors), taps={"pool": tap}), head


def batch(labels: Tensor | None = LABELS) -> Batch:
    return Batch((torch.zeros(6, 1),), labels, torch.arange(6))


def prepared(student: Signals, teacher: Signals) -> Semantics:
    objective = Semantics("pool", "pool")
    data = TensorExamples(torch.zeros(6, 1), LABELS, "toy")
    objective.prepare(
        Preparation(
            Splits(data, data, data),
            lambda split: iter(()),
            student,
            teacher,
            3,
            0,
            lambda output, labels: F.cross_entropy(output, labels, reduction="none"),
        )
    )
    return objective


@pytest.mark.parametrize("pooled", [True, False])
def test_is_the_distance_of_the_gradients_that_autograd_finds(pooled: bool) -> None:
    (student, ours), (teacher, theirs) = side(5, 1, pooled=pooled), side(5, 2, pooled=pooled)
    values = prepared(student, teacher)(student, teacher, batch(), CLOCK)
    for signals, head in ((student, ours), (teacher, theirs)):
        F.cross_entropy(signals.output, LABELS).backward(inputs=[head.weight], retain_graph=True)
    assert ours.weight.grad is not None
    assert theirs.weight.grad is not None
    assert values.shape == (3,)
    torch.testing.assert_close(values.mean(), semantic_distance(ours.weight.grad, theirs.weight.grad))


def test_other_widths_meet_through_a_trained_map() -> None:
    (student, _), (teacher, _) = side(4, 1), side(7, 2)
    objective = prepared(student, teacher)
    assert [tuple(p.shape) for p in objective.parameters()] == [(7, 4)]
    objective(student, teacher, batch(), CLOCK).mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in objective.parameters())
    assert teacher.taps["pool"].grad is None
    grad = student.taps["pool"].grad
    assert grad is not None
    assert grad.abs().max() > 0


def test_training_on_it_brings_the_classifiers_together() -> None:
    (_, head), (teacher, _) = side(5, 1), side(5, 2)
    objective, vectors = Semantics("pool", "pool"), torch.randn(6, 5, requires_grad=True)
    optimiser = torch.optim.Adam([vectors, *head.parameters()], lr=0.05)
    found = []
    for _step in range(80):
        student = Signals(head(vectors), taps={"pool": vectors})
        loss = objective(student, teacher, batch(), CLOCK).mean()
        found.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert found[-1] < 0.3 * found[0]


def test_maps_and_dense_outputs_are_refused() -> None:
    (student, _), (teacher, _) = side(5, 1), side(5, 2)
    with pytest.raises(RecipeError, match=r"'pool' of the student gives \(6, 5, 2, 2\)"):
        prepared(Signals(student.output, taps={"pool": torch.zeros(6, 5, 2, 2)}), teacher)
    with pytest.raises(RecipeError, match=r"teacher's output is \(6, 3, 8, 8\)"):
        prepared(student, Signals(torch.zeros(6, 3, 8, 8), taps=teacher.taps))


@pytest.mark.parametrize("labels", [None, torch.zeros(6), torch.zeros(6, 2, dtype=torch.int64)])
def test_labels_that_are_no_class_indices_are_refused(labels: Tensor | None) -> None:
    (student, _), (teacher, _) = side(5, 1), side(5, 2)
    with pytest.raises(TaskError, match="class index"):
        prepared(student, teacher)(student, teacher, batch(labels), CLOCK)
