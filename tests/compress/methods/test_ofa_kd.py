"""OFA-KD: the specification's values, its pitfalls, branches that find their stages and leave nothing behind."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.method import Method
from compress.contracts.objective import Objective
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.contracts.task import TrainingNumbers
from compress.errors import RecipeError, TaskError
from compress.methods.ofa_kd import (
    METHOD,
    AdaptiveTargets,
    Branches,
    adaptive_target_loss,
    adaptive_weights,
    paper_weights,
)
from compress.objectives.features import Features
from compress.objectives.labels import Labels
from compress.reproduction import bed
from compress.spaces.mixer import Plan as MixerPlan
from compress.spaces.mixer import mixer_network
from compress.spaces.transformer_encoder import Plan, encoder_network
from compress.teachers.frozen import FrozenTeacher
from exporters import torch_to_onnx

CLOCK = Clock("distill", 0, 1, 0, 1)
STUDENT, TEACHER = (torch.tensor([z], dtype=torch.float64) for z in ([1.0, 2.0, 0.5], [3.0, 1.0, 2.0]))
UNSURE = tuple(torch.tensor([z], dtype=torch.float64) for z in ([0.2, -1.0, 1.5, 0.0], [2.0, 0.5, -0.5, 1.0]))
CLASS_0, CLASS_2 = torch.tensor([0]), torch.tensor([2])
EXACT = 5e-9  # the values have eight digits


@pytest.mark.parametrize(("exponent", "expected"), [(1.0, 1.49670245), (1.5, 1.93277420), (2.0, 2.71778000)])
def test_equals_the_values_worked_by_hand(exponent: float, expected: float) -> None:
    assert adaptive_target_loss(STUDENT, TEACHER, CLASS_0, exponent).item() == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize(("exponent", "expected"), [(1.0, 2.96107123), (1.5, 3.66932223), (2.0, 4.58327918)])
def test_the_papers_form_equals_the_values_worked_by_hand(exponent: float, expected: float) -> None:
    loss = adaptive_target_loss(STUDENT, TEACHER, CLASS_0, exponent, weights=paper_weights)
    assert loss.item() == pytest.approx(expected, abs=EXACT)


def test_with_the_exponent_one_it_is_the_cross_entropy_to_the_teacher_and_the_papers_form_has_the_labels_too() -> None:
    loss = adaptive_target_loss(STUDENT, TEACHER, CLASS_0, 1.0)
    torch.testing.assert_close(loss, F.cross_entropy(STUDENT, TEACHER.softmax(1), reduction="none"))
    paper = adaptive_target_loss(STUDENT, TEACHER, CLASS_0, 1.0, weights=paper_weights)
    torch.testing.assert_close(paper - loss, F.cross_entropy(STUDENT, CLASS_0, reduction="none"))
    assert F.cross_entropy(STUDENT, CLASS_0).item() == pytest.approx(1.46436878, abs=EXACT)


def test_a_teacher_that_misses_the_class() -> None:
    student, teacher = UNSURE
    assert adaptive_target_loss(student, teacher, CLASS_2, 1.0).item() == pytest.approx(1.89622996, abs=EXACT)
    assert teacher.softmax(1)[0, 2].item() == pytest.approx(0.0491, abs=5e-5)
    student = student.clone().requires_grad_()
    loss = adaptive_target_loss(student, teacher, CLASS_2, 1.5)
    assert loss.item() == pytest.approx(1.19102019, abs=EXACT)
    (slope,) = torch.autograd.grad(loss.sum(), student)
    expected = torch.tensor([[-0.34317541, -0.01288906, 0.36181629, -0.00575182]], dtype=torch.float64)
    torch.testing.assert_close(slope, expected, atol=EXACT, rtol=0.0)
    weights = adaptive_weights(teacher, CLASS_2, 1.5)
    torch.testing.assert_close(
        weights,
        torch.tensor([[0.46208222, 0.04870311, 0.07448807, 0.10310448]], dtype=torch.float64),
        atol=EXACT,
        rtol=0.0,
    )
    assert weights.sum().item() == pytest.approx(0.68837787, abs=EXACT)
    best = weights / weights.sum()
    torch.testing.assert_close(
        best, torch.tensor([[0.6713, 0.0708, 0.1082, 0.1498]], dtype=torch.float64), atol=5e-5, rtol=0.0
    )
    least = best.log().requires_grad_()
    (flat,) = torch.autograd.grad(adaptive_target_loss(least, teacher, CLASS_2, 1.5).sum(), least)
    assert flat.abs().max() < 1e-12


def test_temperature_softens_both_sides_without_a_factor() -> None:
    halved = adaptive_target_loss(STUDENT / 2, TEACHER / 2, CLASS_0, 1.5)
    torch.testing.assert_close(adaptive_target_loss(STUDENT, TEACHER, CLASS_0, 1.5, temperature=2.0), halved)


def test_of_mixed_labels_the_largest_counts() -> None:
    mixed = torch.tensor([[0.3, 0.1, 0.6]])
    torch.testing.assert_close(
        adaptive_target_loss(STUDENT, TEACHER, mixed, 1.5), adaptive_target_loss(STUDENT, TEACHER, CLASS_2, 1.5)
    )


def test_a_student_that_is_certain_and_wrong_has_a_finite_loss_in_half_precision() -> None:
    """The published code takes the logarithm of a softmax that is 0 there."""
    student, teacher = torch.tensor([[-80.0, 80.0]]).half(), torch.tensor([[9.0, -9.0]]).half()
    loss = adaptive_target_loss(student, teacher, CLASS_0, 1.5)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(160 * (2**1.5 - 1), rel=1e-4)


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    adaptive_target_loss(student, teacher, CLASS_0, 1.5).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_the_gradient_is_that_of_the_value_and_sums_to_zero() -> None:
    student = UNSURE[0].clone().requires_grad_()
    for weights in (adaptive_weights, paper_weights):
        assert torch.autograd.gradcheck(
            lambda z, w=weights: adaptive_target_loss(z, UNSURE[1], CLASS_2, 1.3, 2.0, w), (student,)
        )
        (slope,) = torch.autograd.grad(adaptive_target_loss(student, UNSURE[1], CLASS_2, 1.3, 2.0, weights), student)
        assert abs(slope.sum().item()) < 1e-12


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_logits_far_apart_stay_finite(kind: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], dtype=kind, requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0.0]], dtype=kind)
    loss = adaptive_target_loss(student, teacher, CLASS_0, 1.5)
    # the teacher gives the true class nothing, and class 1 all: weights (1 + 0)^g - 1 = 0 and 1
    torch.testing.assert_close(loss, torch.tensor([2e4]), rtol=2**-8, atol=0)  # bfloat16 holds 8 bits
    loss.sum().backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_objectives_have_the_recipes_numbers() -> None:
    said, taught_by = Signals(STUDENT), Signals(TEACHER)
    batch = Batch((STUDENT,), CLASS_0, CLASS_0)
    assert AdaptiveTargets()(said, taught_by, batch, CLOCK).item() == pytest.approx(1.49670245, abs=EXACT)
    assert AdaptiveTargets(2.0)(said, taught_by, batch, CLOCK).item() == pytest.approx(2.71778000, abs=EXACT)
    paper = AdaptiveTargets(1.5, form="paper")
    assert paper(said, taught_by, batch, CLOCK).item() == pytest.approx(3.66932223, abs=EXACT)
    softer = AdaptiveTargets(1.5, 3.0)(said, taught_by, batch, CLOCK)
    torch.testing.assert_close(softer, adaptive_target_loss(STUDENT, TEACHER, CLASS_0, 1.5, 3.0))
    features = torch.randn(1, 5, dtype=torch.float64)
    tapped, nothing = Signals(STUDENT, taps={"a": features}), pictures(1)
    branches = Branches(1.5, stages="a", temperature=3.0, form="paper")
    assert branches.student_taps == ("a",)
    preparation = Preparation(
        Splits(nothing, nothing, nothing), lambda split: iter(()), tapped, taught_by, 3, 0, lambda z, y: z[:, 0]
    )
    branches.prepare(preparation)
    logits = branches.double().branches[0](features)
    expected = adaptive_target_loss(logits, TEACHER, CLASS_0, 1.5, 3.0, paper_weights)
    torch.testing.assert_close(branches(tapped, taught_by, batch, CLOCK), expected)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="teacher logits"):
        adaptive_target_loss(STUDENT, TEACHER[:, :2], CLASS_0, 1.0)
    five = torch.zeros(5, 3)
    for labels in (CLASS_0, torch.zeros(5, 4), torch.zeros(5, 3, 1)):  # one label would be broadcast to all five
        with pytest.raises(ValueError, match="labels"):
            adaptive_target_loss(five, five, labels, 1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: AdaptiveTargets(0.9),
        lambda: AdaptiveTargets(float("inf")),
        lambda: AdaptiveTargets(float("nan")),
        lambda: AdaptiveTargets(temperature=float("nan")),
        lambda: AdaptiveTargets(temperature=-1.0),
        lambda: AdaptiveTargets(temperature=0.0),
        lambda: AdaptiveTargets(form="mine"),
        lambda: Branches(stages=0),
        lambda: Branches(branch="heavy"),
        lambda: Branches(stages=("body",), branch="full"),
        lambda: Branches(exponents=(1.0, 1.2)),
        lambda: Branches(exponents=(1.0, 1.2, 1.2, 0.5)),
        lambda: Branches(grid=0),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(make: type) -> None:
    with pytest.raises(RecipeError) as refusal:
        make()
    assert refusal.value.fix


def test_streams_without_labels_are_refused() -> None:
    batch, said = Batch((STUDENT,), None, CLASS_0), Signals(STUDENT)
    with pytest.raises(TaskError, match="without labels"):
        AdaptiveTargets()(said, said, batch, CLOCK)


def pictures(count: int) -> TensorExamples:
    source = torch.Generator().manual_seed(count)
    labels = torch.randint(10, (count,), generator=source)
    images = torch.randn(count, 1, 14, 14, generator=source) + labels.view(-1, 1, 1, 1) / 5
    return TensorExamples(images, labels, f"pictures {count}")


STUDENTS = {
    "cnn": lambda: bed.cnn((4, 6, 8), 10),
    "mlp": lambda: bed.mlp((12, 8), 10),
    "transformer": lambda: encoder_network(Plan(False, 2, 16, 2, 1, 4), (1, 14, 14), 10),
    "mixer": lambda: mixer_network(MixerPlan(False, 2, 16, 16, 1, 4), (1, 14, 14), 10),
}


def taught(student: nn.Module, branches: Objective, **more: Objective) -> nn.Module:
    splits = Splits(pictures(40), pictures(4), pictures(2))
    teacher = FrozenTeacher(bed.seeded(9, lambda: bed.cnn((6, 6), 10)), fingerprint="teacher")
    return bed.taught(
        student,
        splits,
        TrainingNumbers(1, 20, 1e-2),
        0,
        objectives={"branches": branches, "labels": Labels(), **more},
        teachers={"teacher": teacher},
    )


ENDS = {  # of students with fewer than four stages: each has a branch once
    "cnn": ("stage 1 of 4", "stage 2 of 4", "stage 4 of 4"),
    "mlp": ("stage 2 of 4", "stage 4 of 4"),
}


@pytest.mark.parametrize("branch", ["light", "full"])
@pytest.mark.parametrize("family", STUDENTS)
def test_branches_answer_in_logits_for_every_family_and_are_trained(family: str, branch: str) -> None:
    made = Branches(1.2, branch=branch)
    shapes: list[tuple[int, ...]] = []
    student = STUDENTS[family]()
    before = {name: value.clone() for name, value in student.state_dict().items()}

    class Watched(Labels):
        def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
            for name, one in zip(ENDS.get(family, made.student_taps), made.branches, strict=True):
                shapes.append(tuple(one(student.taps[name]).shape))
            return super().forward(student, teacher, batch, clock)

    taught(student, made, watched=Watched())
    assert set(shapes) == {(20, 10)}
    assert len(made.branches) == len(ENDS.get(family, made.student_taps))
    assert list(student.state_dict()) == list(before)
    assert any(not torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert not any(module._forward_hooks for module in student.modules())
    assert all(bool(p.detach().any()) for one in made.branches for n, p in one.named_parameters() if n == "head.bias")


def test_the_sum_over_stages_has_an_exponent_for_each() -> None:
    torch.manual_seed(0)
    one, other = Branches((1.0, 2.0), stages=("a", "b")), Branches(1.0, stages=("a",))
    logits, features = torch.randn(3, 4), torch.randn(3, 5, 2, 2)
    said = Signals(logits, taps={"a": features, "b": features})
    batch = Batch((logits,), torch.tensor([0, 1, 3]), torch.arange(3))
    nothing = pictures(1)
    splits = Splits(nothing, nothing, nothing)
    for objective in (one, other):
        objective.prepare(Preparation(splits, lambda split: iter(()), said, said, 4, 0, lambda z, y: z[:, 0]))
    assert batch.labels is not None
    expected = sum(
        adaptive_target_loss(branch(features), logits, batch.labels, exponent)
        for branch, exponent in zip(one.branches, (1.0, 2.0), strict=True)
    )
    torch.testing.assert_close(one(said, said, batch, CLOCK), expected)
    other.branches = one.branches[:1]
    second = adaptive_target_loss(one.branches[1](features), logits, batch.labels, 2.0)
    torch.testing.assert_close(other(said, said, batch, CLOCK) + second, expected)


def pair(family: str) -> tuple[nn.Module, nn.Module]:
    """A student without branches, and one from the same weights with the published ones."""
    students = [taught(bed.seeded(3, STUDENTS[family]), made) for made in (AdaptiveTargets(), Branches(branch="full"))]
    return students[0], students[1]


@pytest.mark.parametrize("family", STUDENTS)
def test_the_captured_graph_is_that_of_a_plain_student(family: str) -> None:
    example = (torch.randn(2, 1, 14, 14),)
    plain, branched = (torch.export.export(student, example, strict=False) for student in pair(family))
    assert str(plain.graph) == str(branched.graph)
    assert list(plain.state_dict) == list(branched.state_dict)


def test_the_exported_graph_is_that_of_a_plain_student(tmp_path: Path) -> None:
    graphs = []
    for number, student in enumerate(pair("cnn")):
        torch_to_onnx.convert(
            student,
            (torch.randn(2, 1, 14, 14),),
            tmp_path / f"{number}.onnx",
            opset=20,
            input_names=("input",),
            output_names=("logits",),
            metadata={},
        )
        graph = onnx.load(tmp_path / f"{number}.onnx").graph
        nodes = [(node.name, node.op_type, tuple(node.input), tuple(node.output)) for node in graph.node]
        graphs.append((nodes, [(tensor.name, tuple(tensor.dims)) for tensor in graph.initializer]))
    assert graphs[0] == graphs[1]


def test_the_quantised_student_goes_on_with_its_own_logits() -> None:
    assert METHOD.quantized is not None
    assert set(METHOD.quantized.objectives) == {"labels", "adaptive_targets"}
    assert set(METHOD.objectives) == {"labels", "adaptive_targets", "branches"}
    assert all(METHOD.weights[name] == 1.0 for name in METHOD.objectives)


def test_hints_between_families_need_no_names() -> None:
    student = STUDENTS["mixer"]()
    splits = Splits(pictures(40), pictures(4), pictures(2))
    module = bed.seeded(9, lambda: bed.cnn((6, 6, 8, 9), 10))
    features = Features()
    teacher = FrozenTeacher(module, taps=features.teacher_taps, fingerprint="teacher")
    bed.taught(
        student,
        splits,
        TrainingNumbers(1, 20, 1e-2),
        0,
        method=Method("a test", {"features": Features, "labels": Labels}),
        objectives={"features": features, "labels": Labels()},
        teachers={"teacher": teacher},
    )
    assert [tuple(p.weight.shape) for p in features.projections] == [(6, 16, 1, 1)]
