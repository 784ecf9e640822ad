"""Graphs worked out from shapes: equal to traced ones in every field; no family where sizes follow nothing simple."""

import random
from collections.abc import Callable, Mapping

import torch
from torch import nn

from profiles.family import Affine, Family, learned
from profiles.graph import Graph, Span
from profiles.read_torch import read, read_spans

X = torch.zeros(1, 3, 12, 12)


class Block(nn.Module):
    """Adds."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, width, H, W) -> the same."""
        output: torch.Tensor = (x + self.norm(self.conv(x))).relu()
        return output


class Network(nn.Module):
    """Two widths beside each other, a block that can be absent, a flattened map."""

    def __init__(self, a: int, b: int, blocks: int = 1, kernel: int = 5) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, a, 3, stride=2, padding=1)
        self.right = nn.ConvTranspose2d(3, b, 2, stride=1, groups=1)
        self.shrink = nn.MaxPool2d(2, 2, padding=0)
        self.block = Block(a + b, kernel) if blocks else nn.Identity()
        self.depthwise = nn.Conv2d(a + b, a + b, 3, groups=a + b)
        self.head = nn.Linear((a + b) * 16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, 12, 12) -> (B, 4)."""
        both = torch.cat([self.left(x), self.shrink(self.right(x))], dim=1)
        output: torch.Tensor = self.head(self.depthwise(self.block(both)).flatten(1))
        return output


def family(make: Callable[[Mapping[str, int]], nn.Module], watched: tuple[str, ...] = ()) -> Family | None:
    rng = random.Random(0)

    def traced(sizes: Mapping[str, int]) -> tuple[Graph, Mapping[str, Span]]:
        return read_spans(make(sizes), X, watched)

    return learned(traced, lambda: {"a": rng.randint(2, 20), "b": rng.randint(2, 20)})


def test_worked_out_graphs_equal_traced_ones_in_every_field() -> None:
    found = family(lambda sizes: Network(sizes["a"], sizes["b"]), ("block",))
    assert found is not None
    for a, b in ((1, 1), (2, 30), (7, 3)):
        assert found.graph({"a": a, "b": b}) == read(Network(a, b), X)
        assert found.graph({"a": a, "b": b}, ("block",)) == read(Network(a, b, blocks=0), X)
        assert found.graph({"a": a, "b": b}, (), {"block.conv": 3}) == read(Network(a, b, kernel=3), X)


def test_a_structure_that_changes_with_the_sizes_is_no_family() -> None:
    def make(sizes: Mapping[str, int]) -> nn.Module:
        odd = [nn.ReLU()] if sizes["a"] % 2 else []
        return nn.Sequential(nn.Conv2d(3, sizes["a"], 3), *odd)

    assert family(make) is None


def test_a_product_of_sizes_is_no_family() -> None:
    assert family(lambda sizes: nn.Conv2d(3, sizes["a"] * sizes["b"], 3)) is None


def test_sums_are_worked_out() -> None:
    assert Affine(3, ((2, "a"), (-1, "b")))({"a": 5, "b": 4}) == 9


def test_spans_say_where_a_module_is() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1)), nn.ReLU())
    graph, spans = read_spans(network, X, ("1",))
    span = spans["1"]
    assert [op.operator for op in graph.ops[span.first : span.end]] == ["relu", "convolution"]
    assert graph.ops[span.first].inputs == (span.into,)
    assert graph.ops[span.end - 1].outputs == (span.out,)
    assert graph == read(network, X)
