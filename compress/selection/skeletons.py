"""How large a network around a given cell the budget admits, and what a supernet's training costs.

All of it is proposed: the source searches at one size and evaluates at another, both fixed by hand.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from compress.contracts.selector import Candidate
from compress.selection.ranking import capacity, expense
from compress.structure.cell_network import NONE, SKIP, Nodes, Skeleton, edges_of

Admit = Callable[[Skeleton, Nodes], Candidate]
FORWARD, STEP = 1.0, 3.0  # passes: a step goes forward once and backward once, which takes about twice as long
LEAST_EPOCHS = 3  # of a supernet's training that is worth the name
UNROLLED = 4.0  # steps that one second-order gradient of the architecture takes, one after the other


def by_size(candidate: Candidate) -> tuple[float, float]:
    """Sorts the most capacity first, ties to the cheaper."""
    return (-capacity(candidate.cost), expense(candidate.cost))


def families(skeletons: Iterable[Skeleton]) -> list[tuple[Skeleton, ...]]:
    """Skeletons that differ in width alone, the narrowest first."""
    found: dict[tuple[int, tuple[int, ...]], list[Skeleton]] = {}
    for skeleton in skeletons:
        found.setdefault((skeleton.stem_stride, skeleton.cells), []).append(skeleton)
    return [tuple(sorted(members, key=lambda member: member.channels)) for members in found.values()]


def widest(family: Sequence[Skeleton], nodes: Nodes, admit: Admit) -> Candidate | None:
    """The widest admitted one, found by halving: cost grows with width. None where the narrowest is too dear."""
    best: Candidate | None = None
    low, high = 0, len(family) - 1
    while low <= high:
        middle = (low + high) // 2
        candidate = admit(family[middle], nodes)
        if candidate.rejected is None:
            best, low = candidate, middle + 1
        else:
            high = middle - 1
    return best


def largest(skeletons: Iterable[Skeleton], nodes: Nodes, admit: Admit) -> list[Candidate]:
    """The widest admitted candidate of every depth and reduction, the most capacity first."""
    found = [widest(family, nodes, admit) for family in families(skeletons)]
    return sorted((candidate for candidate in found if candidate is not None), key=by_size)


def walk_down(skeleton: Skeleton, nodes: Nodes, alpha: Tensor, operations: Sequence[str], admit: Admit) -> Candidate:
    """Replace operations by wires, each time the one whose wire was nearest to it in the mixture, until it is admitted.

    Returns:
        The first admitted candidate, or the last, rejected one, which is all wires.
    """
    candidate = admit(skeleton, nodes)
    shares = torch.log_softmax(alpha.detach().double().cpu(), dim=1)
    rows = {edge: shares[place] for place, edge in enumerate(edges_of(len(nodes)))}
    while candidate.rejected is not None:
        losses = [
            (
                float(rows[source, node][operations.index(name)] - rows[source, node][operations.index(SKIP)]),
                node,
                place,
            )
            for node, kept in enumerate(nodes, 1)
            for place, (source, name) in enumerate(kept)
            if name != SKIP
        ]
        if not losses:
            return candidate
        _, node, place = min(losses)
        kept = nodes[node - 1]
        wired = (*kept[:place], (kept[place][0], SKIP), *kept[place + 1 :])
        nodes = (*nodes[: node - 1], wired, *nodes[node:])
        candidate = admit(skeleton, nodes)
    return candidate


def operation_latencies(skeleton: Skeleton, operations: Sequence[str], nodes: int, admit: Admit) -> list[float]:
    """What one edge with each operation adds to the latency of all cells together, in ms and >= 0.

    Each is a difference of two costs: all kept edges with the operation, and all with a wire. "none" adds nothing.
    """
    wires: Nodes = tuple(
        tuple((source, SKIP) for source in range(max(0, node - 2), node)) for node in range(1, nodes + 1)
    )
    edges = sum(len(kept) for kept in wires)
    base = admit(skeleton, wires).cost.latency_ms

    def all_of(name: str) -> Nodes:
        return tuple(tuple((source, name) for source, _ in kept) for kept in wires)

    return [
        0.0 if name in (NONE, SKIP) else max(0.0, admit(skeleton, all_of(name)).cost.latency_ms - base) / edges
        for name in operations
    ]


def proxy_of(skeleton: Skeleton, widths: Sequence[int], channels: int) -> Skeleton:
    """The small network that is searched in place of `skeleton`: one cell per stage, about `channels` wide."""
    fitting = [width for width in widths if width <= min(channels, skeleton.channels)]
    return replace(skeleton, channels=max(fitting, default=min(widths)), cells=(1,) * len(skeleton.cells))


def multiply_accumulates(network: nn.Module, features: Tensor) -> int:
    """Of convolutions and linear layers for one of the examples `features`, (B, ...)."""
    total = 0

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        total += output[0].numel() * weight[0].numel()

    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(features[:1])
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return total


def passes_per_pair(voters: int, unrolled: bool) -> float:
    """Forward passes' worth of work for one example of each half: a step of the weights, one of the architecture, and
    one forward pass per voter."""
    return STEP + voters * FORWARD + STEP * (UNROLLED if unrolled else 1.0)


def training_share(supernet_macs: float, passes: float, reference_macs: float, examples: int, epochs: int) -> float:
    """Work in full trainings of one student.

    A full training takes `STEP` passes of a student over each of `examples` for `epochs`; the teacher's answers are
    not counted, so the share is rather too large.

    Args:
        supernet_macs: of one forward pass of the supernet for one example.
        passes: of the supernet, over one example each.
        reference_macs: of one forward pass of the student that "one full training" means.
    """
    return supernet_macs * passes / (reference_macs * STEP * examples * epochs)


def reference_macs(pool: Iterable[Candidate], otherwise: Iterable[Candidate]) -> float:
    """The median of the affordable candidates of the pool, or of the others where it has none."""
    for candidates in (pool, otherwise):
        macs = [candidate.cost.macs for candidate in candidates if candidate.rejected is None]
        if macs:
            return float(statistics.median(macs))
    raise ValueError("nothing is affordable")


def affordable(
    price: Callable[[int, int], float], allowed: float, most: int, least: int, epochs: int
) -> tuple[int, int]:
    """Examples and epochs within `allowed`: all epochs on as many examples as that leaves, down to `least`; then fewer
    epochs on `least`. (0, 0) where not even `LEAST_EPOCHS` are."""
    low = min(LEAST_EPOCHS, epochs)
    if price(least, epochs) <= allowed:
        fixed = price(0, epochs)
        each = (price(least, epochs) - fixed) / least
        return min(most, int((allowed - fixed) / each)), epochs
    for fewer in range(epochs - 1, low - 1, -1):
        if price(least, fewer) <= allowed:
            return least, fewer
    return 0, 0


def interleaved(lists: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    """The first of each, then the second of each, and so on, without repetition."""
    found: dict[str, Candidate] = {}
    for place in range(max(map(len, lists), default=0)):
        for members in lists:
            if place < len(members):
                found.setdefault(members[place].identity, members[place])
    return list(found.values())
