"""Leaving roundings out equals preparing the student anew."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.precision.layers import every_module, layers, modules_of
from compress.precision.switches import Run, Switches
from compress.qat import prepare as qat

QUANTIZERS = ("tensorrt", "onnxruntime_x86", "cortex_m")


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class Mixed(nn.Module):
    """A residual add, a max-pool, a concatenation, a product, a tied weight and a convolution without a module."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.block = Block(8)
        self.left = nn.Conv2d(8, 8, 1)
        self.right = nn.Conv2d(8, 8, 3, padding=1)
        self.kernel = nn.Parameter(torch.randn(16, 16, 1, 1) * 0.2)
        self.tied = nn.Linear(16, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.block(torch.relu(self.stem(x))), 2)
        x = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], 1)
        x = F.relu(F.conv2d(x, self.kernel)).mean((2, 3))
        return self.head(torch.relu(self.tied(torch.relu(self.tied(x)))))


@dataclass(frozen=True)
class Case:
    student: nn.Module
    model: qat.Prepared
    x: Tensor


@pytest.fixture(params=QUANTIZERS)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    student, x = Mixed().eval(), torch.rand(16, 1, 8, 8)
    model = qat.prepare(student, (x[:2],), request.param)
    qat.calibrate(model, [x])
    return Case(student, model.eval(), x)


def test_operators_that_share_a_weight_or_a_module_are_one_layer(case: Case) -> None:
    found = {layer.name: layer for layer in layers(case.model)}
    assert len(found["tied"].nodes) == 2  # called twice
    assert len(found) == 8
    own = next(layer for layer in found.values() if "" in layer.modules)
    assert len(own.nodes) == 1


def test_all_on_equals_the_prepared_student_and_all_off_the_float_one(case: Case) -> None:
    switches = Switches(case.model)
    everything = switches.marks(())
    run = Run(switches, (case.x,), switches.rounding(everything))
    torch.testing.assert_close(run.output, case.model(case.x), rtol=0, atol=0)
    off = run.variant(switches.rounding(everything - everything))
    torch.testing.assert_close(off, case.student(case.x), rtol=0, atol=2e-7)


def test_one_layer_in_float_equals_preparing_it_so(case: Case) -> None:
    switches = Switches(case.model)
    run = Run(switches, (case.x,), switches.rounding(switches.marks(())))
    # Where a concatenation loses its mark or a member, scales are found anew; elsewhere all ranges are the same.
    for name, same in (("stem", True), ("block.second", True), ("conv2d_5", False), ("left", False), ("tied", True)):
        layer = next(layer for layer in layers(case.model) if layer.name == name)
        again = qat.prepare(
            case.student, (case.x[:2],), case.model.quantizer, float_modules=("frontend", *layer.modules)
        )
        qat.calibrate(again, [case.x])
        step = 0.0 if same else max(float(fake.scale) for fake in again.activations())
        found = run.variant(switches.rounding(switches.marks(layer.modules)))
        torch.testing.assert_close(found, again.eval()(case.x), rtol=0, atol=step)


def test_every_module_leaves_nothing_to_round(case: Case) -> None:
    floats = qat.prepare(case.student, (case.x[:2],), case.model.quantizer, float_modules=every_module(case.model))
    assert not any(site.quantized for site in floats.sites)
    assert not list(floats.activations())
    torch.testing.assert_close(floats(case.x), case.student(case.x), rtol=0, atol=2e-7)


def test_a_variant_recomputes_only_what_follows(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    switches = Switches(case.model)
    run = Run(switches, (case.x,), switches.rounding(switches.marks(())))
    computed: list[str] = []
    original = Run._computed

    def counting(self: Run, node: object, *rest: object) -> object:
        computed.append(str(node))
        return original(self, node, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Run, "_computed", counting)
    run.variant(switches.rounding(switches.marks(("head",))))
    assert "linear_2" in computed
    assert not [name for name in computed if name.startswith("conv2d")]


def test_the_prepared_student_is_left_as_it_is(case: Case) -> None:
    before = case.model(case.x)
    Switches(case.model).marks(modules_of(layers(case.model), ["head"]))
    torch.testing.assert_close(case.model(case.x), before, rtol=0, atol=0)
