"""Packed projections as layers of their own."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compress.precision.layers import layers
from compress.qat import packed
from compress.qat import prepare as qat
from compress.qat.capture import capture
from tests.compress.qat.test_attention import Attention

LINEAR = torch.ops.aten.linear.default
WIDTH, HEADS = 16, 2
PIECE = WIDTH // HEADS


def by_slices(y: Tensor) -> list[Tensor]:
    return [y[..., start : start + WIDTH] for start in (0, WIDTH, 2 * WIDTH)]


CUTS: dict[str, Callable[[Tensor], object]] = {
    "chunk": lambda y: y.chunk(3, -1),
    "split": lambda y: y.split(WIDTH, 2),
    "uneven": lambda y: y.split([8, 24, 16], -1),
    "slices": by_slices,
    "unflatten": lambda y: y.unflatten(-1, (3, HEADS, PIECE)).permute(2, 0, 3, 1, 4),
    "reshape": lambda y: y.reshape(*y.shape[:2], 3, HEADS, PIECE).permute(2, 0, 3, 1, 4).unbind(0),
    "view": lambda y: y.view(y.shape[0], -1, 3, WIDTH).unbind(2),
    "heads first": lambda y: y.reshape(*y.shape[:2], HEADS, 3, PIECE).permute(3, 0, 2, 1, 4),
    "last axis of heads": lambda y: y.reshape(*y.shape[:2], HEADS, 3 * PIECE).transpose(1, 2).chunk(3, -1),
}


class Net(nn.Module):
    def __init__(self, cut: Callable[[Tensor], object], bias: bool = True) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"project": nn.Linear(WIDTH, 3 * WIDTH, bias=bias)})
        self.cut = cut

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        # Different functions, so that pieces in a wrong order are seen.
        one, two, three = self.cut(self.block["project"](x))  # type: ignore[misc]
        return one.tanh(), two * 2.0, three


def captured(model: nn.Module) -> torch.fx.GraphModule:
    return capture(model, (torch.randn(2, 6, WIDTH),), (), {"x": {1: "length"}})


def linears(graph: torch.fx.GraphModule) -> int:
    return sum(node.target is LINEAR for node in graph.graph.nodes)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", CUTS)
def test_computes_the_same_for_any_length(name: str, bias: bool) -> None:
    torch.manual_seed(0)
    model = Net(CUTS[name], bias).eval()
    graph = captured(model)
    packed.split(graph)
    graph.graph.lint()
    assert linears(graph) == 3
    assert {key for key, _ in graph.named_parameters()} == {
        f"block.project.{tensor}_{index}"
        for tensor in (("weight", "bias") if bias else ("weight",))
        for index in range(3)
    }
    for batch, length in ((3, 5), (1, 12)):
        x = torch.randn(batch, length, WIDTH)
        for one, other in zip(graph(x), model(x), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_torch_s_own_attention_is_split_too() -> None:
    torch.manual_seed(0)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]  # type: ignore[no-any-return]

    model = Own().eval()
    graph = captured(model)
    packed.split(graph)
    assert linears(graph) == 4
    x = torch.randn(3, 5, WIDTH)
    torch.testing.assert_close(graph(x), model(x), rtol=1e-5, atol=1e-6)


def summed(y: Tensor) -> list[Tensor]:
    return [*y.chunk(2, -1), y.sum(-1)]


def overlapping(y: Tensor) -> list[Tensor]:
    return [y[..., :24], y[..., 16:], y[..., 40:]]


def partly(y: Tensor) -> list[Tensor]:
    return [y[..., :16], y[..., 16:32], y[..., 32:40]]


def tokens(y: Tensor) -> list[Tensor]:
    return [y[:, :1], y[:, 1:2], y[:, 2:]]


@pytest.mark.parametrize("cut", [summed, overlapping, partly, tokens])
def test_what_is_not_cut_once_along_the_outputs_stays(cut: Callable[[Tensor], object]) -> None:
    graph = captured(Net(cut).eval())
    before = [str(node.target) for node in graph.graph.nodes]
    packed.split(graph)
    assert linears(graph) == 1
    assert [str(node.target) for node in graph.graph.nodes] == before


def test_a_weight_with_two_readers_stays() -> None:
    class Twice(Net):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return (*super().forward(x), self.block["project"](x + 1.0).relu())

    graph = captured(Twice(CUTS["chunk"]).eval())
    packed.split(graph)
    assert linears(graph) == 2
    assert {key for key, _ in graph.named_parameters()} == {"block.project.weight", "block.project.bias"}


def test_the_module_keeps_its_name_its_precision_and_its_gradients() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 6, WIDTH)
    model = Attention()
    prepared = qat.prepare(model, (x,), "tensorrt")
    assert [(site.module, site.operator) for site in prepared.sites] == [
        *[("project", "linear.default")] * 3, ("", "matmul.default"), ("", "matmul.default"),
    ]  # fmt: skip
    assert [(layer.name, len(layer.nodes)) for layer in layers(prepared) if layer.modules == ("project",)] == [
        ("project", 3)
    ]
    floats = qat.prepare(model, (x,), "tensorrt", float_modules=("project",))
    assert "project" not in {site.module for site in floats.sites if site.quantized}
    qat.calibrate(prepared, [x])
    prepared.train()
    prepared(x).square().sum().backward()
    parameters = dict(prepared.named_parameters())
    assert len(parameters) == 6
    assert all(value.grad is not None and bool(value.grad.any()) for value in parameters.values())
    again = qat.prepare(Attention(), (x,), "tensorrt")
    again.load_state_dict(prepared.state_dict())
    torch.testing.assert_close(again.eval()(x), prepared.eval()(x))


def test_other_runtimes_keep_the_packed_layer() -> None:
    prepared = qat.prepare(Attention(), (torch.randn(2, 6, WIDTH),), "onnxruntime_x86")
    assert sum(site.module == "project" for site in prepared.sites) == 1
