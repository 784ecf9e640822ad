"""What tells one teacher's answers from another's."""

import torch
from torch import nn

from compress.frontends.normalise import Normalise
from compress.teachers.fingerprints import of_module


def network(width: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def test_equal_networks_have_equal_fingerprints() -> None:
    assert of_module(network()) == of_module(network())
    assert len(of_module(network())) == 64


def test_any_change_shows() -> None:
    found = {of_module(network()), of_module(network(5)), of_module(nn.Sequential(*network(), nn.ReLU()))}
    weight, statistic = network(), network()
    with torch.no_grad():
        weight[0].weight[0, 0] += 1e-6  # type: ignore[index,operator]
        statistic[1].running_mean += 1  # type: ignore[operator]
    found |= {of_module(weight), of_module(statistic)}
    assert len(found) == 5


def test_constants_that_no_checkpoint_holds_count() -> None:
    assert of_module(Normalise([0.1], [0.2])) != of_module(Normalise([0.1], [0.3]))


def test_the_place_of_tensors_in_memory_does_not_count() -> None:
    one, two = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    two.load_state_dict(one.state_dict())
    assert of_module(one) == of_module(two.to(memory_format=torch.channels_last))
