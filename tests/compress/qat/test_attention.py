"""Attention as two products."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.qat import prepare as qat
from compress.qat.capture import capture
from compress.qat.quantizer import PRODUCTS

WIDTH = 16


class Attention(nn.Module):
    """Torch's own operator with whatever the test passes on."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.options = options
        self.project = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.project(x).unflatten(-1, (3, 4, WIDTH // 4)).permute(2, 0, 3, 1, 4)
        if self.options.get("enable_gqa"):
            key, value = key[:, :2], value[:, :2]
        options = dict(self.options)
        if "attn_mask" in options:
            hidden = x[..., 0] > 0.3
            mask = ~hidden[:, None, None, :]
            options["attn_mask"] = mask if options["attn_mask"] == "bool" else torch.where(mask, 0.0, -5.0)
        mixed = F.scaled_dot_product_attention(query, key, value, **options)
        return mixed.transpose(1, 2).flatten(2)


@pytest.mark.parametrize(
    "options",
    [{}, {"is_causal": True}, {"scale": 0.1}, {"attn_mask": "bool"}, {"attn_mask": "float"}, {"enable_gqa": True}],
    ids=str,
)
def test_computes_what_torch_computes_for_any_length(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = Attention(**options).eval()
    graph = capture(model, (torch.randn(2, 8, WIDTH),), (), {"x": {1: "length"}})
    targets = [node.target for node in graph.graph.nodes]
    assert torch.ops.aten.scaled_dot_product_attention.default not in targets
    assert sum(target in PRODUCTS for target in targets) == 2
    for batch, length in ((3, 5), (1, 12)):
        x = torch.randn(batch, length, WIDTH)
        torch.testing.assert_close(graph(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("quantizer", "projections"), [("tensorrt", 3), ("onnxruntime_x86", 1)])
@pytest.mark.parametrize("mask", ["bool", "float"])
def test_both_products_are_quantised_and_the_mask_is_not(quantizer: str, projections: int, mask: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 6, WIDTH)
    expected = Attention(attn_mask=mask)
    model = qat.prepare(expected, (x,), quantizer)
    assert [(site.operator, site.quantized) for site in model.sites] == [
        *[("linear.default", True)] * projections,
        ("matmul.default", True),
        ("matmul.default", True),
    ]
    qat.calibrate(model, [x])
    with torch.no_grad():
        difference = (model(x) - expected(x)).abs().max() / expected(x).abs().max()
    assert float(difference) < 4 / 127  # eight bits at four places, the mask exact


def test_multi_head_attention_modules_are_taken_apart() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]

    x = torch.randn(4, 6, WIDTH)
    model = qat.prepare(Encoder(), (x,), "tensorrt")
    assert sum(site.quantized for site in model.sites) == 6  # three projections in, two products, one out
    assert all(site.quantized for site in model.sites)


def test_dropout_of_the_weights_works_in_training_only() -> None:
    x = torch.randn(4, 6, WIDTH)
    model = qat.prepare(Attention(dropout_p=0.5), (x,), "tensorrt")
    model.train()
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
