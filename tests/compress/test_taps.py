"""Recording what happens inside a network."""

import copy

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.signals import Signals
from compress.contracts.stages import stages
from compress.errors import RecipeError
from compress.residual_network import ResidualNetwork
from compress.spaces.transformer_encoder import Plan, encoder_network
from compress.taps import Taps, detached, observe


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(1, 1, bias=False)
        self.unused = nn.Linear(1, 1)
        self.memory = nn.GRU(1, 2, batch_first=True)
        nn.init.constant_(self.twice.weight, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        self.memory(x.unsqueeze(1))
        return self.twice(self.twice(x))


def batch(*inputs: Tensor) -> Batch:
    return Batch(inputs, None, torch.arange(len(inputs[0])))


def test_records_outputs_by_name_and_the_last_call_wins() -> None:
    network = Twice()
    with Taps(network, ["twice", "memory"]) as taps:
        network(torch.tensor([[3.0]]))
        seen = taps.read()
    assert list(seen) == ["twice", "memory"]
    assert seen["twice"].item() == 12.0  # 3 * 2 * 2, not 6
    assert seen["memory"].shape == (1, 1, 2)  # the GRU's output, not its state (1, 1, 2) as a tuple


def test_gradients_flow_through_what_was_recorded() -> None:
    network = Twice()
    with Taps(network, ["twice"]) as taps:
        network(torch.tensor([[3.0]]))
        taps.read()["twice"].sum().backward()
    assert network.twice.weight.grad is not None
    assert network.twice.weight.grad.item() == 12.0  # d(3 w^2)/dw at w = 2


def test_hooks_are_gone_after_closing_even_when_the_body_fails() -> None:
    network = Twice()

    def fail() -> None:
        with Taps(network, ["twice"]):
            raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        fail()
    assert not network.twice._forward_hooks


def test_what_was_read_is_forgotten() -> None:
    network = Twice()
    with Taps(network, ["twice"]) as taps:
        network(torch.ones(1, 1))
        taps.read()
        with pytest.raises(RecipeError, match="'twice' was not called"):
            taps.read()


def test_a_wrong_name_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(RecipeError, match="no module called 'twicce'; there are twice, unused, memory") as refused:
        Taps(Twice(), ["twicce"])
    assert refused.value.fix == "did you mean twice?"


def test_a_refused_name_leaves_no_hooks() -> None:
    network = Twice()
    with pytest.raises(RecipeError):
        Taps(network, ["twice", "absent"])
    assert not network.twice._forward_hooks


def test_a_module_that_is_never_called_is_an_error() -> None:
    network = Twice()
    with Taps(network, ["unused"]) as taps:
        network(torch.ones(1, 1))
        with pytest.raises(RecipeError, match="'unused' was not called"):
            taps.read()


def test_a_copy_of_the_network_is_not_recorded() -> None:
    network = Twice()
    with Taps(network, ["twice"]) as taps:
        network(torch.ones(1, 1))  # leaves an activation with a graph, which cannot be copied
        twin = copy.deepcopy(network)
        twin(torch.full((1, 1), 100.0))
        assert taps.read()["twice"].item() == 4.0


@pytest.mark.parametrize(
    ("answer", "others"),
    [((torch.ones(2), torch.zeros(2)), ["1"]), ({"logits": torch.ones(2), "box": torch.zeros(2)}, ["box"])],
)
def test_further_outputs_are_named(answer: object, others: list[str]) -> None:
    class Several(nn.Module):
        def forward(self, x: Tensor) -> object:
            return answer

    network = Several()
    signals = observe(network, batch(torch.ones(2, 1)), Taps(network, ()))
    assert signals.output.sum() == 2.0
    assert list(signals.others) == others


def test_an_answer_that_is_no_tensor_is_refused() -> None:
    class Wordy(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "seven"

    network = Wordy()
    with pytest.raises(RecipeError, match="gave str, not a tensor"):
        observe(network, batch(torch.ones(2, 1)), Taps(network, ()))


def test_detached_gives_float32_without_gradient() -> None:
    value = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    signals = detached(Signals(value, {"count": torch.ones(2, dtype=torch.int64)}, {"tap": value}))
    assert signals.output.dtype == torch.float32
    assert not signals.output.requires_grad
    assert signals.others["count"].dtype == torch.int64
    assert not signals.taps["tap"].requires_grad


def test_stages_are_found_at_the_first_batch_and_come_as_maps() -> None:
    network = ResidualNetwork(1, (4, 6), (1, 2), 3)
    batch = Batch((torch.randn(3, 1, 8, 8),), None, torch.arange(3))
    with Taps(network, ("stem", *stages(2))) as taps, Taps(network, ("stages.0", "stages.1.1")) as named:
        assert not taps.stages
        said = observe(network, batch, taps)
        expected = named.read()
        assert list(said.taps) == ["stem", "stage 1 of 2", "stage 2 of 2"]
        assert torch.equal(said.taps["stage 1 of 2"], expected["stages.0"])
        assert torch.equal(said.taps["stage 2 of 2"], expected["stages.1.1"])
        assert {name: found.module for name, found in taps.stages.items()} == {
            "stage 1 of 2": "stages.0",
            "stage 2 of 2": "stages.1.1",
        }
    assert not any(module._forward_hooks for module in network.modules())


def test_two_stages_may_be_one_module() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    batch = Batch((torch.randn(2, 4),), None, torch.arange(2))
    with Taps(network, stages(3)) as taps:
        said = observe(network, batch, taps).taps
    assert said["stage 1 of 3"] is said["stage 2 of 3"] is said["stage 3 of 3"]


def test_gradients_flow_through_a_stage_of_tokens() -> None:
    network = encoder_network(Plan(False, 4, 16, 2, 1, 1), (1, 8, 8), 3)
    batch = Batch((torch.randn(2, 1, 8, 8),), None, torch.arange(2))
    with Taps(network, stages(1)) as taps:
        found = observe(network, batch, taps).taps["stage 1 of 1"]
    assert found.shape == (2, 16, 2, 2)
    found.sum().backward()
    assert network.patches.weight.grad is not None
