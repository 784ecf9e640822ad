"""Traces of torch modules against torch's own counter, and where the two differ on purpose."""

from collections.abc import Callable
from typing import Any

import pytest

import profiles
from profiles.graph import Graph, totals

torch = pytest.importorskip("torch")
nn = torch.nn
F = torch.nn.functional


def torchs_count(module: Any, *inputs: Any) -> int:
    """Multiply-accumulates that torch's FlopCounterMode finds; it counts two operations each."""
    from torch.utils.flop_counter import FlopCounterMode

    module = module.eval().to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*(item.to("meta") for item in inputs))
    flops: int = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2


def ours(module: Any, *inputs: Any) -> Graph:
    return profiles.read(module, inputs[0].shape[0], inputs)


class Function(nn.Module):
    """A function of the input with one weight."""

    def __init__(self, function: Callable[[Any, Any], Any], *shape: int) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Any) -> Any:
        return self.function(x, self.weight)


class Twice(nn.Module):
    """A layer of two inputs on one."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x, x[:, :3])


def image(*shape: int) -> Any:
    return torch.zeros(shape)


def _attention(x: Any, w: Any) -> Any:
    q, k, v = (x @ w).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


NETWORKS = {
    "dense": (lambda: nn.Conv2d(3, 8, 3, 2, 1), (2, 3, 15, 17)),
    "dilated": (lambda: nn.Conv2d(4, 8, 3, dilation=2, padding="same"), (2, 4, 9, 9)),
    "depthwise": (lambda: nn.Conv2d(8, 16, 3, groups=8), (2, 8, 9, 9)),
    "grouped, one axis": (lambda: nn.Conv1d(8, 12, 5, groups=4), (3, 8, 40)),
    "three axes": (lambda: nn.Conv3d(2, 4, (1, 3, 3)), (1, 2, 4, 8, 8)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, output_padding=1), (2, 4, 7, 5)),
    "transposed, grouped": (lambda: nn.ConvTranspose1d(8, 12, 4, 2, groups=4), (2, 8, 9)),
    "perceptron": (lambda: nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3, bias=False)), (5, 6)),
    "linear on three axes": (lambda: nn.Linear(6, 9), (2, 5, 6)),
    "matmul with broadcast": (lambda: Function(lambda x, w: x @ w, 6, 4), (2, 3, 5, 6)),
    "einsum": (lambda: Function(lambda x, w: torch.einsum("bchw,cd->bdhw", x, w), 3, 7), (2, 3, 4, 5)),
    "functional": (lambda: Function(lambda x, w: F.conv2d(x, w, stride=2) + F.linear(x, w[0, 0]).mean(), 4, 3, 3, 3),
                   (2, 3, 3, 3)),
    "attention of torch": (lambda: Function(_attention, 16, 48), (2, 5, 16)),
    "attention layer": (lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), (2, 5, 16)),
    "decoder layer": (lambda: Twice(nn.TransformerDecoderLayer(16, 2, 32, batch_first=True)), (2, 5, 16)),
    "bilinear upsampling before a convolution": (
        lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(3, 4, 3)), (1, 3, 8, 8)),
    "lstm": (lambda: nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True), (3, 7, 6)),
    "lstm with projection": (lambda: nn.LSTM(6, 8, proj_size=3, batch_first=True), (3, 7, 6)),
    "gru": (lambda: nn.GRU(6, 5, batch_first=True), (3, 7, 6)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_counts_equal_torchs_own(name: str) -> None:
    make, shape = NETWORKS[name]
    graph = ours(make(), image(*shape))
    assert totals(graph).macs == torchs_count(make(), image(*shape)) > 0
    assert not graph.uncounted


def test_a_product_with_a_state_of_zeros_is_known_when_the_model_is_loaded() -> None:
    """torch multiplies the zeros; a runtime folds the product, and the ONNX reader does too."""
    cell, x = nn.GRUCell(4, 5), torch.zeros(3, 4)
    assert totals(ours(cell, x)).macs == 3 * 15 * 4
    assert torchs_count(cell, x) == 3 * 15 * (4 + 5)


def test_distances_are_products_here_and_nothing_to_torch() -> None:
    module, x = Function(lambda x, w: torch.cdist(x, w), 7, 4), torch.zeros(5, 4)
    assert torchs_count(module, x) == 0
    assert totals(ours(module, x)).macs == 5 * 7 * 4


def test_packed_sequences_count_their_own_lengths() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 6, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.lstm(nn.utils.rnn.pack_padded_sequence(x, [5, 3, 2], batch_first=True))[0].data

    assert totals(ours(Packed(), torch.zeros(3, 5, 8))).macs == (5 + 3 + 2) * 4 * 6 * (8 + 6)


def test_a_buffer_that_is_filled_through_views_is_no_constant() -> None:
    class Delay(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 6)

        def forward(self, x: Any) -> Any:
            line = torch.zeros(x.shape[0], 4, 8, device=x.device)
            line[:, 0] = x
            line[:, 1] = 2 * x
            return self.linear(line)

    graph = ours(Delay(), torch.zeros(2, 8))
    assert totals(graph).macs == 2 * 4 * 8 * 6
    assert graph.outputs


def test_tied_weights_are_stored_once_and_used_twice() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(50, 8)
            self.head = nn.Linear(8, 50, bias=False)
            self.head.weight = self.table.weight

        def forward(self, x: Any) -> Any:
            return self.head(self.table(x))

    graph = ours(Tied(), torch.zeros(2, 3, dtype=torch.long))
    assert (totals(graph).params, totals(graph).macs) == (400, 2 * 3 * 8 * 50)


def test_inputs_that_do_not_share_the_batch_keep_their_shape() -> None:
    class State(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: Any, scale: Any) -> Any:
            return self.linear(x) * scale

    graph = profiles.read(State(), 7, (torch.zeros(2, 4), torch.zeros(3)))
    assert [graph.edges[name].shape for name in graph.inputs] == [(7, 4), (3,)]


def test_remembered_shapes_do_not_mix_types() -> None:
    """`x * 2` and `x * 2.0` have one shape and two types on integers."""
    whole = ours(Function(lambda x, w: x * 2, 1), torch.zeros(2, 3, dtype=torch.int32))
    broken = ours(Function(lambda x, w: x * 2.0, 1), torch.zeros(2, 3, dtype=torch.int32))
    assert whole.edges[whole.outputs[0]].dtype == "int32"
    assert broken.edges[broken.outputs[0]].dtype == "float32"
    again = ours(Function(lambda x, w: x * 2, 1), torch.zeros(2, 3, dtype=torch.int32))
    assert again.edges == whole.edges
