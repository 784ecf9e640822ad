"""The cheapest way to colour a graph's nodes in two precisions, as a minimum cut.

Some nodes are bound to one precision; the others take whichever needs fewer Casts. One tensor needs one Cast as soon as
any reader has another precision than its maker, however many such readers there are. Source: minimum cut by augmenting
along shortest paths (Dinic 1970); the gadget for "one cost for any number of readers" is the usual one of two auxiliary
vertices with infinite edges (Ishikawa 2003, on order-preserving costs, has the general form).
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

INFINITE = 1 << 60


@dataclass
class _Network:
    """Residual capacities; vertices are numbers."""

    edges: list[list[int]] = field(default_factory=list)  # per vertex: indices into to/capacity
    to: list[int] = field(default_factory=list)
    capacity: list[int] = field(default_factory=list)

    def vertex(self) -> int:
        self.edges.append([])
        return len(self.edges) - 1

    def edge(self, tail: int, head: int, capacity: int) -> None:
        for start, end, room in ((tail, head, capacity), (head, tail, 0)):
            self.edges[start].append(len(self.to))
            self.to.append(end)
            self.capacity.append(room)


def cheapest(
    nodes: Iterable[int],
    bound: Mapping[int, bool],
    tensors: Iterable[tuple[int, Iterable[int]]],
) -> dict[int, bool]:
    """Colour every node True or False with the fewest tensors whose maker and readers differ.

    Args:
        nodes: all of them.
        bound: colour of those that have no choice.
        tensors: (maker, readers) of each tensor, as nodes.

    Returns:
        The colour of each node. Among colourings with equally many such tensors, one with the most nodes True.
    """
    names = list(nodes)
    network = _Network()
    source, sink = network.vertex(), network.vertex()  # source's side is True
    at = {name: network.vertex() for name in names}
    cast = len(names) + 1  # one Cast outweighs every preference
    for name in names:
        if name not in bound:
            network.edge(source, at[name], 1)
        elif bound[name]:
            network.edge(source, at[name], INFINITE)
        else:
            network.edge(at[name], sink, INFINITE)
    for maker, readers in tensors:
        others = [at[reader] for reader in set(readers) - {maker}]
        if not others:
            continue
        down, up = network.vertex(), network.vertex()
        network.edge(at[maker], down, cast)
        network.edge(up, at[maker], cast)
        for other in others:
            network.edge(down, other, INFINITE)
            network.edge(other, up, INFINITE)
    _saturate(network, source, sink)
    # The largest source side: whatever cannot reach the sink any more.
    lost = _reaching(network, sink)
    return {name: at[name] not in lost for name in names}


def _saturate(network: _Network, source: int, sink: int) -> None:
    while True:
        level = _levels(network, source)
        if sink not in level:
            return
        position = [0] * len(network.edges)
        while _augment(network, source, sink, level, position):
            pass


def _levels(network: _Network, source: int) -> dict[int, int]:
    level, waiting = {source: 0}, deque([source])
    while waiting:
        vertex = waiting.popleft()
        for index in network.edges[vertex]:
            head = network.to[index]
            if network.capacity[index] > 0 and head not in level:
                level[head] = level[vertex] + 1
                waiting.append(head)
    return level


def _augment(network: _Network, source: int, sink: int, level: dict[int, int], position: list[int]) -> bool:
    """Push flow along one shortest path; without recursion, since a graph may be thousands of nodes deep."""
    path: list[int] = []
    vertex = source
    while vertex != sink:
        if position[vertex] == len(network.edges[vertex]):
            if not path:
                return False
            vertex = network.to[path.pop() ^ 1]
            position[vertex] += 1
            continue
        index = network.edges[vertex][position[vertex]]
        head = network.to[index]
        if network.capacity[index] > 0 and level.get(head, -1) == level[vertex] + 1:
            path.append(index)
            vertex = head
        else:
            position[vertex] += 1
    room = min(network.capacity[index] for index in path)
    for index in path:
        network.capacity[index] -= room
        network.capacity[index ^ 1] += room
    return True


def _reaching(network: _Network, sink: int) -> set[int]:
    """Vertices from which the sink can still be reached."""
    found, waiting = {sink}, deque([sink])
    while waiting:
        vertex = waiting.popleft()
        for index in network.edges[vertex]:
            tail = network.to[index]
            if network.capacity[index ^ 1] > 0 and tail not in found:
                found.add(tail)
                waiting.append(tail)
    return found
