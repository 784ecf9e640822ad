"""How N2N learning sees a teacher: one short row of numbers per layer, in the order in which the layers run.

Source: arXiv:1709.06030, section 3.1: type, kernel, stride, channels and padding of each layer, and for residual
networks where a shortcut starts and ends. The numbers are divided by usual largest values here ("proposed"): channels
in the hundreds beside kernels of 3 saturate an LSTM.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

Convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
TYPES: tuple[tuple[int, tuple[type[nn.Module], ...]], ...] = (
    (1, Convolution),
    (2, (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)),
    (3, (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.SiLU, nn.GELU, nn.Hardswish)),
    (4, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm)),
    (5, (nn.Linear,)),
    (6, (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)),
    (7, (nn.LogSoftmax,)),
    (8, (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)),
    (10, (nn.Softmax,)),
)
"""The paper's numbers (9 is an L2 normalisation, which torch has no module for; 0 is any other layer)."""

ENTRIES = ("type", "kernel", "stride", "channels", "padding", "skip_start", "skip_end")
LARGEST = (10.0, 7.0, 4.0, 512.0, 3.0, 1.0, 1.0)
"""What each entry is divided by."""
ACTED_ON = 5  # the entries that the second policy has a multiplier for; where shortcuts lie is not for it to change
KERNEL, CHANNELS = ENTRIES.index("kernel"), ENTRIES.index("channels")


@dataclass(frozen=True)
class Layers:
    """A network as the policies read it.

    Attributes:
        names: of the modules, in the order in which they run.
        entries: (L, 7) float32, scaled; the columns are `ENTRIES`.
        removable: (L,) bool: where the first policy decides; one layer speaks for the whole block that can be left out.
        shrinkable: (L, 5) bool: the entries that the second policy multiplies; channels alone by default.
        leader: (L,) int64: the layer whose multiplier of channels this one follows; its own place where none.
        decides: block or channel group -> place of the layer whose action decides for it.
    """

    names: tuple[str, ...]
    entries: Tensor
    removable: Tensor
    shrinkable: Tensor
    leader: Tensor
    decides: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)


def describe(
    network: nn.Module,
    features: Tensor,
    blocks: Sequence[str] = (),
    groups: Mapping[str, Sequence[str]] | None = None,
    kernels: Sequence[str] = (),
) -> Layers:
    """Read the layers of a network while it runs.

    Args:
        network: it is copied, run once in eval mode, and not changed.
        features: (B, ...), what it takes.
        blocks: modules that can be left out, each with its own decision; it is taken at the block's first layer with
            weights.
        groups: name of channels whose number can be chosen -> the layers that have these channels. The first of them
            that runs decides; a group of which none runs has no decision.
        kernels: layers whose window can be chosen, too.
    """
    ran: list[tuple[str, nn.Module, int]] = []
    copied = copy.deepcopy(network).eval()
    for name, module in copied.named_modules():
        if next(module.children(), None) is None and not isinstance(module, nn.Identity):

            def record(module: nn.Module, _inputs: object, output: object, name: str = name) -> None:
                wide = output.shape[1] if isinstance(output, Tensor) and output.ndim > 1 else 0
                if all(name != earlier for earlier, _, _ in ran):
                    ran.append((name, module, wide))

            module.register_forward_hook(record)
    with torch.no_grad():
        copied(features)

    names = tuple(name for name, _, _ in ran)
    place = {name: i for i, name in enumerate(names)}
    rows = [[*entries_of(module, wide), 0.0, 0.0] for _, module, wide in ran]
    decides: dict[str, int] = {}
    removable = torch.zeros(len(ran), dtype=torch.bool)
    for block in blocks:
        inside = [i for i, name in enumerate(names) if name == block or name.startswith(block + ".")]
        weighted = [i for i in inside if next(ran[i][1].parameters(), None) is not None]
        decides[block] = (weighted or inside)[0]
        removable[decides[block]] = True
        rows[inside[0]][ENTRIES.index("skip_start")] = 1.0
        rows[inside[-1]][ENTRIES.index("skip_end")] = 1.0
    shrinkable = torch.zeros(len(ran), ACTED_ON, dtype=torch.bool)
    leader = torch.arange(len(ran))
    for group, members in (groups or {}).items():
        present = [place[name] for name in members if name in place]
        if present:
            # Those that follow it are read after its decision is known.
            decides[group] = min(present)
            leader[present] = decides[group]
            shrinkable[decides[group], CHANNELS] = True
    for name in kernels:
        shrinkable[place[name], KERNEL] = True
    for i in range(1, len(ran)):
        passes = next(ran[i][1].parameters(), None) is None and ran[i][2] == ran[i - 1][2]
        if passes:  # an activation has the channels of the layer before it
            leader[i] = leader[i - 1]
    entries = torch.tensor(rows, dtype=torch.float32) / torch.tensor(LARGEST)
    return Layers(names, entries, removable, shrinkable, leader, decides)


def entries_of(module: nn.Module, wide: int) -> list[float]:
    """Type, kernel, stride, channels and padding, unscaled; 0 where a layer has no such thing.

    Args:
        wide: channels of the layer's answer, for layers that do not say.
    """
    kind = next((number for number, classes in TYPES if isinstance(module, classes)), 0)
    if isinstance(module, Convolution):
        return [kind, first(module.kernel_size), first(module.stride), module.out_channels, first(module.padding)]
    if kind in (2, 8):
        sizes = [first(vars(module).get(name, 0)) for name in ("kernel_size", "stride", "padding")]
        return [kind, sizes[0], sizes[1], wide, sizes[2]]
    return [kind, 0.0, 0.0, module.out_features if isinstance(module, nn.Linear) else wide, 0.0]


def first(size: object) -> float:
    """The size along the first axis; 0 where it is a word ("same") or not given."""
    while isinstance(size, tuple) and size:
        size = size[0]
    return float(size) if isinstance(size, int) else 0.0
