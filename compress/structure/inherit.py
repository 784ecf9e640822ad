"""A student's first weights, taken from a teacher that it was not cut from: of each layer the most important channels.

Layers of one kind are matched in order of depth; a student layer's channels are the most important ones of the teacher
layer that it is matched with (importance as in `channels.order_of`), and every layer of the student that has the same
channels takes the same ones. Proposed; copying a teacher's layers into a shallower student is Romero et al.'s and Sanh
et al.'s (DistilBERT, arXiv:1910.01108, section 3), slices of a larger network's tensors are Xu et al.'s ("Initializing
Models with Larger Ones", ICLR 2024, arXiv:2311.18823, section 3), who take every n-th channel.

Nothing is fitted and nothing is trained: what does not go together stays as it was drawn.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.structure.channels import BatchNorm, ChannelGroup, Convolution, Transposed, depthwise, find_groups

Side = tuple[str, Tensor]  # group, (channels, positions per channel)


@dataclass(frozen=True)
class Layer:
    """A layer with weights and where its channels come from and go to.

    Attributes:
        name: in its network.
        module: itself.
        reads, writes: the channel group on either side; None where its width is not free (the features, the outputs).
        norm: name of the batch norm that follows it, if one does.
    """

    name: str
    module: nn.Module
    reads: Side | None
    writes: Side | None
    norm: str | None

    @property
    def kind(self) -> tuple[str, bool, bool]:
        """Layers of one kind are matched: class, one filter per channel, a window of one position."""
        sizes = getattr(self.module, "kernel_size", (1,))
        return type(self.module).__name__, depthwise(self.module), max(sizes) == 1


def layers(network: nn.Module, groups: Sequence[ChannelGroup]) -> list[Layer]:
    """Convolutions and linear layers in the order of definition, which is that of depth in nearly every network."""
    reads: dict[str, Side] = {}
    writes: dict[str, Side] = {}
    for group in groups:
        for piece in group.slices:
            (reads if piece.consumes else writes)[piece.layer] = (group.name, piece.positions)
    found: list[Layer] = []
    named = [(name, module) for name, module in network.named_modules() if not any(True for _ in module.children())]
    for place, (name, module) in enumerate(named):
        if not isinstance(module, (nn.Linear, *Convolution)) or isinstance(module, Transposed):
            continue
        after = named[place + 1] if place + 1 < len(named) else ("", nn.Identity())
        norm = after[0] if isinstance(after[1], BatchNorm) else None
        found.append(Layer(name, module, reads.get(name), writes.get(name), norm))
    return found


def matched(student: Sequence[Layer], teacher: Sequence[Layer]) -> list[tuple[Layer, Layer]]:
    """Pairs of layers of one kind, in the student's order: the first with the first, the last with the last, those
    between at equal distances. No layer is used twice; where the student has more, some of its stay alone."""
    pairs: dict[str, tuple[Layer, Layer]] = {}
    for kind in dict.fromkeys(layer.kind for layer in student):
        ours = [layer for layer in student if layer.kind == kind]
        theirs = [layer for layer in teacher if layer.kind == kind]
        few = min(len(ours), len(theirs))
        for place in range(few):
            share = place / max(1, few - 1)
            mine, its = ours[round(share * (len(ours) - 1))], theirs[round(share * (len(theirs) - 1))]
            pairs[mine.name] = (mine, its)
    return [pairs[layer.name] for layer in student if layer.name in pairs]


@dataclass(frozen=True)
class Places:
    """Where values come from and go to along one dimension: equally many positions, (N,) each."""

    teacher: Tensor
    student: Tensor


def places(
    ours: Side | None, theirs: Side | None, sizes: tuple[int, int], chosen: Mapping[str, Places]
) -> Places | None:
    """The positions that go together along one dimension, or None where the sides do not match.

    Args:
        ours, theirs: the channel groups there, of the student and the teacher.
        sizes: of the dimension, in the student and the teacher.
        chosen: student group -> channels that go together.
    """
    if ours is None or theirs is None:
        same = ours is None and theirs is None and sizes[0] == sizes[1]
        return Places(torch.arange(sizes[0]), torch.arange(sizes[0])) if same else None
    channels = chosen.get(f"{ours[0]}<{theirs[0]}")
    if channels is None or ours[1].shape[1] != theirs[1].shape[1]:
        return None
    return Places(theirs[1][channels.teacher].flatten(), ours[1][channels.student].flatten())


def resized(weight: Tensor, window: Sequence[int]) -> Tensor:
    """A kernel, (O, I, *window), cut around its centre or with zeros around it: each axis as asked for, odd or even."""
    for dim, size in enumerate(window, start=2):
        missing = size - weight.shape[dim]
        if missing <= 0:
            weight = weight.narrow(dim, -missing // 2, size)
        else:
            padding = [0, 0] * (weight.ndim - dim - 1) + [missing // 2, missing - missing // 2]
            weight = nn.functional.pad(weight, padding)
    return weight


def inherited(
    student: nn.Module, teacher: nn.Module, student_features: Tensor, teacher_features: Tensor
) -> dict[str, Tensor]:
    """The student's tensors with what can be had of the teacher's in them; neither network is changed.

    Args:
        student, teacher: networks of standard layers.
        student_features, teacher_features: (B, ...), what each takes; used for tracing only.

    Returns:
        Tensors by their name in the student, of the student's shapes; those into which nothing was copied are left out.

    Raises:
        Exception: whatever tracing raises on a network it cannot follow.
    """
    ours_groups, theirs_groups = _groups(student, student_features), _groups(teacher, teacher_features)
    pairs = matched(layers(student, ours_groups), layers(teacher, theirs_groups))
    chosen = _choices(pairs, ours_groups, theirs_groups)
    tensors: dict[str, Tensor] = {}
    own, its = student.state_dict(), teacher.state_dict()
    for ours, theirs in pairs:
        weight, source = _weight(ours.module), _weight(theirs.module)
        out = places(ours.writes, theirs.writes, (weight.shape[0], source.shape[0]), chosen)
        # The second dimension of a depthwise kernel is one, and its channels are those that it writes.
        into = (
            Places(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
            if depthwise(ours.module)
            else places(ours.reads, theirs.reads, (weight.shape[1], source.shape[1]), chosen)
        )
        if out is None or into is None:
            continue
        source = resized(source, weight.shape[2:])
        filled = weight.clone()
        filled[out.student[:, None], into.student[None, :]] = source[out.teacher[:, None], into.teacher[None, :]]
        tensors[f"{ours.name}.weight"] = filled
        vectors = [(f"{ours.name}.bias", f"{theirs.name}.bias")]
        if ours.norm is not None and theirs.norm is not None:
            names = ("weight", "bias", "running_mean", "running_var")
            vectors += [(f"{ours.norm}.{name}", f"{theirs.norm}.{name}") for name in names]
        for name, other in vectors:
            if name in own and other in its:
                vector = own[name].clone()
                vector[out.student] = its[other][out.teacher].to(vector)
                tensors[name] = vector
    return tensors


def _weight(module: nn.Module) -> Tensor:
    return module.get_parameter("weight").detach()


def _groups(network: nn.Module, features: Tensor) -> tuple[ChannelGroup, ...]:
    """The channel groups of a network, found on a copy: tracing follows gradients."""
    traced = copy.deepcopy(network).eval()
    for parameter in traced.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    with torch.enable_grad():
        return find_groups(traced, features).groups


def _choices(
    pairs: Sequence[tuple[Layer, Layer]], ours: Sequence[ChannelGroup], theirs: Sequence[ChannelGroup]
) -> dict[str, Places]:
    """The channels that go together, by "student group<teacher group". The first pair that writes a student's group
    says which of the teacher's it takes them from; a layer whose pair is of another group is not filled."""
    our, their = {group.name: group for group in ours}, {group.name: group for group in theirs}
    taken: dict[str, str] = {}
    chosen: dict[str, Places] = {}
    for mine, its in pairs:
        if mine.writes is None or its.writes is None:
            continue
        name, other = mine.writes[0], its.writes[0]
        if taken.setdefault(name, other) != other:
            continue
        count = min(our[name].channels, their[other].channels)
        best = their[other].order[:count].sort().values
        chosen[f"{name}<{other}"] = Places(best, torch.arange(count))
    return chosen
