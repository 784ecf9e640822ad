"""Passes are held to what they say; one that breaks a model is named."""

import importlib
import pkgutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from exporters import check_onnx, graph, passes, rewrite
from exporters.errors import ExportError
from exporters.half import plan
from exporters.half.formats import FP16
from exporters.half.in_float import in_float32
from exporters.half.observe import observe
from exporters.passes import cast_to_half, drop_identities, drop_unused
from exporters.rewrite import Pass, named

NAMES = sorted(module.name for module in pkgutil.iter_modules(passes.__path__))
ARGUMENTS = {  # of passes that need to be told something
    "fix_shapes": lambda model, samples: ({"batch": len(next(iter(samples.values())))},),
    "lower_opset": lambda model, samples: (17,),
    "cast_to_half": lambda model, samples: (plan.decide(model, FP16, observe(model, [samples], FP16)),),
}


def load(name: str):
    return importlib.import_module(f"exporters.passes.{name}")


def shifted(model: ModelProto) -> ModelProto:
    """A broken pass: one weight is off."""
    model = graph.copy(model)
    tensor = max(model.graph.initializer, key=lambda one: int(np.prod(one.dims)))
    values = graph.array(tensor)
    values.flat[0] += 100
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


@pytest.mark.parametrize("name", NAMES)
def test_a_pass_says_what_it_needs_and_promises(name: str) -> None:
    module = load(name)
    assert "Requires:" in module.__doc__
    assert "Ensures:" in module.__doc__
    assert module.LARGEST_CHANGE >= 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["float_model", "int8_model", "depthwise_model"])
def test_every_pass_keeps_its_promise_on_real_networks(name: str, kind: str, request: pytest.FixtureRequest) -> None:
    exported = request.getfixturevalue(kind)
    model = check_onnx.load(exported.path)
    samples = {"input": exported.inputs.numpy()}
    before = model.SerializeToString(deterministic=True)
    arguments = ARGUMENTS.get(name, lambda model, samples: ())(model, samples)
    half = name == "cast_to_half"
    after = rewrite.run(
        model,
        [named(load(name), *arguments)],
        samples=samples,
        each=True,
        evaluable=(lambda one: in_float32(one, FP16)) if half else lambda one: one,
    )
    onnx.checker.check_model(after, full_check=True)
    assert model.SerializeToString(deterministic=True) == before, "a pass leaves its argument as it is"


@pytest.mark.parametrize("each", [False, True])
def test_the_pass_at_fault_is_named(each: bool, float_model) -> None:
    model = check_onnx.load(float_model.path)
    samples = {"input": float_model.inputs.numpy()}
    steps = [named(drop_identities), Pass("shift", shifted), named(drop_unused)]
    with pytest.raises(ExportError, match="graph pass 'shift' changed the model: output 'logits' moved by"):
        rewrite.run(model, steps, samples=samples, each=each)
    assert rewrite.run(model, steps) is not None, "without samples nothing is compared"


def test_what_a_pass_allows_is_counted_in_the_size_of_the_output() -> None:
    """(3, 4) has length 5; moving 4 to 4.1 is 0.1 / 5."""
    assert rewrite.relative_change(np.array([3.0, 4.0]), np.array([3.0, 4.1])) == pytest.approx(0.02)
    assert rewrite.relative_change(np.array([3.0, np.inf]), np.array([3.0, np.inf])) == 0.0
    assert rewrite.relative_change(np.array([3.0, 1.0]), np.array([3.0, np.nan])) == float("inf")


def test_lost_outputs_and_unreadable_graphs_are_told(float_model, tmp_path: Path) -> None:
    model = check_onnx.load(float_model.path)

    def rename(given: ModelProto) -> ModelProto:
        twin = graph.copy(given)
        twin.graph.output[0].name = "x"
        for node in twin.graph.node:
            for position, name in enumerate(node.output):
                if name == "logits":
                    node.output[position] = "x"
        return twin

    samples = {"input": float_model.inputs.numpy()}
    with pytest.raises(ExportError, match="became"):
        rewrite.run(model, [Pass("rename", rename)], samples=samples)
    with pytest.raises(ExportError, match="cannot run"):
        rewrite.run(model, [named(drop_unused)], samples={"wrong": samples["input"]})
    assert named(cast_to_half).name == "cast_to_half"
