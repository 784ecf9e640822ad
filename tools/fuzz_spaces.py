"""Random students of every space through the whole path: `python -m tools.fuzz_spaces [--plans 100] [--seed 0]`.

For each space, each kind of input and each family of targets, random plans, their mutations and their children are held
to what a space promises (compress/contracts/space.py): plans are plain values, a mutation is one decision, a child has
nothing of neither parent, every plan builds, trains, exports to ONNX with the same answers, quantises by the rules of
the family, and its Q/DQ graph answers in onnxruntime as the fake-quantised network does. What a target builds is made
from it, too: C for Cortex-M, a TensorFlow Lite file for Ethos-U; with --engines TensorRT-RTX engines.

    python -m tools.fuzz_spaces --spaces unet mlp --families cortex-m --plans 300
    python -m tools.fuzz_spaces --values 2000            # plans as values alone, which takes seconds

Prints one line per space, input and family, and what broke with the plan and seed that it takes to see it again. A run
that is interrupted says how far it got. The exit status is 1 where something broke or is left.
"""

import argparse
import copy
import json
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import profiles
from compress import catalog
from compress.contracts.space import Space, SpaceContext
from compress.errors import RecipeError
from compress.qat import prepare as qat
from compress.qat.bias_grid import BiasToGrid
from compress.qat.prepared import Prepared
from compress.qat.quantizer import rules
from compress.residual_network import ResidualNetwork
from compress.structure.decisions import made_for
from exporters import onnx_to_c, onnx_to_rtx_engine, onnx_to_tflite, torch_to_onnx
from exporters.builder import BuildOptions
from tools import exact_qdq

SPACES = "compress.spaces"
TARGETS = {
    "nvidia-gpu": "a100",
    "x86-cpu": "x86",
    "cortex-m": "cortex_m33",
    "ethos-u": "ethos_u55_128",
    "riscv-cluster": "gap9",
}
ALIKE = 0.8  # correlation of fake-quantised and float answers of an untrained network
TRIES = 30  # plans per wanted network until one is small enough
SAME_SUMS = 1e-4  # of the largest output: float32 sums in another order
SAME_CODES = 1e-6  # of the largest output: scales are kept in float32, 2^-24 of their size off; measured 4e-8
DIFFERING = 0.1  # share of the examples in which a value may lie on a half; measured: none, of 140 networks


@dataclass(frozen=True)
class Kind:
    """What students read and what they answer.

    Attributes:
        shape: of one example's features.
        answer: of one example.
        values: how many integers the features may hold, from 0, where they are tokens beside a mask; 0 for numbers.
        unit: whether answers have length 1.
    """

    shape: tuple[int, ...]
    answer: tuple[int, ...]
    values: int = 0
    unit: bool = False

    def draw(self, count: int) -> tuple[Tensor, ...]:
        """Random examples from torch's current seed: (count, ...) each."""
        if not self.values:
            return (torch.randn(count, *self.shape),)
        there = torch.arange(self.shape[-1]) < torch.randint(1, self.shape[-1] + 1, (count, 1))
        return torch.randint(1, self.values, (count, *self.shape)) * there, there.long()


KINDS: Mapping[str, Kind] = {
    "digits": Kind((1, 28, 28), (10,)),
    "colour": Kind((3, 32, 32), (10,)),
    "log_mel": Kind((1, 32, 61), (6,)),
    "signal": Kind((1, 1000), (4,)),
    "sequence": Kind((12, 50), (3,)),
    "table": Kind((40,), (2,)),
    "odd": Kind((2, 15, 13), (5,)),
    "pixels": Kind((1, 32, 32), (3, 32, 32)),
    "odd_pixels": Kind((2, 15, 13), (4, 15, 13)),
    "coarse_pixels": Kind((3, 32, 48), (3, 8, 12)),
    "steps": Kind((2, 120), (3, 120)),
    "tokens": Kind((12,), (7,), values=50),
    "texts": Kind((32,), (24,), values=300, unit=True),
}


