"""Weights taken from a teacher of another shape: values worked by hand, what goes together, what is left alone."""

import torch
from torch import nn

from compress.structure.inherit import inherited, layers, matched, resized


def perceptron(hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, 2))


def test_the_most_important_units_are_taken_on_both_sides() -> None:
    teacher, student = perceptron(4), perceptron(2)
    with torch.no_grad():
        # Units 1 and 3 have the largest weights on either side.
        teacher[0].weight.copy_(torch.tensor([[0.1, 0.0], [3.0, 1.0], [0.0, 0.1], [1.0, -4.0]]))
        teacher[0].bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        teacher[2].weight.copy_(torch.tensor([[0.1, 5.0, 0.1, 6.0], [0.0, 7.0, 0.0, 8.0]]))
    before = {key: value.clone() for key, value in student.state_dict().items()}
    x = torch.randn(3, 2)
    found = inherited(student, teacher, x, x)
    assert found["0.weight"].tolist() == [[3.0, 1.0], [1.0, -4.0]]
    assert found["0.bias"].tolist() == [2.0, 4.0]
    assert found["2.weight"].tolist() == [[5.0, 6.0], [7.0, 8.0]]
    assert torch.equal(found["2.bias"], teacher[2].bias)
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())


def test_a_wider_student_keeps_its_draws_beside_the_teachers_units() -> None:
    teacher, student = perceptron(2), perceptron(3)
    x = torch.randn(3, 2)
    found = inherited(student, teacher, x, x)
    assert torch.equal(found["0.weight"][:2], teacher[0].weight)
    assert torch.equal(found["0.weight"][2], student[0].weight[2])
    assert torch.equal(found["2.weight"][:, :2], teacher[2].weight)


def test_a_student_of_the_teachers_shape_becomes_the_teacher() -> None:
    def network() -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12 * 25, 3),
        )

    torch.manual_seed(0)
    teacher, student = network().eval(), network().eval()
    for norm in (teacher[1], teacher[4]):
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    x = torch.randn(4, 1, 5, 5)
    found = inherited(student, teacher, x, x)
    missing = student.load_state_dict(found, strict=False).missing_keys
    assert [key for key in missing if not key.endswith("num_batches_tracked")] == []
    torch.testing.assert_close(student(x), teacher(x))


def test_layers_are_matched_by_kind_and_depth() -> None:
    def chain(*kernels: int) -> nn.Sequential:
        convolutions = [nn.Conv2d(4, 4, kernel, padding=kernel // 2) for kernel in kernels]
        return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(36, 2))

    ours, theirs = layers(chain(3, 1, 3), ()), layers(chain(3, 3, 3, 1, 5), ())
    assert [(a.name, b.name) for a, b in matched(ours, theirs)] == [("0", "0"), ("1", "3"), ("2", "4"), ("4", "6")]
    # Of five layers with a window, three have a partner in a student's three: the first, one between, the last.
    assert [(a.name, b.name) for a, b in matched(layers(chain(3, 3, 3, 3, 3), ()), layers(chain(3, 3, 3), ()))] == [
        ("0", "0"),
        ("2", "1"),
        ("4", "2"),
        ("6", "4"),
    ]


def test_windows_are_cut_or_surrounded_by_zeros() -> None:
    weight = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert resized(weight, (1, 3)).tolist() == [[[[3, 4, 5]]]]
    assert resized(weight, (3, 5)).tolist() == [[[[0, 0, 1, 2, 0], [0, 3, 4, 5, 0], [0, 6, 7, 8, 0]]]]


def test_what_does_not_go_together_is_left_alone() -> None:
    teacher = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 5))
    student = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    found = inherited(student, teacher, torch.randn(2, 1, 5, 5), torch.randn(2, 3, 5, 5))
    # Another number of input channels, another number of classes.
    assert set(found) == {"2.weight", "2.bias"}
