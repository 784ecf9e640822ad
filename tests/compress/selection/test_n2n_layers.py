"""What the policies read, against rows worked by hand."""

import pytest
import torch
from torch import Tensor, nn

from compress.selection.n2n_layers import CHANNELS, ENTRIES, KERNEL, describe


class Residual(nn.Module):
    """x + relu(norm(conv(x)))"""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.relu(self.norm(self.conv(x)))
        return out


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, (7, 5), stride=2, padding=3),
        Residual(),
        nn.MaxPool2d(2, stride=2),
        nn.Identity(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 512),
        nn.Dropout(),
    )


def test_rows_worked_by_hand() -> None:
    layers = describe(network(), torch.zeros(1, 1, 16, 16), ["1"])
    assert layers.names == ("0", "1.conv", "1.norm", "1.relu", "2", "4", "5", "6", "7")
    rows = dict(zip(layers.names, layers.entries.tolist(), strict=True))
    #                        type     kernel   stride   channels  padding  skip starts, ends
    assert rows["0"] == pytest.approx([1 / 10, 7 / 7, 2 / 4, 8 / 512, 3 / 3, 0.0, 0.0])
    assert rows["1.conv"] == pytest.approx([1 / 10, 3 / 7, 1 / 4, 8 / 512, 1 / 3, 1.0, 0.0])
    assert rows["1.norm"] == pytest.approx([4 / 10, 0.0, 0.0, 8 / 512, 0.0, 0.0, 0.0])
    assert rows["1.relu"] == pytest.approx([3 / 10, 0.0, 0.0, 8 / 512, 0.0, 0.0, 1.0])
    assert rows["2"] == pytest.approx([2 / 10, 2 / 7, 2 / 4, 8 / 512, 0.0, 0.0, 0.0])
    assert rows["4"] == pytest.approx([8 / 10, 0.0, 0.0, 8 / 512, 0.0, 0.0, 0.0])
    assert rows["5"][0] == 0.0  # no number for a flattening
    assert rows["6"] == pytest.approx([5 / 10, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    assert rows["7"][0] == pytest.approx(6 / 10)
    assert layers.entries.shape == (9, len(ENTRIES))


def test_a_block_and_a_group_have_one_decision_each() -> None:
    groups = {"0": ["0", "1.conv", "1.norm"]}
    layers = describe(network(), torch.zeros(1, 1, 16, 16), ["1"], groups, ["0"])
    assert layers.decides == {"1": 1, "0": 0}  # at the block's first layer with weights
    assert layers.removable.nonzero().flatten().tolist() == [1]
    assert layers.shrinkable.nonzero().tolist() == [[0, KERNEL], [0, CHANNELS]]
    # The ReLU and both pools hand on what the group's last layer gave; the linear layer starts anew.
    assert layers.leader.tolist() == [0, 0, 0, 0, 0, 0, 0, 7, 7]


def test_the_network_is_left_as_it_was() -> None:
    plain = network().train()
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    describe(plain, torch.ones(2, 1, 16, 16))
    assert plain.training
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
    assert not any(module._forward_hooks for module in plain.modules())


def test_a_group_that_does_not_run_has_no_decision() -> None:
    layers = describe(network(), torch.zeros(1, 1, 16, 16), (), {"gone": ["gone"], "6": ["6"]})
    assert layers.decides == {"6": 7}
