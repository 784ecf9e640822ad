"""A recurrent layer between linear ones."""

from torch import Tensor, nn

from tools.networks import Network, Part, Split, cross_entropy, top1
from tools.networks.data.signals import CHANNELS, CLASSES, signals

LENGTH = 36
WIDTH = 48


class Recurrent(nn.Module):
    """Linear, LSTM, its last state, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(CHANNELS, 32)
        self.lstm = nn.LSTM(32, WIDTH, batch_first=True)
        self.hidden = nn.Linear(WIDTH, 64)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(B, steps, 8) -> (B, 6) logits."""
        states, _ = self.lstm(self.enter(x).relu())
        return self.head(self.hidden(states[:, -1]).relu())  # type: ignore[no-any-return]


def samples(count: int, seed: int, part: Part) -> Split:
    """Patterns in noise, time first."""
    x, labels = signals(count, seed, part, LENGTH)
    return Split((x.transpose(1, 2).contiguous(),), labels)


NETWORK = Network(
    "lstm", "LSTM between linear layers", Recurrent, samples, cross_entropy, top1, input_names=("signal",), epochs=12
)
