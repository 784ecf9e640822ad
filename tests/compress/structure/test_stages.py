"""Stages found by running: the ends that papers tap by name, families without names, and layouts."""

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.stages import Stage, read_stage, stage, stages
from compress.errors import RecipeError
from compress.reproduction.bed import cnn, mlp
from compress.residual_network import ResidualNetwork
from compress.spaces.mixer import Plan as MixerPlan
from compress.spaces.mixer import mixer_network
from compress.spaces.transformer_encoder import Plan, encoder_network
from compress.structure.stages import feature, find_stages

PICTURES = torch.zeros(4, 1, 28, 28)


def modules(network: nn.Module, count: int, inputs: Tensor = PICTURES) -> list[str]:
    return [found.module for found in find_stages(network, (inputs,), count)]


def residual() -> ResidualNetwork:
    return ResidualNetwork(1, (4, 8, 12, 16), (2, 2, 3, 1), 10)


def encoder(depth: int) -> nn.Module:
    return encoder_network(Plan(False, 4, 16, 2, 1, depth), (1, 28, 28), 10)


def test_a_residual_network_gives_its_four_stages() -> None:
    """Those that the paper taps: the last outputs of each size."""
    found = find_stages(residual(), (PICTURES,), 4)
    assert [one.module for one in found] == ["stages.0.1", "stages.1.1", "stages.2.2", "stages.3"]
    assert [one.grid for one in found] == [(28, 28), (14, 14), (7, 7), (4, 4)]
    assert not any(one.tokens for one in found)


def test_fewer_stages_are_the_last_ones_and_one_is_the_deepest() -> None:
    assert modules(residual(), 2) == ["stages.2.2", "stages.3"]
    assert modules(residual(), 1) == ["stages.3"]


def test_more_stages_than_sizes_divide_the_longest_ones() -> None:
    network = ResidualNetwork(1, (4, 8), (3, 1), 10)
    assert modules(network, 4) == ["stages.0.0", "stages.0.1", "stages.0.2", "stages.1"]


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(4, (0, 1, 2, 3)), (12, (2, 5, 8, 11)), (8, (1, 3, 5, 7))],
)
def test_a_transformer_is_divided_evenly_into_blocks(depth: int, expected: tuple[int, ...]) -> None:
    found = find_stages(encoder(depth), (PICTURES,), 4)
    assert [one.module for one in found] == [f"blocks.{number}" for number in expected]
    assert {(one.channels, one.grid) for one in found} == {(2, (7, 7))}


def test_a_mixer_of_four_blocks_gives_them() -> None:
    network = mixer_network(MixerPlan(False, 4, 16, 16, 1, 4), (1, 28, 28), 10)
    assert modules(network, 4) == [f"blocks.{number}" for number in range(4)]


def test_plain_layers_end_behind_norm_and_activation_and_before_the_pool() -> None:
    found = find_stages(cnn((4, 8, 12), 10), (torch.zeros(2, 1, 14, 14),), 3)
    assert [(one.module, one.grid) for one in found] == [("2", (14, 14)), ("6", (7, 7)), ("10", (3, 3))]


def test_a_perceptron_gives_its_hidden_layers() -> None:
    found = find_stages(mlp((16, 8), 10), (torch.zeros(2, 1, 14, 14),), 2)
    assert [(one.module, one.grid) for one in found] == [("2", ()), ("4", ())]


@pytest.mark.parametrize(("count", "expected"), [(3, ["2", "4", "4"]), (4, ["2", "2", "4", "4"])])
def test_a_network_with_fewer_stages_gives_some_twice(count: int, expected: list[str]) -> None:
    assert modules(mlp((16, 8), 10), count, torch.zeros(2, 1, 14, 14)) == expected


def test_a_single_layer_gives_its_output() -> None:
    assert modules(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), 2) == ["1", "1"]


def test_what_has_no_layers_is_refused() -> None:
    with pytest.raises(RecipeError, match="no layers"):
        find_stages(nn.Sequential(nn.Flatten()), (PICTURES,), 4)


class Skipping(nn.Module):
    """A connection around both inner layers: only the sum carries everything."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = (nn.Conv2d(c, 4, 3, padding=1) for c in (1, 4, 4))
        self.sum, self.head = nn.Identity(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.sum(x + self.second(self.first(x).relu()))
        output: Tensor = self.head(x.mean((2, 3)))
        return output


def test_what_is_bypassed_ends_no_stage() -> None:
    assert modules(Skipping(), 2) == ["stem", "sum"]


class WithClassToken(nn.Module):
    """A transformer that reads its answer from a token in front."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = encoder(2)
        self.token = nn.Parameter(torch.randn(1, 1, 16))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.inner.patches(x).flatten(2).transpose(1, 2)
        tokens = self.inner.blocks(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1))
        output: Tensor = self.inner.head(tokens[:, 0])
        return output


def test_class_tokens_are_told_from_the_grid_and_left_out() -> None:
    found = find_stages(WithClassToken(), (PICTURES,), 1)[0]
    assert (found.grid, found.extra) == ((7, 7), 1)
    output = torch.randn(2, 50, 16)
    assert torch.equal(feature(output, found), output[:, 1:].transpose(1, 2).reshape(2, 16, 7, 7))


def test_tokens_become_the_map_that_they_were_cut_from() -> None:
    network = encoder(1)
    seen: list[Tensor] = []
    network.patches.register_forward_hook(lambda module, given, output: seen.append(output))
    network(torch.randn(2, 1, 28, 28))
    tokens = seen[0].flatten(2).transpose(1, 2)
    assert torch.equal(feature(tokens, Stage("", 2, (7, 7))), seen[0])
    assert torch.equal(feature(seen[0], Stage("", 1, (7, 7))), seen[0])


class ChannelsLast(nn.Module):
    """As Swin's stages: (B, H, W, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Conv2d(1, 6, 4, 4), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.mix(self.embed(x).movedim(1, -1)).mean((1, 2)))
        return output


def test_channels_behind_a_grid_come_to_the_front() -> None:
    found = find_stages(ChannelsLast(), (PICTURES,), 1)[0]
    assert found == Stage("mix", 3, (7, 7))
    assert feature(torch.zeros(2, 7, 7, 6), found).shape == (2, 6, 7, 7)


def test_the_network_is_left_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(), nn.Flatten())
    network.append(nn.Linear(4 * 26 * 26, 2))
    network.train()
    network[1].eval()
    network[0].requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    drawn = torch.get_rng_state()
    find_stages(network, (PICTURES,), 2)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network] == [True, False, True, True, True, True]
    assert [p.requires_grad for p in network[0].parameters()] == [False, False]
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not any(module._forward_hooks for module in network.modules())


def test_a_frozen_network_under_no_grad_gives_the_same() -> None:
    frozen = residual().requires_grad_(False)
    with torch.no_grad():
        assert modules(frozen, 4) == modules(residual(), 4)


def test_token_indices_have_stages_too() -> None:
    network = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Flatten())
    network.append(nn.Linear(40, 2))
    assert modules(network, 2, torch.zeros(2, 5, dtype=torch.int64)) == ["2", "4"]


def test_names_of_stages() -> None:
    assert stages(2) == ("stage 1 of 2", "stage 2 of 2")
    assert read_stage(stage(3, 4)) == (3, 4)
    assert read_stage("layers.0") is None
    assert read_stage("stage 5 of 4") is None
