"""Hidden layers left out of a head, and maps averaged in front of it: values worked by hand, equal answers."""

import pytest
import torch
from torch import Tensor, nn

from compress.structure.channels import find_groups
from compress.structure.head import find_hidden, find_pooling, pool, reads_averages, slope, with_head

SUM_ORDER = 1e-5  # float32 sums in another order


class Functional(nn.Module):
    """Flattens and activates in its own code."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.first = nn.Linear(4 * 36, 12)
        self.last = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 6, 6) -> (B, 3)."""
        output: Tensor = self.last(self.first(self.conv(x).relu().flatten(1)).relu())
        return output


def vgg() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, 12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(12, 8),
        nn.Tanh(),
        nn.Linear(8, 3),
    )


def test_slopes_equal_those_worked_by_hand() -> None:
    before = torch.tensor([[1.0, -2.0, 0.0], [2.0, 1.0, 0.0]])
    after = torch.tensor([[1.0, 0.0, 5.0], [2.0, 1.0, 5.0]])  # (1+4)/5, (0+1)/5, nothing to fit
    torch.testing.assert_close(slope(before, after), torch.tensor([1.0, 0.2, 1.0]))


def test_two_layers_become_their_product() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 6), nn.Linear(6, 2)).eval()
    x = torch.randn(7, 5)
    hidden = find_hidden(network, find_groups(network, x).groups, x)
    assert [(item.layer, item.reader, item.between) for item in hidden] == [("0", "1", ()), ("1", "2", ())]
    for removed in (hidden[:1], hidden[1:], hidden):
        torch.testing.assert_close(with_head(network, removed, None)(x), network(x), rtol=1e-4, atol=SUM_ORDER)
    both = with_head(network, hidden, None)
    assert sum(parameter.numel() for parameter in both.parameters()) == 5 * 2 + 2


def test_a_layer_goes_with_what_follows_it() -> None:
    network = vgg().eval()
    x = torch.randn(9, 1, 6, 6)
    hidden = find_hidden(network, find_groups(network, x).groups, x)
    assert [(item.layer, item.reader, item.between) for item in hidden] == [
        ("3", "7", ("4", "5", "6")),
        ("7", "9", ("8",)),
    ]
    student = with_head(network, hidden[:1], None)
    # One linear map of what was read before; its weights are W2 diag(slope) W1.
    expected = network[7].weight @ torch.diag(hidden[0].slope) @ network[3].weight  # type: ignore[operator]
    torch.testing.assert_close(student.get_parameter("7.weight"), expected, rtol=1e-4, atol=SUM_ORDER)
    assert student(x).shape == (9, 3)
    assert student.get_parameter("0.weight") is network.get_parameter("0.weight")


@pytest.mark.parametrize("make", [vgg, Functional])
def test_averaged_maps_answer_as_the_whole_head_does_on_averages(make: type[nn.Module]) -> None:
    torch.manual_seed(1)
    network = make().eval()
    x = torch.randn(5, 1, 6, 6)
    pooling = find_pooling(network, find_groups(network, x).groups, x)
    assert pooling is not None
    assert (pooling.channels, pooling.flatten) == (4, "2" if make is vgg else None)
    student = with_head(network, (), pooling)
    pool(student, pooling, ())
    torch.testing.assert_close(student(x), reads_averages(network, pooling, x), rtol=1e-4, atol=SUM_ORDER)
    assert student.get_parameter(next(n for n, p in student.named_parameters() if p.shape == (12, 4))) is not None
    assert student(torch.randn(2, 1, 24, 18)).shape == (2, 3)  # of any size now


def test_averages_and_a_missing_layer_go_together() -> None:
    network = vgg().eval()
    x = torch.randn(5, 1, 6, 6)
    found = find_groups(network, x).groups
    pooling, hidden = find_pooling(network, found, x), find_hidden(network, found, x)
    assert pooling is not None
    student = with_head(network, hidden, pooling)
    pool(student, pooling, hidden)
    assert student.get_parameter("9.weight").shape == (3, 4)
    assert student(x).shape == (5, 3)


def test_there_is_no_pooling_without_a_flattened_map() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)
    ).eval()
    x = torch.randn(5, 1, 6, 6)
    assert find_pooling(network, find_groups(network, x).groups, x) is None
