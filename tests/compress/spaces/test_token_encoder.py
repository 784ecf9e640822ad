"""Students of token ids and a mask: what padding may not change, what is quantised, what is refused."""

import random
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from compress.contracts.space import SpaceContext
from compress.errors import RecipeError
from compress.frontends.unchanged import Unchanged
from compress.network import Model
from compress.qat import prepare as qat
from compress.spaces.token_encoder import SPACE, Encoder, Plan, TokenEncoder
from exporters import torch_to_onnx
from profiles.runners import on_onnxruntime
from tools import fuzz_spaces as fuzz

WORDS, LENGTH = 40, 8
IDS = torch.arange(1, 1 + 4 * LENGTH).reshape(4, LENGTH)
MASK = (torch.arange(LENGTH) < torch.tensor([[8], [5], [3], [1]])).long()


def context(family: str = "x86-cpu", **more: object) -> SpaceContext:
    given = {"features": IDS, "more": (MASK,), "values": (WORDS, 2)} | more
    return SpaceContext(None, outputs=6, width_multiple=16, family=family, **given)  # type: ignore[arg-type]


def network(depth: int = 2, *, unit: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return TokenEncoder(context(unit=unit)).build(Plan(32, depth, 2 if depth else 1, 2 if depth else 1, 64)).eval()


def test_plans_are_values_that_change_by_one_decision_and_cross() -> None:
    space = TokenEncoder(context())
    for seed in range(200):
        rng = random.Random(seed)
        plan = space.sample(rng)
        assert space.wrong_with(plan) is None
        fuzz.as_values(space, plan, space.sample(rng), rng)
    assert all(space.wrong_with(plan) is None for plan in space.corners())
    assert {plan.depth == 0 for plan in space.corners()} == {True, False}


@pytest.mark.parametrize("depth", [0, 2])
def test_padding_changes_nothing(depth: int) -> None:
    student = network(depth)
    elsewhere = torch.where(MASK == 0, WORDS - 1, IDS)
    with torch.no_grad():
        torch.testing.assert_close(student(elsewhere, MASK), student(IDS, MASK), rtol=0, atol=0)
        alone = student(IDS[1:2], MASK[1:2])
        torch.testing.assert_close(student(IDS, MASK)[1:2], alone, rtol=1e-5, atol=1e-6)


def test_a_bag_does_not_see_the_order_and_an_encoder_does() -> None:
    turned = IDS.flip(1)
    full = torch.ones_like(IDS)
    with torch.no_grad():
        torch.testing.assert_close(network(0)(turned, full), network(0)(IDS, full), rtol=1e-5, atol=1e-6)
        assert not torch.allclose(network(2)(turned, full), network(2)(IDS, full), atol=1e-3)


def test_answers_are_unit_vectors_where_the_teachers_are() -> None:
    with torch.no_grad():
        torch.testing.assert_close(network(2, unit=True)(IDS, MASK).norm(dim=1), torch.ones(4))
        assert not torch.allclose(network(2)(IDS, MASK).norm(dim=1), torch.ones(4))


def test_without_a_mask_every_token_is_there() -> None:
    student = SPACE(context(more=(), values=(WORDS,))).build(Plan(32, 1, 2, 2, 0)).eval()
    with torch.no_grad():
        torch.testing.assert_close(student(IDS), student(IDS, torch.ones_like(IDS)))


@pytest.mark.parametrize("quantizer", ["onnxruntime_x86", "tensorrt"])
def test_products_run_in_int8_behind_a_float_table(tmp_path: Path, quantizer: str) -> None:
    student = Model(Unchanged(), network(2, unit=True))
    prepared = qat.prepare(student.eval(), (IDS, MASK), quantizer, float_modules=("frontend",))
    qat.calibrate(prepared, [(IDS, MASK)])
    qat.enter(prepared, qat.phase(1.0))
    prepared.eval()
    path, names = tmp_path / "model.onnx", ("input_ids", "attention_mask")
    torch_to_onnx.convert(
        qat.convert(prepared), (IDS, MASK), path, opset=20, input_names=names, output_names=("y",), metadata={}
    )
    graph = onnx.load(path).graph
    assert [value.type.tensor_type.elem_type for value in graph.input] == [TensorProto.INT64] * 2
    (table,) = [tensor for tensor in graph.initializer if list(tensor.dims) == [WORDS, 32]]
    assert table.data_type == TensorProto.FLOAT
    stored = [tensor for tensor in graph.initializer if tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 2]
    assert len(stored) == 2 * 6 + 2  # four layers of attention and two of the perceptron per block, then two
    found = on_onnxruntime.load(path, as_written=True).run({"input_ids": IDS.numpy(), "attention_mask": MASK.numpy()})
    with torch.no_grad():
        expected = prepared(IDS, MASK)
    # A code on the border between two may fall to the other side: a step of the last layer's input.
    torch.testing.assert_close(torch.from_numpy(found["y"]), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"family": "cortex-m"}, "cannot"),
        ({"features": torch.rand(4, LENGTH), "more": ()}, "integers both"),
        ({"values": ()}, "integers both"),
        ({"more": (MASK, MASK)}, "integers both"),
        ({"more": (MASK[:, :4],)}, "integers both"),
        ({"answer": (6, 8)}, "numbers per example"),
    ],
)
def test_what_it_does_not_take_is_refused(more: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        TokenEncoder(context(**more))  # type: ignore[arg-type]


def test_taps_are_there() -> None:
    names = dict(network(2).named_modules())
    assert {"blocks.0", "blocks.1", "head"} <= names.keys()
    assert isinstance(network(2), Encoder)
