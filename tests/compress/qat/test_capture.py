"""Students captured with free sizes."""

import pytest
import torch
from torch import Tensor, nn

from compress.errors import RecipeError
from compress.qat.capture import capture


class Signal(nn.Module):
    """Convolutions with stride, a recurrent layer, the last state."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 8, 5, 2, 2)
        self.rnn = kind(8, 8, batch_first=True, bidirectional=True, num_layers=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(self.conv(x).relu_().transpose(1, 2))[0][:, -1]


@pytest.mark.filterwarnings("ignore:The tensor attribute")  # of torch's own export of recurrent layers, below
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_recurrent_layers_take_any_length_and_compute_afterwards(kind: type[nn.RNNBase]) -> None:
    model = Signal(kind).eval()
    graph = capture(model, (torch.randn(1, 2, 24),), ("signal",), {"signal": {2: "length"}})
    assert torch.ops.aten.relu_.default not in [node.target for node in graph.graph.nodes]
    for batch, length in ((1, 24), (3, 40), (2, 7)):
        x = torch.randn(batch, 2, length)
        torch.testing.assert_close(graph(x), model(x))
    # What torch itself does with a recurrent layer is as before.
    again = torch.export.export(model, (torch.randn(2, 2, 24),), strict=False).module()
    x = torch.randn(2, 2, 24)
    torch.testing.assert_close(again(x), model(x))


def test_what_cannot_be_free_is_told() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(x.shape[0], 4, 6)

    x = torch.randn(2, 24)
    with pytest.raises(RecipeError, match="no input is called 'signal'; there are x"):
        capture(nn.Flatten(), (x,), ("x",), {"signal": {1: "length"}})
    with pytest.raises(RecipeError, match="axis 0 of input 'x'"):
        capture(nn.Flatten(), (x,), ("x",), {"x": {0: "length"}})
    with pytest.raises(RecipeError, match="axis 1 of input 'x'"):
        capture(nn.Flatten(), (x[:, :1],), ("x",), {"x": {1: "length"}})
    with pytest.raises(RecipeError, match="free lengths"):
        capture(Fixed(), (x,), ("x",), {"x": {1: "length"}})
