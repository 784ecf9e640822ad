"""Linear layers with batch norm and dropout."""

from torch import nn

from tools.networks import Network, Part, Split, cross_entropy, top1
from tools.networks.data.digits import SIDE, digits


def make() -> nn.Module:
    """(B, 1, 16, 16) -> (B, 10) logits."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(SIDE * SIDE, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def samples(count: int, seed: int, part: Part) -> Split:
    """Noisy digits."""
    images, labels = digits(count, seed, part)
    return Split((images,), labels)


NETWORK = Network("mlp", "MLP", make, samples, cross_entropy, top1, epochs=10)