class Dense(nn.Module):
    """A teacher that answers every position, or every fourth."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.signal = len(kind.shape) == 2
        stride = max(1, round(kind.shape[-1] / kind.answer[-1]))
        high = 1 if self.signal else 3
        self.first = nn.Conv2d(kind.shape[0], 32, (high, 3), (1 if self.signal else stride, stride), (high // 2, 1))
        self.norm = nn.BatchNorm2d(32)
        self.second = nn.Conv2d(32, 32, (high, 3), padding=(high // 2, 1))
        self.head = nn.Conv2d(32, kind.answer[0], 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, outputs, ...)."""
        if self.signal:
            x = x.unsqueeze(2)
        x = self.head(self.second(self.norm(self.first(x)).relu()).relu())
        return x.squeeze(2) if self.signal else x


class Bag(nn.Module):
    """A teacher of tokens, whose table students may start from."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.table = nn.Embedding(kind.values, 64)
        self.head = nn.Linear(64, kind.answer[0])

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, n) and (B, n) -> (B, outputs)."""
        output: Tensor = self.head((self.table(ids) * mask.unsqueeze(-1)).sum(dim=1))
        return output


def teacher(kind: Kind) -> nn.Module:
    """A small network for these features, untrained, in evaluation mode."""
    torch.manual_seed(0)
    channels, outputs = kind.shape[0], kind.answer[0]
    if len(kind.answer) > 1:
        return Dense(kind).eval()
    if kind.values:
        return Bag(kind).eval()
    if len(kind.shape) == 3:
        return ResidualNetwork(channels, widths=(32, 48), depths=(1, 2), outputs=outputs).eval()
    if len(kind.shape) == 2:
        layers: list[nn.Module] = []
        for inputs, width in ((channels, 32), (32, 48)):
            layers += [nn.Conv1d(inputs, width, 9, 4, 4, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(48, outputs)).eval()
    return nn.Sequential(
        nn.Linear(channels, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, outputs)
    ).eval()


def context(kind: Kind, family: str) -> SpaceContext:
    """What a space is told by a run on this kind of input and target."""
    target = profiles.target(TARGETS[family])
    torch.manual_seed(1)
    features, *more = kind.draw(4)
    values = (kind.values, 2) if kind.values else (0,)
    width, outputs = target.width_multiple, kind.answer[0]
    known = None if kind is KINDS["tokens"] else teacher(kind)  # a black box
    return SpaceContext(known, features, outputs, width, family, kind.answer, tuple(more), values, kind.unit)


# -- plans as values ---------------------------------------------------------------------------------------------------


def as_values(space: Space[Any], plan: Any, other: Any, rng: random.Random) -> None:
    """Equality, hash, JSON, mutation and crossover of two plans of a space.

    Raises:
        AssertionError: says what does not hold.
    """
    for one in (plan, other):
        text = json.dumps(one.to_json())
        again = space.from_json(json.loads(text))
        assert again == one, f"{text} comes back as {again}"
        assert hash(again) == hash(one), f"{text} comes back with another hash"
        assert json.dumps(again.to_json()) == text, f"{text} is written again as {again.to_json()}"
    assert (plan == other) == (plan.to_json() == other.to_json()), "equal plans differ in their JSON, or the reverse"
    assert (plan == other) == (hash(plan) == hash(other)), "different plans share a hash, or equal ones do not"
    mutated = space.mutate(plan, rng)
    assert space.from_json(mutated.to_json()) == mutated, f"the mutation {mutated} is not of the space"
    assert changes(plan.to_json(), mutated.to_json()) == 1, f"{plan} became {mutated}"
    assert space.crossover(plan, plan, rng) == plan, f"{plan} crossed with itself is another"
    child = space.crossover(plan, other, rng)
    assert space.from_json(child.to_json()) == child, f"the child {child} is not of the space"
    strange = of_neither(child.to_json(), plan.to_json(), other.to_json())
    assert not strange, f"{strange} of {child} is of neither {plan} nor {other}"


def changes(one: Any, other: Any) -> int:
    """Decisions in which two plans' JSON differ.

    What only one of the two has (a stage's width and depth, the widths of a block that is left out) counts as the one
    decision that brought it.
    """
    changed, grown = differences(one, other)
    return changed or int(grown)


def differences(one: Any, other: Any) -> tuple[int, bool]:
    """(decisions that differ, whether one has decisions that the other has not)."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        inner = [differences(one[key], other[key]) for key in one.keys() & other.keys()]
        return sum(count for count, _ in inner), one.keys() != other.keys() or any(grown for _, grown in inner)
    if isinstance(one, list) and isinstance(other, list):
        inner = [differences(*pair) for pair in zip(one, other, strict=False)]
        placed = sum(count for count, _ in inner), len(one) != len(other) or any(grown for _, grown in inner)
        if not (is_choice(one) and is_choice(other)):
            return placed
        before, after = Counter(map(json.dumps, one)), Counter(map(json.dumps, other))
        chosen = max((before - after).total(), (after - before).total())
        if not chosen:  # the same names in another order
            return placed
        return (chosen, False) if placed[1] else min(placed, (chosen, False))
    return int(one != other), False


def is_choice(value: list[Any]) -> bool:
    """Whether a list in a plan's JSON is a set: of names, or of pairs with a name (edges of a cell)."""
    return all(isinstance(item, str) or (isinstance(item, list) and isinstance(item[-1], str)) for item in value)


def of_neither(child: Any, one: Any, other: Any, path: str = "") -> list[str]:
    """Decisions of the child's JSON that neither parent has, where at least one parent decides this at all."""
    parents = [parent for parent in (one, other) if parent is not None]
    if isinstance(child, Mapping):
        keys = [key for key in child if any(key in parent for parent in parents)]
        both = [[parent and parent.get(key) for parent in (one, other)] for key in keys]
        return [
            found
            for key, (mine, others) in zip(keys, both, strict=True)
            for found in of_neither(child[key], mine, others, f"{path}/{key}")
        ]
    if isinstance(child, list) and is_choice(child):
        known = [item for parent in parents for item in parent]
        return [f"{path}/{item}" for item in child if item not in known]
    if isinstance(child, list):
        found = []
        for place, item in enumerate(child):
            mine, others = (p[place] if p is not None and place < len(p) else None for p in (one, other))
            if mine is not None or others is not None:
                found += of_neither(item, mine, others, f"{path}/{place}")
        return found
    return [] if child in parents else [path]


# -- networks ----------------------------------------------------------------------------------------------------------


def built(space: Space[Any], plan: Any, kind: Kind) -> nn.Module:
    """The network, after it answered in the right shape, had gradients everywhere, and was built a second time alike.

    Raises:
        AssertionError: says what does not hold.
    """
    networks = []
    for _ in range(2):
        torch.manual_seed(7)
        networks.append(space.build(plan))
    network, twin = networks
    assert network.state_dict().keys() == twin.state_dict().keys(), "two builds differ"
    for key, value in network.state_dict().items():
        assert torch.equal(value, twin.state_dict()[key]), f"{key} differs between two builds of one seed"
    network.train()
    answer = network(*kind.draw(6))
    assert answer.shape == (6, *kind.answer), f"answers {tuple(answer.shape)}"
    # Not linear in the answer: a sum over outputs behind a normalisation has no gradient.
    (answer * torch.randn_like(answer)).square().sum().backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not without, f"no gradient reaches {without}"
    assert all(bool(torch.isfinite(p.grad).all()) for p in network.parameters() if p.grad is not None), "not finite"
    network.zero_grad()
    with torch.no_grad():
        for _ in range(4):  # batch norm's statistics are those of real activations from here on
            network(*kind.draw(16))
        return network.eval()


def exported(network: nn.Module, kind: Kind, path: Path, quantizer: str | None = None) -> None:
    """Write the network, or a converted one, as ONNX.

    Raises:
        ExportError: the exporter refuses it.
    """
    torch_to_onnx.convert(
        network,
        kind.draw(2),
        path,
        opset=20,
        input_names=names_of(kind),
        output_names=("output",),
        metadata={},
        last=rules(quantizer).passes if quantizer else (),
        verify=False,
    )


def names_of(kind: Kind) -> tuple[str, ...]:
    """Of the inputs in a file."""
    return ("ids", "mask") if kind.values else ("input",)


def run(path: Path, features: Sequence[Tensor]) -> Tensor:
    """What onnxruntime makes of the graph as it is written."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    feed = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in zip(names, features, strict=True)}
    (answer,) = session.run(None, feed)
    return torch.from_numpy(answer)


def same_in_onnx(network: nn.Module, kind: Kind, path: Path) -> None:
    """Export the float network and compare its answers, for another batch size than it was exported with.

    Raises:
        AssertionError: by how much they differ.
    """
    exported(network, kind, path)
    features = kind.draw(5)
    with torch.no_grad():
        expected = network(*features)
    worst = float((run(path, features) - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
    assert worst <= SAME_SUMS, f"ONNX differs by {worst:.1e} of the largest output"


def quantised(network: nn.Module, kind: Kind, quantizer: str, path: Path) -> Prepared:
    """Quantise, write the Q/DQ graph, and compare it with the fake-quantised network.

    Raises:
        AssertionError: how much the two differ, or the quantised network from the float one.
    """
    torch.manual_seed(3)
    prepared = qat.prepare(network, kind.draw(2), quantizer, input_names=names_of(kind))
    qat.calibrate(prepared, [kind.draw(16) for _ in range(2)])
    qat.enter(prepared, qat.phase(1.0))
    prepared.eval()
    assert any(site.quantized for site in prepared.sites), "nothing is quantised"
    exported(qat.convert(prepared), kind, path, quantizer)
    features = kind.draw(16)
    same_codes(prepared, path, features)
    with torch.no_grad():
        expected, plain = prepared(*features), network(*features)
    # In float32 single codes differ where sums do, and in deep networks a few on the way change many answers: this
    # holds the runtime to what rounding itself does, and `same_codes` the graph to what it should compute.
    off = (run(path, features) - expected).square().mean().sqrt()
    noise = (expected - plain).square().mean().sqrt()
    step = expected.abs().max() / 127
    assert off <= max(step / 2, noise / 2), f"{off / step:.2f} steps off, where rounding itself is {noise / step:.2f}"
    # Rounding adds noise; a graph that computes something else has nothing in common with the float network.
    alike = float(torch.corrcoef(torch.stack([plain.flatten(), expected.flatten()]))[0, 1])
    assert alike >= ALIKE, f"fake-quantised and float answers correlate by {alike:.2f} only"
    return prepared


def same_codes(prepared: Prepared, path: Path, features: Sequence[Tensor]) -> None:
    """Hold the Q/DQ graph to the fake-quantised network where neither is at the mercy of float32's last bit.

    Both in float64 (`tools/exact_qdq.py`): nine of ten examples (or positions, where each has an answer) must then
    agree all the way. None does where a scale, a zero point or a pair is wrong. Where a value still lies on a half, an
    example may differ.

    Raises:
        AssertionError: how many examples differ, and by how much.
    """
    with torch.no_grad():
        exact = [tensor.double() if tensor.is_floating_point() else tensor for tensor in features]
        expected = in_float64(prepared)(*exact)
    found = torch.from_numpy(exact_qdq.answers(path, *(tensor.numpy() for tensor in features)))
    assert found.shape == expected.shape, f"the graph answers {tuple(found.shape)}"
    apart = (found - expected).abs() / expected.abs().max().clamp_min(1e-6)
    # Answers for every position: a value on a half moves those around it alone.
    each = apart.flatten(2).movedim(1, 2).flatten(0, 1) if apart.ndim > 2 else apart
    worst = each.amax(1)
    differ = int((worst > SAME_CODES).sum())
    assert differ <= DIFFERING * len(worst), (
        f"{differ} of {len(worst)} {'positions' if apart.ndim > 2 else 'examples'} differ, by {float(worst.max()):.1e} "
        "of the largest output at most"
    )


def in_float64(prepared: Prepared) -> Prepared:
    """A copy that computes activations in float64, with the codes of weights and biases as float32 has them: those
    ship."""
    twin = copy.deepcopy(prepared).double()
    biases = (module for module in twin.modules() if isinstance(module, BiasToGrid))
    for module in (*twin.weights(), *biases):
        module.float()
        module.register_forward_pre_hook(lambda _, given: tuple(narrowed(value) for value in given))
        module.register_forward_hook(lambda _, __, output: output.double())
    return twin


def narrowed(value: Any) -> Any:
    """A tensor in float32; whatever else as it is."""
    return value.float() if isinstance(value, Tensor) else value


def made(family: str, prepared: Prepared, path: Path, folder: Path, engines: bool) -> str:
    """What the target builds from the file, in a word or two.

    Raises:
        ExportError: the exporter refuses it.
        AssertionError: a layer that was quantised runs in float.
    """
    target = profiles.target(TARGETS[family])
    if family == "cortex-m":
        onnx_to_c.sources(path, target, folder / "c")
        return "C"
    if family == "ethos-u":
        outside: Any = onnx_to_tflite.convert(path, target, folder).facts["outside"]
        computed = [node for node in outside if node.split()[0] not in ("Reshape", "Unsqueeze", "Squeeze", "Flatten")]
        assert not computed, f"{computed} stay outside of the file"
        return "TFLite"
    if family == "nvidia-gpu" and engines:
        options = BuildOptions(purpose="check", capability="8.0", name="check.engine")
        facts: dict[str, Any] = dict(onnx_to_rtx_engine.convert(path, target, folder, options=options).facts)
        assert not facts["missed_int8_nodes"], f"{facts['missed_int8_nodes']} run in float"
        return "engine"
    return ""


# -- the search for what breaks ----------------------------------------------------------------------------------------


def spaces_of(kind: Kind, family: str, names: Sequence[str]) -> Iterator[tuple[str, Space[Any]]]:
    """The spaces that can be made for this input and family."""
    for name in names:
        try:
            yield name, made_for(name, catalog.load(SPACES, name).SPACE, context(kind, family))
        except RecipeError:
            continue


def plans_of(space: Space[Any], kind: Kind, count: int, most: float, rng: random.Random) -> list[Any]:
    """Distinct plans of at most `most` multiply-accumulates: corners, samples, and what becomes of them by search."""
    corners = list(space.corners())
    found: dict[Any, int] = {plan: macs(space.build(plan), kind) for plan in (corners[0], rng.choice(corners))}
    for attempt in range(TRIES * count):
        if sum(cost <= most for cost in found.values()) >= count:
            break
        known = list(found)
        one, other = rng.choice(known), rng.choice(known)
        turn = attempt % 3
        plan = (
            space.sample(rng)
            if turn == 0
            else space.mutate(one, rng)
            if turn == 1
            else space.crossover(one, other, rng)
        )
        if plan not in found:
            found[plan] = macs(space.build(plan), kind)
    return [plan for plan, cost in found.items() if cost <= most][-count:]


def macs(network: nn.Module, kind: Kind) -> int:
    """Multiply-accumulates of one example."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(*(tensor[:1] for tensor in kind.draw(2)))
    return int(counter.get_total_flops()) // 2


@dataclass
class Row:
    """One space on one kind of input and one family."""

    space: str
    kind: str
    family: str
    values: int = 0
    networks: int = 0
    built: int = 0
    seconds: float = 0.0
    broken: tuple[str, ...] = ()

    def line(self) -> str:
        """For the table."""
        return (
            f"{self.space:20} {self.kind:14} {self.family:11} {self.values:7} {self.networks:9} {self.built:6} "
            f"{len(self.broken):6} {self.seconds:8.1f}"
        )


HEAD = f"{'space':20} {'input':14} {'family':11} {'values':>7} {'networks':>9} {'built':>6} {'broken':>6} {'CPU s':>8}"


def search(row: Row, space: Space[Any], given: argparse.Namespace) -> None:
    """Everything for one space, kind of input and family; the row is filled as it goes."""
    start, kind, family = time.process_time(), row.kind, row.family
    rng = random.Random(f"{given.seed}/{row.space}/{kind}/{family}")
    for number in range(given.values):
        plan = space.sample(rng)
        try:
            as_values(space, plan, rng.choice((plan, space.sample(rng), space.mutate(plan, rng))), rng)
        except Exception:  # whatever it is, it is a finding
            broken(row, f"value {number}", plan)
        row.values += 1
        row.seconds = time.process_time() - start
    for plan in plans_of(space, KINDS[kind], given.plans, given.macs, rng):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            try:
                network = built(space, plan, KINDS[kind])
                same_in_onnx(network, KINDS[kind], folder / "float.onnx")
                quantizer = profiles.target(TARGETS[family]).quantizer
                prepared = quantised(network, KINDS[kind], quantizer, folder / "model.onnx")
                row.built += bool(made(family, prepared, folder / "model.onnx", folder, given.engines))
            except Exception:
                broken(row, "network", plan)
        row.networks += 1
        row.seconds = time.process_time() - start


def broken(row: Row, what: str, plan: Any) -> None:
    """Put the exception at hand into the row, and print it at once."""
    kind, error, _ = sys.exc_info()
    lines = traceback.format_exc().strip().splitlines()
    place = next((line.strip() for line in reversed(lines) if line.strip().startswith("File")), "")
    text = f"{what}: {kind.__name__ if kind else ''}: {str(error)[:300]} [{place[-80:]}] {json.dumps(plan.to_json())}"
    print(f"BROKEN {row.space} {row.kind} {row.family} {text}", flush=True)
    row.broken += (text,)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and what broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", default=catalog.names(SPACES), choices=catalog.names(SPACES))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--families", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--values", type=int, default=100, help="pairs of plans that are checked as values")
    parser.add_argument("--plans", type=int, default=2, help="networks; of each space, kind of input and family")
    parser.add_argument("--macs", type=float, default=5e6, help="at most, of the networks: larger ones take minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engines", action="store_true", help="compile TensorRT-RTX engines, too")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in given.spaces:  # a file that changes while this runs shall not end it
        catalog.load(SPACES, name)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(HEAD, flush=True)
    cases = [
        (kind, family, name, space)
        for kind in given.kinds
        for family in given.families
        for name, space in spaces_of(KINDS[kind], family, given.spaces)
    ]
    rows: list[Row] = []
    ended = True
    try:
        for kind, family, name, space in cases:
            rows.append(Row(name, kind, family))
            search(rows[-1], space, given)
            print(rows[-1].line(), flush=True)
    except KeyboardInterrupt:  # what was checked so far is worth telling
        ended = False
        print(f"{rows[-1].line()}  interrupted here" if rows else "interrupted before the first case")
    print(f"\n{summary(rows, len(cases), ended)}")
    return 1 if not ended or any(row.broken for row in rows) else 0


def summary(rows: Sequence[Row], wanted: int, ended: bool) -> str:
    """What was checked, out of how many cases (space, input, family), and what it took."""
    whole = len(rows) if ended else max(0, len(rows) - 1)
    return (
        f"{whole} of {wanted} cases ended: {sum(row.values for row in rows)} pairs of plans,"
        f" {sum(row.networks for row in rows)} networks, {sum(row.built for row in rows)} built for their target;"
        f" {sum(len(row.broken) for row in rows)} broken; {time.process_time():.0f} CPU s"
    )


__all__ = ["KINDS", "TARGETS", "as_values", "built", "context", "main", "quantised", "same_codes", "same_in_onnx"]

if __name__ == "__main__":
    sys.exit(main())
