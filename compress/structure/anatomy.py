"""Everything that can be made smaller in a network, each finding proven on real features before it is offered."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from compress.structure import kernels as kernel
from compress.structure.blocks import find_blocks, passages
from compress.structure.channels import ChannelGroup, Slice, find_groups, order_of
from compress.structure.cut import cut
from compress.structure.head import Hidden, Pooling, find_hidden, find_pooling, pool, reads_averages, rewired, with_head
from compress.structure.proofs import failure, silenced
from compress.structure.resolution import SHRINKS, at_lower_resolution, windows


@dataclass(frozen=True)
class Anatomy:
    """What can be cut from one network.

    Attributes:
        groups: channel groups whose width can be chosen.
        offered: group -> widths, ascending; the last is the network's own.
        blocks: modules that can be left out.
        hidden: linear layers of the head that can be left out, first to last.
        kernels: convolution -> extents of its window, ascending; the last is its own.
        pooling: the flattened map that can be averaged, if there is one.
        shrinks: by how much the features can be averaged, ascending from 1, for a head that reads all positions, and
            for one that reads averages (True).
        whole: what stays as it is -> why.
    """

    groups: tuple[ChannelGroup, ...]
    offered: Mapping[str, tuple[int, ...]]
    blocks: tuple[str, ...]
    hidden: tuple[Hidden, ...]
    kernels: Mapping[str, tuple[int, ...]]
    pooling: Pooling | None
    shrinks: Mapping[bool, tuple[int, ...]]
    whole: Mapping[str, str]


@dataclass(frozen=True)
class Choice:
    """What is cut.

    Attributes:
        widths: channels that stay, by group.
        dropped: blocks and hidden layers of the head that are left out.
        kernels: extent of the window, by convolution; its own for one that is not named.
        pooled: the head reads averages.
        shrink: positions of the features that become one along each axis.
    """

    widths: Mapping[str, int]
    dropped: Sequence[str] = ()
    kernels: Mapping[str, int] | None = None
    pooled: bool = False
    shrink: int = 1


def smaller(network: nn.Module, anatomy: Anatomy, choice: Choice, shape: tuple[int, ...], trainable: bool) -> nn.Module:
    """The network cut as chosen, in training mode; `network` is not changed.

    Args:
        shape: of one example's features.
        trainable: as in `cut`.
    """
    removed = [hidden for hidden in anatomy.hidden if hidden.layer in choice.dropped]
    pooling = anatomy.pooling if choice.pooled else None
    blocks = [block for block in anatomy.blocks if block in choice.dropped]
    groups: Sequence[ChannelGroup] = anatomy.groups
    if removed or pooling is not None:
        network = with_head(network, removed, pooling)
        groups = rewired(groups, removed, pooling)
    student = cut(network, groups, choice.widths, blocks, trainable, choice.kernels)
    if pooling is not None:
        pool(student, pooling, removed)
    return at_lower_resolution(student, shape, choice.shrink)


def dissect(network: nn.Module, features: Tensor, multiple: int) -> Anatomy:
    """Find what can be cut from `network`.

    Args:
        network: in eval mode, every floating-point parameter with requires_grad. It is run, and the same afterwards.
        features: (B, ...), what it takes.
        multiple: of channels, which the target's kernels want.

    Raises:
        Exception: whatever the network raises on the features, or tracing on a network it cannot follow.
    """
    with torch.no_grad():
        full: Tensor = network(features)
    with torch.enable_grad():
        coupling = find_groups(network, features)
    few = features[:2]
    proof = _Proof(network, few, full[:2].shape, multiple)
    proof.whole.update(coupling.whole)
    groups, blocks = proof.droppable([group for group in coupling.groups if proof.narrows(group)])
    hidden = proof.head(find_hidden(network, coupling.groups, features), groups)
    pooling = proof.averages(find_pooling(network, coupling.groups, features))
    return Anatomy(
        groups,
        {group.name: widths_of(group, multiple) for group in groups},
        blocks,
        hidden,
        proof.kernels(kernel.candidates(network, few)),
        pooling,
        {False: proof.shrinks(None)} | ({True: proof.shrinks(pooling)} if pooling is not None else {}),
        proof.whole,
    )


def widths_of(group: ChannelGroup, multiple: int) -> tuple[int, ...]:
    """Multiples of what the target wants (and of GroupNorm's groups), and the network's own width."""
    step = multiple
    while step % group.sections:
        step += multiple
    return (*range(step, group.channels, step), group.channels)


def merged(network: nn.Module, one: ChannelGroup, other: ChannelGroup) -> ChannelGroup:
    """Two groups of as many channels as one, so that the block between them can be left out."""
    slices: tuple[Slice, ...] = (*one.slices, *other.slices)
    sections = math.lcm(one.sections, other.sections)
    order = order_of(network, slices, one.channels)
    return ChannelGroup(one.name, one.channels, sections, slices, order, one.mixes or other.mixes)


class _Proof:
    """Proofs on one network; `whole` collects what fails, with the reason."""

    def __init__(self, network: nn.Module, features: Tensor, shape: torch.Size, multiple: int) -> None:
        self.network = network
        self.features = features
        self.shape = shape
        self.multiple = multiple
        self.whole: dict[str, str] = {}

    def holds(self, name: str, why: str | None) -> bool:
        """Whether there is no reason against; otherwise it is noted."""
        if why is not None:
            self.whole[name] = why
        return why is None

    def narrows(self, group: ChannelGroup) -> bool:
        """Whether a cut of this group gives the network it should."""
        width, network = widths_of(group, self.multiple)[0], self.network
        if width == group.channels:
            few = f"{group.channels} channels are no more than one multiple of {self.multiple}"
            return self.holds(group.name, few)
        why = failure(
            lambda: cut(network, [group], {group.name: width}, (), False),
            self.features,
            self.shape,
            "with fewer of them",
            None if group.mixes else lambda: silenced(network, group, width, self.features),
        )
        return self.holds(group.name, why)

    def droppable(self, groups: Sequence[ChannelGroup]) -> tuple[tuple[ChannelGroup, ...], tuple[str, ...]]:
        """Blocks whose removal goes with every choice of widths, and the groups after coupling both their ends."""
        network, features = self.network, self.features
        found = find_blocks(network, features)
        before: dict[str, set[str]] = {block: set() for block in found}
        after: dict[str, set[str]] = {block: set() for block in found}
        full = passages(network, features)
        for group in groups:
            narrow = passages(
                cut(network, [group], {group.name: widths_of(group, self.multiple)[0]}, (), False).eval(), features
            )
            for block in found:
                if narrow[block].into.shape != full[block].into.shape:
                    before[block].add(group.name)
                if narrow[block].out.shape != full[block].out.shape:
                    after[block].add(group.name)
        by_name = {group.name: group for group in groups}
        root = {group.name: group.name for group in groups}
        blocks: list[str] = []
        for block in found:
            first, last = ({root[name] for name in names} for names in (before[block], after[block]))
            if first != last:
                if len(first) != 1 or len(last) != 1 or by_name[min(first)].channels != by_name[min(last)].channels:
                    self.whole[block] = "its input and output could get different widths"
                    continue
                (keep,), (join,) = first, last
                by_name[keep] = merged(network, by_name[keep], by_name.pop(join))
                root = {name: keep if to == join else to for name, to in root.items()}
            if self.runs_without(block):
                blocks.append(block)
        return tuple(by_name.values()), tuple(blocks)

    def runs_without(self, block: str) -> bool:
        """Whether the network keeps its output's shape without the block."""
        network = self.network
        why = failure(lambda: cut(network, (), {}, (block,), False), self.features, self.shape, "without it")
        return self.holds(block, why)

    def head(self, found: Sequence[Hidden], groups: Sequence[ChannelGroup]) -> tuple[Hidden, ...]:
        """Hidden layers that can be left out, whatever the widths are: their group lies in the head alone."""
        own = {hidden.layer for hidden in found}
        others = [group for group in groups if group.name not in own]
        coupled = {piece.layer for group in others for piece in group.slices if not piece.consumes}
        kept = []
        for hidden in found:
            why = failure(
                lambda hidden=hidden: with_head(self.network, [hidden], None),  # type: ignore[misc]
                self.features,
                self.shape,
                "without it",
            )
            if why is None and hidden.layer in coupled:
                why = "its units are coupled with others that stay"
            if why is None:
                kept.append(hidden)
            else:
                self.whole.setdefault(hidden.layer, why)
        return tuple(kept)

    def averages(self, found: Pooling | None) -> Pooling | None:
        """The pooling, where its network answers like the teacher whose maps have been averaged."""
        if found is None:
            return None
        why: str | None = None
        for pooling in dict.fromkeys((found, replace(found, flatten=None, rank=0))):
            why = failure(
                lambda pooling=pooling: pooled(self.network, pooling),  # type: ignore[misc]
                self.features,
                self.shape,
                "with averaged maps",
                lambda pooling=pooling: reads_averages(self.network, pooling, self.features),  # type: ignore[misc]
            )
            if why is None:
                return pooling
        self.whole[f"the map that {found.reader} reads"] = str(why)
        return None

    def kernels(self, found: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """The sizes at which each convolution answers as with its outer weights at zero.

        All convolutions are tried together; one by one only where that fails.
        """
        good: dict[str, list[int]] = {name: [sizes[-1]] for name, sizes in found.items()}
        for step in range(2, 1 + max(map(len, found.values()), default=0)):
            cuts = {name: sizes[-step] for name, sizes in found.items() if len(sizes) >= step}
            together = self.crops(cuts) is None
            for name, size in cuts.items():
                why = None if together else self.crops({name: size})
                if why is None:
                    good[name].insert(0, size)
                else:
                    self.whole[f"the kernel of {name}"] = why
        return {name: tuple(sizes) for name, sizes in good.items() if len(sizes) > 1}

    def crops(self, sizes: Mapping[str, int]) -> str | None:
        """Why cutting these kernels together gives another network than it should, or None."""
        return failure(
            lambda: cut(self.network, (), {}, (), False, sizes),
            self.features,
            self.shape,
            "with smaller kernels",
            lambda: kernel.rimless(self.network, sizes, self.features),
        )

    def shrinks(self, pooling: Pooling | None) -> tuple[int, ...]:
        """How far the features can be averaged, ascending from 1."""
        shape = tuple(self.features.shape[1:])
        found = [1]
        for shrink in SHRINKS:
            if len(shape) not in (1, 2, 3) or set(windows(shape, shrink)) <= {1}:
                break
            why = failure(
                lambda shrink=shrink: at_lower_resolution(  # type: ignore[misc]
                    pooled(self.network, pooling), shape, shrink
                ),
                self.features,
                self.shape,
                "at a lower resolution",
            )
            if why is not None:
                head = "the resolution" if pooling is None else "the resolution in front of a head that reads averages"
                self.whole[f"{head}, by {shrink}"] = why
                break
            found.append(shrink)
        return tuple(found)


def pooled(network: nn.Module, pooling: Pooling | None) -> nn.Module:
    """A copy of the network whose head reads averages, or all positions where there is no pooling."""
    changed = with_head(network, (), pooling)
    if pooling is not None:
        pool(changed, pooling, ())
    return changed
