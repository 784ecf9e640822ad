"""Students cut out of the teacher: narrower, shallower, with the weights that matter most. Nobody writes a student.

Channels that depend on each other are found by tracing (`structure/channels.py`), blocks that can be left out by
running (`structure/blocks.py`). Each finding is proven on real features before it is offered: a cut network must run,
keep its output's shape and, where no normalisation runs over the channels, answer exactly like the teacher with these
channels silenced. What fails stays whole, and `whole` says why.
"""

import copy
import hashlib
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from compress.contracts.space import Space, SpaceContext
from compress.errors import RecipeError
from compress.structure.blocks import find_blocks, passages
from compress.structure.channels import ChannelGroup, Slice, find_groups, order_of
from compress.structure.cut import cut

SUM_ORDER = 1e-3  # of the largest output: float32 sums over fewer terms are taken in another order
FACTORS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 1.0)  # of the teacher's widths, in `corners`
USE_INSTEAD = "use the space 'int8_conv', which needs nothing of the teacher's inside"


@dataclass(frozen=True)
class Plan:
    """One student.

    Attributes:
        widths: (group, channels that stay), sorted by group; without the groups that lie in blocks left out.
        dropped: blocks that are left out, in the teacher's order.
    """

    widths: tuple[tuple[str, int], ...]
    dropped: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data that `Derived.from_json` reads."""
        return {"widths": dict(self.widths), "dropped": list(self.dropped)}

    def __hash__(self) -> int:
        # Python salts the hashes of strings per process; this one is the same in every run.
        return int.from_bytes(hashlib.sha256(json.dumps(self.to_json()).encode()).digest()[:7], "big")


def silenced(network: nn.Module, group: ChannelGroup, width: int, features: Tensor) -> Tensor:
    """What `network` answers when nothing reads the channels that a cut to `width` removes. It is left as it was."""
    removed = torch.ones(group.channels, dtype=torch.bool)
    removed[group.kept(width)] = False
    before: list[tuple[nn.Parameter, Tensor]] = []
    with torch.no_grad():
        try:
            for piece in group.slices:
                for name, dim in piece.tensors if piece.consumes else ():
                    weight = network.get_submodule(piece.layer).get_parameter(name)
                    before.append((weight, weight.detach().clone()))
                    weight.index_fill_(dim, piece.positions[removed].flatten(), 0.0)
            answer: Tensor = network(features)
        finally:
            for weight, values in reversed(before):
                weight.copy_(values)
    return answer


def merged(network: nn.Module, one: ChannelGroup, other: ChannelGroup) -> ChannelGroup:
    """Two groups of as many channels as one, so that the block between them can be left out."""
    slices: tuple[Slice, ...] = (*one.slices, *other.slices)
    sections = math.lcm(one.sections, other.sections)
    order = order_of(network, slices, one.channels)
    return ChannelGroup(one.name, one.channels, sections, slices, order, one.mixes or other.mixes)


@final
class Derived(Space[Plan]):
    """All plans for one teacher.

    Attributes:
        groups: channel groups whose width can be chosen.
        offered: group name -> widths, ascending; the last is the teacher's.
        blocks: modules that can be left out.
        whole: what stays as it is -> why.
    """

    def __init__(self, context: SpaceContext) -> None:
        if context.teacher is None:
            raise RecipeError(
                "the space 'derived' cuts students out of the teacher's layers, and this teacher is a black box",
                fix=USE_INSTEAD,
            )
        self.teacher = context.teacher
        self.trainable = not any(parameter.requires_grad for parameter in self.teacher.parameters())
        self.features = context.features[:2].detach().clone()
        self.multiple = context.width_multiple
        self.whole: dict[str, str] = {}
        # Tracing follows gradients and the proofs write into weights: both happen on a copy.
        network = copy.deepcopy(self.teacher).eval()
        for parameter in network.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        try:
            with torch.no_grad():
                self.answer: Tensor = network(self.features)
            with torch.enable_grad():
                coupling = find_groups(network, self.features)
        except Exception as error:  # any network may come here; whatever it raises, the advice is the same
            raise RecipeError(
                f"the teacher {type(self.teacher).__name__} cannot be traced on features"
                f" {tuple(self.features.shape)}: {type(error).__name__}: {error}",
                fix=f"give the teacher as a network of standard layers that takes one tensor, or {USE_INSTEAD}",
            ) from error
        self.whole.update(coupling.whole)
        groups = [group for group in coupling.groups if self.provable(network, group)]
        self.groups, self.blocks = self.droppable(network, groups)
        self.offered = {group.name: self.widths_of(group) for group in self.groups}
        if not self.groups and not self.blocks:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in list(self.whole.items())[:4])
            raise RecipeError(
                f"nothing of the teacher {type(self.teacher).__name__} can be made narrower or left out"
                + (f" ({reasons})" if reasons else ""),
                fix=USE_INSTEAD,
            )

    def widths_of(self, group: ChannelGroup) -> tuple[int, ...]:
        """Multiples of what the target wants (and of GroupNorm's groups), and the teacher's own width."""
        step = self.multiple
        while step % group.sections:
            step += self.multiple
        return (*range(step, group.channels, step), group.channels)

    def provable(self, network: nn.Module, group: ChannelGroup) -> bool:
        """Whether a cut of this group gives the network it should; otherwise `whole` says why not."""
        widths = self.widths_of(group)
        if len(widths) == 1:
            self.whole[group.name] = f"{group.channels} channels are no more than one multiple of {self.multiple}"
            return False
        try:
            with torch.no_grad():
                answer = cut(network, [group], {group.name: widths[0]}, (), False).eval()(self.features)
        except Exception as error:  # a forward pass of the user's may raise anything on shapes it does not expect
            self.whole[group.name] = f"the network does not run with fewer of them ({type(error).__name__})"
            return False
        if answer.shape != self.answer.shape:
            self.whole[group.name] = "the output's shape changes with them"
            return False
        if group.mixes:
            return True
        expected = silenced(network, group, widths[0], self.features)
        wrong = (answer - expected).abs().max() / expected.abs().max().clamp_min(1e-12)
        if not wrong <= SUM_ORDER:
            self.whole[group.name] = "the network computes something else with fewer of them than with them silenced"
            return False
        return True

    def droppable(
        self, network: nn.Module, groups: Sequence[ChannelGroup]
    ) -> tuple[tuple[ChannelGroup, ...], tuple[str, ...]]:
        """Blocks whose removal goes with every choice of widths, and the groups after coupling both their ends."""
        found = find_blocks(network, self.features)
        before: dict[str, set[str]] = {block: set() for block in found}
        after: dict[str, set[str]] = {block: set() for block in found}
        full = passages(network, self.features)
        for group in groups:
            narrow = passages(
                cut(network, [group], {group.name: self.widths_of(group)[0]}, (), False).eval(), self.features
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
            if self.runs_without(network, block):
                blocks.append(block)
        return tuple(by_name.values()), tuple(blocks)

    def runs_without(self, network: nn.Module, block: str) -> bool:
        """Whether the network keeps its output's shape without the block; otherwise `whole` says why not."""
        try:
            with torch.no_grad():
                answer = cut(network, (), {}, (block,), False).eval()(self.features)
        except Exception as error:  # as in `provable`
            self.whole[block] = f"the network does not run without it ({type(error).__name__})"
            return False
        if answer.shape != self.answer.shape:
            self.whole[block] = "the output's shape changes without it"
            return False
        return True

    def present(self, dropped: Sequence[str]) -> tuple[ChannelGroup, ...]:
        """Groups that do not lie in blocks left out."""
        prefixes = tuple(block + "." for block in dropped)
        return tuple(
            group for group in self.groups if not all(piece.layer.startswith(prefixes) for piece in group.slices)
        )

    def plan(self, widths: Mapping[str, int], dropped: Sequence[str]) -> Plan:
        """A plan in its one normal form. A group without a width gets the mean factor of those that have one."""
        dropped = tuple(block for block in self.blocks if block in dropped)
        groups = self.present(dropped)
        factors = [widths[group.name] / group.channels for group in groups if group.name in widths]
        factor = sum(factors) / len(factors) if factors else 1.0
        chosen = {group.name: widths.get(group.name, self.nearest(group, factor)) for group in groups}
        return Plan(tuple(sorted(chosen.items())), dropped)

    def nearest(self, group: ChannelGroup, factor: float) -> int:
        """The offered width nearest to `factor` times the teacher's; the smaller of two."""
        return min(self.offered[group.name], key=lambda width: (abs(width - factor * group.channels), width))

    def sample(self, rng: random.Random) -> Plan:
        """One width factor for all groups, which each follows loosely, and blocks left out at one rate."""
        factor = 2.0 ** rng.uniform(-3.5, 0.0)  # evenly over orders of magnitude: cost goes with its square
        widths = {group.name: self.nearest(group, factor * 2.0 ** rng.uniform(-0.5, 0.5)) for group in self.groups}
        rate = rng.choice((0.0, 0.25, 0.5, 0.75, 1.0))
        return self.plan(widths, [block for block in self.blocks if rng.random() < rate])

    def corners(self) -> Sequence[Plan]:
        """Even width factors with all blocks, every second one and none."""
        plans = [
            self.plan({group.name: self.nearest(group, factor) for group in self.groups}, dropped)
            for dropped in (self.blocks, self.blocks[::2], ())
            for factor in FACTORS
        ]
        return tuple(dict.fromkeys(plans))

    def mutate(self, plan: Plan, rng: random.Random) -> Plan:
        """Another width of one group, or one block more or less."""
        widths = dict(plan.widths)
        choice = rng.choice([*widths, *self.blocks])
        if choice not in widths:
            return self.plan(widths, sorted({choice} ^ set(plan.dropped)))
        widths[choice] = rng.choice([width for width in self.offered[choice] if width != widths[choice]])
        return self.plan(widths, plan.dropped)

    def crossover(self, plan: Plan, other: Plan, rng: random.Random) -> Plan:
        """Each block is left out or not as in either parent; each width comes from either parent that has the group."""
        dropped = [block for block in self.blocks if block in rng.choice((plan, other)).dropped]
        both = [dict(parent.widths) for parent in (plan, other)]
        widths = {
            group.name: rng.choice([parent[group.name] for parent in both if group.name in parent])
            for group in self.present(dropped)
        }
        return self.plan(widths, dropped)

    def from_json(self, data: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` gave.

        Raises:
            RecipeError: it is not a plan for this teacher.
        """
        wrong = None
        if set(data) != {"widths", "dropped"}:
            wrong = f"has the keys widths and dropped; this one has {', '.join(map(str, data)) or 'none'}"
        elif strange := [block for block in data["dropped"] if block not in self.blocks]:
            wrong = f"leaves out some of {', '.join(self.blocks) or 'no blocks'}; this one names {', '.join(strange)}"
        elif strange := sorted(set(data["widths"]) ^ {group.name for group in self.present(data["dropped"])}):
            wrong = f"gives a width to each group that is there; missing or unknown: {', '.join(strange)}"
        elif strange := [name for name, width in data["widths"].items() if width not in self.offered[name]]:
            there = ", ".join(map(str, self.offered[strange[0]]))
            wrong = f"gives {strange[0]} one of the widths {there}; this one {data['widths'][strange[0]]}"
        if wrong:
            raise RecipeError(
                f"a plan of derived {wrong}", fix="take a plan that was made for the same teacher and target"
            )
        return self.plan(data["widths"], data["dropped"])

    def build(self, plan: Plan) -> nn.Module:
        """The teacher with these widths and without these blocks, in training mode; weights are the teacher's.

        Batch-norm statistics are the teacher's too: they fit again after a few steps of training.
        """
        return cut(self.teacher, self.groups, dict(plan.widths), plan.dropped, self.trainable)


SPACE = Derived
