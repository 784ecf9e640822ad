"""Students of token ids and a mask: what padding may not change, what is quantised, what is refused."""

import random
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

import profiles
from compress.contracts.space import SpaceContext
from compress.errors import RecipeError
from compress.frontends.unchanged import Unchanged
from compress.network import Model
from compress.precision.cost import Pricer
from compress.qat import prepare as qat
from compress.spaces.token_encoder import SPACE, SPREAD, Encoder, Plan, TokenEncoder, _principal
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


def quantised(quantizer: str, student: nn.Module) -> qat.Prepared:
    """Calibrated and frozen."""
    prepared = qat.prepare(student.eval(), (IDS, MASK), quantizer, float_modules=("frontend",))
    qat.calibrate(prepared, [(IDS, MASK)])
    qat.enter(prepared, qat.phase(1.0))
    return prepared.eval()


def written(prepared: nn.Module, path: Path) -> onnx.GraphProto:
    """The graph of the exported file."""
    names = ("input_ids", "attention_mask")
    torch_to_onnx.convert(
        qat.convert(prepared), (IDS, MASK), path, opset=20, input_names=names, output_names=("y",), metadata={}
    )
    return onnx.load(path).graph


@pytest.mark.parametrize("quantizer", ["onnxruntime_x86", "tensorrt"])
def test_products_run_in_int8_behind_a_table_of_codes(tmp_path: Path, quantizer: str) -> None:
    prepared = quantised(quantizer, Model(Unchanged(), network(2, unit=True)))
    path = tmp_path / "model.onnx"
    graph = written(prepared, path)
    assert [value.type.tensor_type.elem_type for value in graph.input] == [TensorProto.INT64] * 2
    (table,) = [tensor for tensor in graph.initializer if list(tensor.dims) == [WORDS, 32]]
    assert table.data_type == TensorProto.INT8
    (lookup,) = [node for node in graph.node if node.op_type == "Gather"]
    assert lookup.input[0] == table.name, "the rows that are asked for become numbers, not the table"
    stored = [tensor for tensor in graph.initializer if tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 2]
    assert len(stored) == 2 * 6 + 2 + 1  # four layers of attention and two of the perceptron per block, two, the table
    found = on_onnxruntime.load(path, as_written=True).run({"input_ids": IDS.numpy(), "attention_mask": MASK.numpy()})
    with torch.no_grad():
        expected = prepared(IDS, MASK)
    # A code on the border between two may fall to the other side: a step of the last layer's input.
    torch.testing.assert_close(torch.from_numpy(found["y"]), expected, rtol=0, atol=0.02)


def test_a_table_is_rounded_by_column_and_only_by_half_a_step() -> None:
    prepared = quantised("onnxruntime_x86", Model(Unchanged(), network(0)))
    table = prepared.graph.get_parameter("network.table.weight").detach()
    step = table.abs().amax(dim=0) / 127
    (site,) = [site for site in prepared.sites if site.operator.startswith("embedding")]
    assert (site.module, site.quantized) == ("network.table", True)
    (rounding,) = [module for module in prepared.weights() if module.scale.shape == step.shape and module.ch_axis == 1]
    torch.testing.assert_close(rounding.scale, step)
    with torch.no_grad():
        codes = rounding(table) / step
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-4)
    assert float((codes - table / step).abs().max()) <= 0.5 + 1e-4


def test_a_table_that_is_kept_in_float_says_so() -> None:
    student = Model(Unchanged(), network(0)).eval()
    prepared = qat.prepare(student, (IDS, MASK), "tensorrt", float_modules=("frontend", "network.table"))
    assert not [site for site in prepared.sites if site.operator.startswith("embedding") and site.quantized]


