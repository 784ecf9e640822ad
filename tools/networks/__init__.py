"""Small networks of different kinds, each with data made here: what every path through the project is tried on.

    from tools import networks
    network = networks.load("resnet")
    model = networks.trained("resnet")         # seconds on one thread, then read from the cache
    networks.score(network, model)             # on test data

One file is one network and ends in `NETWORK = Network(...)`. Data come from sklearn's digits or from a seeded
generator; nothing is downloaded. Tasks are hard enough that the float score stays below 100 %, so that rounding can
cost something.
"""

import hashlib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from compress import cache
from profiles.atomic import writing

Part = Literal["train", "validation", "test"]
Tensors = tuple[Tensor, ...]
SIZES: dict[Part, int] = {"train": 4000, "validation": 1000, "test": 2000}
_CHUNK = 500  # samples that are scored at a time
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Split:
    """Samples of one part.

    Attributes:
        inputs: one tensor per input of the network, (N, ...) each.
        labels: whatever the network's loss and score take, (N, ...).
    """

    inputs: Tensors
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Network:
    """One network and its task.

    Attributes:
        name: the file's.
        about: kind of network, in a few words.
        make: the untrained network; weights come from torch's global generator.
        samples: (how many, seed, part) -> data. The parts share no source image, phrase or noise.
        loss: (outputs, labels) -> scalar.
        correct: (outputs, labels) -> (N,) in [0, 1]; the score is the mean.
        input_names, output_names: for the exported file.
        dynamic: input -> {axis: its name} beside the batch, for inputs whose length is free.
        epochs, batch, rate: of Adam with a linear fall to 0.
    """

    name: str
    about: str
    make: Callable[[], nn.Module]
    samples: Callable[[int, int, Part], Split]
    loss: Callable[[Tensors, Tensor], Tensor]
    correct: Callable[[Tensors, Tensor], Tensor]
    input_names: tuple[str, ...] = ("input",)
    output_names: tuple[str, ...] = ("output",)
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    epochs: int = 6
    batch: int = 64
    rate: float = 3e-3

    def build(self, seed: int = 0) -> nn.Module:
        """The untrained network in evaluation mode; equal seeds give equal weights. The global generator stays."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make().eval()

    def inputs(self, samples: int, seed: int = 0) -> Tensors:
        """Inputs like those of the test data, (samples, ...) each."""
        return self.samples(samples, seed, "test").inputs

    def data(self, part: Part) -> Split:
        """The samples that `trained` and `score` use: the same in every process."""
        return self.samples(SIZES[part], 0, part)


def names() -> tuple[str, ...]:
    """The networks there are: one file each."""
    return tuple(sorted(found.name for found in pkgutil.iter_modules([str(_FOLDER)]) if not found.ispkg))


def load(name: str) -> Network:
    """The network of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in names():
        raise ValueError(f"no network is called {name!r}; there are {', '.join(names())}")
    found = importlib.import_module(f"tools.networks.{name}").NETWORK
    assert isinstance(found, Network)
    return found


def trained(name: str) -> nn.Module:
    """The network after training, in evaluation mode; trained once and kept in the cache folder of the project.

    The cache knows the network by its code, the code of its data and torch's version.
    """
    network = load(name)
    model = network.build()
    stored = cache.folder() / "networks" / f"{name}-{_identity(name)}.safetensors"
    if stored.exists():
        model.load_state_dict(load_file(stored))
        return model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        train(network, model, epochs=network.epochs, rate=network.rate)
    stored.parent.mkdir(parents=True, exist_ok=True)
    with writing(stored) as temporary:
        save_file({key: value.contiguous().clone() for key, value in model.state_dict().items()}, temporary)
    return model


def train(
    network: Network,
    model: nn.Module,
    *,
    epochs: float,
    rate: float,
    before_step: Callable[[float], None] | None = None,
    seed: int = 0,
) -> None:
    """Train in place with Adam; leaves the model in evaluation mode.

    Args:
        network: whose data and loss.
        model: float, or prepared for quantisation-aware training.
        epochs: may be a fraction.
        rate: learning rate at the start; falls linearly to 0.
        before_step: called with the share of steps done.
        seed: of the order of the samples.
    """
    split = network.data("train")
    generator = torch.Generator().manual_seed(seed)
    steps = max(1, round(epochs * len(split) / network.batch))
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    order = torch.empty(0, dtype=torch.int64)
    model.train()
    for step in range(steps):
        if len(order) < network.batch:
            order = torch.randperm(len(split), generator=generator)
        index, order = order[: network.batch], order[network.batch :]
        if before_step is not None:
            before_step(step / steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * (1.0 - step / steps)
        loss = network.loss(outputs(model, tuple(tensor[index] for tensor in split.inputs)), split.labels[index])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.eval()


def score(network: Network, model: Callable[..., object], part: Part = "test") -> float:
    """Mean of `network.correct` over the part's samples, in [0, 1]. `model` is any callable on the inputs."""
    split = network.data(part)
    correct = []
    with torch.no_grad():
        for start in range(0, len(split), _CHUNK):
            part_of = slice(start, start + _CHUNK)
            found = outputs(model, [tensor[part_of] for tensor in split.inputs])
            correct.append(network.correct(found, split.labels[part_of]))
    return float(torch.cat(correct).double().mean())


def outputs(model: Callable[..., object], inputs: Tensors | list[Tensor]) -> Tensors:
    """The model's outputs as a tuple, also where it returns a single tensor."""
    found = model(*inputs)
    return (found,) if isinstance(found, Tensor) else tuple(found)  # type: ignore[arg-type]


def cross_entropy(found: Tensors, labels: Tensor) -> Tensor:
    """Of the first output, classes in dimension 1."""
    return nn.functional.cross_entropy(found[0], labels)


def top1(found: Tensors, labels: Tensor) -> Tensor:
    """(N,): 1 where the largest logit is the label's; the share of pixels where labels are images."""
    right = (found[0].argmax(1) == labels).double()
    return right.flatten(1).mean(1) if right.dim() > 1 else right


def _identity(name: str) -> str:
    code = hashlib.sha256(torch.__version__.encode())
    for path in [_FOLDER / "__init__.py", _FOLDER / f"{name}.py", *sorted((_FOLDER / "data").glob("*.py"))]:
        code.update(path.read_bytes())
    return code.hexdigest()[:16]
