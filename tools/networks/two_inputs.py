"""An image and a row of numbers in, two answers out."""

import torch
from torch import Tensor, nn

from tools.networks import Network, Part, Split, Tensors
from tools.networks.data import generator
from tools.networks.data.digits import digits

NUMBERS = 12


class TwoInputs(nn.Module):
    """Convolutions over the image, linear layers over the numbers, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
            nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True), nn.Flatten(),
            nn.Linear(512, 48), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.numbers = nn.Sequential(nn.Linear(NUMBERS, 32), nn.ReLU(inplace=True), nn.Linear(32, 16), nn.ReLU())
        self.joined = nn.Sequential(nn.Linear(64, 64), nn.ReLU(inplace=True))
        self.digit = nn.Linear(64, 10)
        self.odd = nn.Linear(64, 1)

    def forward(self, image: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, 16, 16), (B, 12) -> (B, 10) logits, (B, 1) logit of an odd sum of digit and numbers' class."""
        joined = self.joined(torch.cat([self.image(image), self.numbers(numbers)], 1))
        return self.digit(joined), self.odd(joined)


def loss(found: Tensors, labels: Tensor) -> Tensor:
    """Cross entropy of both answers."""
    odd = nn.functional.binary_cross_entropy_with_logits(found[1][:, 0], labels[:, 1].float())
    return nn.functional.cross_entropy(found[0], labels[:, 0]) + odd


def correct(found: Tensors, labels: Tensor) -> Tensor:
    """(N,): share of the two answers that are right."""
    digit = found[0].argmax(1) == labels[:, 0]
    odd = (found[1][:, 0] > 0) == (labels[:, 1] > 0)
    return (digit.double() + odd.double()) / 2


def samples(count: int, seed: int, part: Part) -> Split:
    """Noisy digits, and numbers that lean towards one of two classes."""
    images, labels = digits(count, seed, part)
    random = generator(seed, part, "numbers")
    side = torch.randint(2, (count,), generator=random)
    lean = torch.randn(NUMBERS, generator=torch.Generator().manual_seed(5))
    numbers = 1.2 * torch.randn(count, NUMBERS, generator=random) + (2.0 * side[:, None] - 1.0) * lean
    return Split((images, numbers), torch.stack([labels, (labels + side) % 2], 1))


NETWORK = Network(
    "two_inputs", "two inputs, two outputs", TwoInputs, samples, loss, correct,
    input_names=("image", "numbers"), output_names=("digit", "odd"), epochs=10,
)  # fmt: skip