def test_on_x86_nothing_is_rounded_between_a_product_and_what_takes_numbers(tmp_path: Path) -> None:
    graph = written(quantised("onnxruntime_x86", Model(Unchanged(), network(1, unit=True))), tmp_path / "model.onnx")
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def ends(name: str) -> set[str]:
        found: set[str] = set()
        for node in readers.get(name, ()):
            moved = node.op_type in ("Reshape", "Transpose", "QuantizeLinear", "DequantizeLinear")
            found |= ends(node.output[0]) if moved else {node.op_type}
        return found

    rounded = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert rounded
    for node in rounded:
        assert ends(node.output[0]) & {"MatMul", "Gemm", "Add", "Gelu"}, node.name
    makers = {node.output[0]: node for node in graph.node}
    (softmax,) = [node for node in graph.node if node.op_type == "Softmax"]
    where = makers[softmax.input[0]]
    assert where.op_type == "Where"
    scaled = next(makers[name] for name in where.input if name in makers and makers[name].op_type == "Mul")
    assert makers[scaled.input[0]].op_type == "MatMul", "scores go to the softmax as the product gives them"


@pytest.mark.parametrize("target", ["x86", "a100"])
def test_what_is_predicted_of_the_weights_is_what_the_file_has(tmp_path: Path, target: str) -> None:
    device = profiles.target(target)
    torch.manual_seed(0)
    student = Model(Unchanged(), Encoder(Plan(32, 0, 1, 1, 0), 4000, LENGTH, 6, normalize=True)).eval()
    searched = profiles.profile(student, target=device, precision=device.precision, example=(IDS[:1], MASK[:1]))
    pricer = Pricer(student, (IDS, MASK), device, device.quantizer)
    priced = pricer.assignment()
    path = tmp_path / "model.onnx"
    written(quantised(device.quantizer, student), path)
    found = profiles.profile(path, target=device)
    table = 4000 * 32  # numbers, of a byte each
    assert table < found.weight_bytes < 1.02 * table
    assert searched.weight_bytes == pytest.approx(found.weight_bytes, rel=0.01)
    assert priced.weight_bytes == pytest.approx(found.weight_bytes, rel=0.01)
    assert path.stat().st_size < 1.1 * table
    (row,) = [item for item in pricer.by_layer() if item.layer.name == "network.table"]
    assert row.weight_bytes["fp32"] == 4 * table
    assert row.weight_bytes["int8"] == pytest.approx(table, rel=0.01)


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


def test_students_start_from_the_teachers_table_along_its_widest_axes() -> None:
    teacher = nn.Sequential(nn.Embedding(WORDS, 48), nn.Linear(48, 6))
    space = TokenEncoder(replace(context(), teacher=teacher))
    whole = space.build(Plan(48, 0, 1, 1, 0)).get_parameter("table.weight")
    own = teacher.get_parameter("0.weight")
    found, expected = (torch.cdist(one, one, compute_mode="donot_use_mm_for_euclid_dist") for one in (whole, own))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert bool((whole.detach().var(dim=0).diff() <= 1e-5).all()), "the widest first"
    narrow = space.build(Plan(32, 0, 1, 1, 0)).get_parameter("table.weight")
    assert torch.equal(narrow, whole[:, :32])
    wide = space.build(Plan(64, 0, 1, 1, 0)).get_parameter("table.weight")
    assert float(wide.detach().abs().max()) < 6 * SPREAD, "wider than the teacher's: random"


def test_an_axis_whose_entries_cancel_is_no_zero() -> None:
    table = nn.Embedding.from_pretrained(torch.tensor([[2.0, -2.0], [-2.0, 2.0], [1.0, -1.0], [-1.0, 1.0]]))
    found = _principal(table, 4)
    assert found is not None
    torch.testing.assert_close(found[:, 0].abs(), torch.tensor([8.0, 8.0, 2.0, 2.0]).sqrt())


def test_taps_are_there() -> None:
    names = dict(network(2).named_modules())
    assert {"blocks.0", "blocks.1", "head"} <= names.keys()
    assert isinstance(network(2), Encoder)
