"""Break one layer of every network after its export, and see whether the bisect names it.

    python tools/bisect_networks.py [NETWORK ...] [--quantizer tensorrt] [--samples 8] [--seed 0] [--c]

Each network of tools/networks is trained (or read from the cache), quantised after training, and exported. Then one
layer with weights, drawn by the seed, is changed in the file in one way at a time: a few codes of one output channel,
the sign of one weight, one channel's scale by 1.05, its bias dropped. The bisect compares the file with the torch
module that was exported, and with the unbroken file; with --c also generated C of the broken file with the unbroken
one. A row is right where the first layer found has the broken node, and with no fault where nothing is blamed. (One
layer of torch may be two nodes, such as MatMul and Add.) A star: rounding to 8 bits hides the fault on these inputs,
and the layer is known by its stored numbers alone.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

import profiles
from compress.diagnosis.torch_tensors import TorchTensors
from compress.qat import prepare as qat
from exporters import bisect, bisect_sides, check_onnx, graph, torch_to_onnx
from exporters.bisect_layers import computed
from exporters.passes.strip_traces import module_name
from profiles.errors import UserError
from tools import networks

WEIGHTED = (*graph.WEIGHTED, "LSTM", "GRU")
CORTEX_M = "hearing-aid"


@dataclass(frozen=True)
class Stored:
    """The constants of one layer: names of initializers, "" where it has none.

    Attributes:
        axis: of the output channels in the weights.
        adds: the node that adds the bias: the layer's own, or the Add behind a MatMul.
    """

    weights: str
    scale: str
    bias: str
    axis: int
    adds: str


def stored(model: ModelProto, node: NodeProto, data: Collection[str]) -> Stored | None:
    """Where a layer keeps its numbers; None where its weights are computed from `data`."""
    known, makers = graph.constants(model.graph), graph.producers(model.graph)
    weights, scale, adds = node.input[1], "", node.name
    while weights not in known:
        if weights in data or weights not in makers or not makers[weights].input:
            return None
        if makers[weights].op_type == "DequantizeLinear":
            scale = makers[weights].input[1]
        weights = makers[weights].input[0]
    place = 3 if node.op_type in ("LSTM", "GRU") else 2
    bias = node.input[place] if len(node.input) > place else ""
    if node.op_type == "MatMul":
        following = [other for other in graph.consumers(model.graph).get(node.output[0], []) if other.op_type == "Add"]
        found = [(other.name, name) for other in following for name in other.input if name in known]
        adds, bias = found[0] if found else ("", "")
    while bias and bias not in known:
        bias = makers[bias].input[0] if bias in makers else ""
    rank = len(known[weights].dims)
    transposed = node.op_type == "Gemm" and graph.attribute(node, "transB", 0) == 1
    last = node.op_type == "MatMul" or (node.op_type == "Gemm" and not transposed)
    axis = rank - 1 if last else 1 if node.op_type in ("ConvTranspose", "LSTM", "GRU") else 0
    return Stored(weights, scale, bias, axis, adds)


Fault = Callable[[ModelProto, Stored, np.random.Generator], bool]
"""Changes the model; False where the layer has nothing to break in this way."""


def codes(model: ModelProto, layer: Stored, rng: np.random.Generator) -> bool:
    """A tenth of one output channel's weights, at least one, moves by three codes of 127."""
    values = _read(model, layer.weights)
    channel = _channel(values, layer, rng)
    rows = channel.reshape(-1)
    chosen = rng.choice(rows.size, max(1, rows.size // 10), replace=False)
    step = 3 if values.dtype.kind == "i" else 3 / 127 * float(np.abs(rows).max())
    rows[chosen] = np.where(rows[chosen] > 0, rows[chosen] - step, rows[chosen] + step)
    channel[...] = rows.reshape(channel.shape)
    return _write(model, layer.weights, values)


def sign(model: ModelProto, layer: Stored, rng: np.random.Generator) -> bool:
    """The sign of one weight, of middling size, turns."""
    values = _read(model, layer.weights)
    channel = _channel(values, layer, rng)
    rows = channel.reshape(-1)
    order = np.argsort(np.abs(rows.astype(np.float64)))
    chosen = order[(3 * rows.size) // 4]
    if rows[chosen] == 0:
        return False
    rows[chosen] = -rows[chosen]
    channel[...] = rows.reshape(channel.shape)
    return _write(model, layer.weights, values)


def scale(model: ModelProto, layer: Stored, rng: np.random.Generator) -> bool:
    """One channel's scale (or its weights, where they are float) times 1.05."""
    if not layer.scale:
        values = _read(model, layer.weights)
        channel = _channel(values, layer, rng)
        channel *= values.dtype.type(1.05)
        return _write(model, layer.weights, values)
    values = _read(model, layer.scale)
    flat = values.reshape(-1)
    flat[rng.integers(flat.size)] *= values.dtype.type(1.05)
    return _write(model, layer.scale, flat.reshape(values.shape))


def bias(model: ModelProto, layer: Stored, rng: np.random.Generator) -> bool:
    """The bias is gone."""
    values = _read(model, layer.bias) if layer.bias else np.zeros(0)
    return bool(values.any()) and _write(model, layer.bias, np.zeros_like(values))


FAULTS: dict[str, Fault] = {"codes": codes, "sign": sign, "scale": scale, "bias": bias}


@dataclass(frozen=True)
class Row:
    """One network, one fault, one pair of sides.

    Attributes:
        hidden: rounding would explain the effect on these inputs; the layer is known by its stored numbers alone.
    """

    network: str
    fault: str
    against: str
    broken: str
    found: str
    right: bool
    seconds: float
    hidden: bool = False

    def text(self) -> str:
        """One line of the table."""
        mark = "right" + self.hidden * "*" if self.right else "WRONG"
        return (
            f"{self.network:<15} {self.fault:<6} {self.against:<12} {self.broken:<34} {self.found:<34} "
            f"{mark:<6} {self.seconds:6.2f}"
        )


def rows(name: str, quantizer: str, samples: int, seed: int, with_c: bool, train: bool) -> Iterator[Row]:
    """Every fault of one network."""
    network = networks.load(name)
    module = networks.trained(name) if train else network.build()
    inputs = network.inputs(samples)
    prepared = qat.prepare(module, inputs, quantizer, input_names=network.input_names, dynamic=network.dynamic)
    qat.calibrate(prepared, [network.inputs(32, 1)])
    converted = qat.convert(prepared)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        torch_to_onnx.convert(
            converted,
            inputs,
            path,
            opset=20,
            input_names=network.input_names,
            output_names=network.output_names,
            metadata={},
            dynamic=network.dynamic,
        )
        whole = check_onnx.load(path)
    feeds = {key: tensor.numpy() for key, tensor in zip(network.input_names, inputs, strict=True)}
    references: dict[str, tuple[bisect_sides.Tensors, bisect_sides.Runtime]] = {
        "torch": (TorchTensors(converted, inputs, whole), bisect_sides.AS_WRITTEN),
        "ONNX": (bisect_sides.OnnxTensors(whole), bisect_sides.AS_WRITTEN),
    }
    if with_c:
        target = profiles.target(CORTEX_M)
        references["C"] = (bisect_sides.OnnxTensors(whole), bisect_sides.generated_c(target))
    broken = [("none", "", "", whole), *_broken(whole, name, seed)]
    for against, (reference, runtime) in references.items():
        for fault, node, path_of, model in broken:
            start = time.monotonic()
            try:
                found = bisect.bisect(reference, model, feeds, runtime=runtime)
            except UserError as error:
                yield Row(name, fault, against, path_of, f"not run: {error.what[:60]}", False, 0.0)
                break
            first = found.first
            named = first or next(iter(found.stored), None)
            said = "nothing" if named is None else f"{named.layer.module or '-'} ({named.layer.node})"
            inside = () if named is None else (model.graph.node[index].name for index in named.layer.nodes)
            right = named is None if fault == "none" else node in inside
            hidden = first is None and named is not None
            yield Row(name, fault, against, path_of, said, right, time.monotonic() - start, hidden)


def _broken(whole: ModelProto, name: str, seed: int) -> Iterator[tuple[str, str, str, ModelProto]]:
    """(fault, node, what a person calls it, the broken model)."""
    data = set(computed(whole))
    layers = [node for node in whole.graph.node if node.op_type in WEIGHTED and node.output[0] in data]
    layers = [node for node in layers if stored(whole, node, data) is not None]
    for number, (fault, breaks) in enumerate(FAULTS.items()):
        rng = np.random.default_rng([seed, number, *name.encode()])
        for index in rng.permutation(len(layers)):
            node = layers[index]
            model = graph.copy(whole)
            place = stored(model, node, data)
            if place is not None and breaks(model, place, rng):
                at = place.adds if fault == "bias" else node.name
                yield fault, at, f"{module_name(node) or '-'} ({at})", model
                break


def _read(model: ModelProto, name: str) -> NDArray[np.generic]:
    return graph.array(graph.constants(model.graph)[name])


def _write(model: ModelProto, name: str, values: NDArray[np.generic]) -> bool:
    graph.constants(model.graph)[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))
    return True


def _channel(values: NDArray[np.generic], layer: Stored, rng: np.random.Generator) -> NDArray[np.generic]:
    """One output channel's weights, as a view."""
    alive = np.moveaxis(values, layer.axis, 0)
    used = [index for index, row in enumerate(alive) if row.any()]
    return alive[rng.choice(used)] if used else alive[0]


def main() -> int:
    """Print the table; 1 where a row is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(networks.names())}")
    parser.add_argument("--quantizer", default="tensorrt")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--c", action="store_true", help="generated C too, compiled for this machine")
    parser.add_argument("--untrained", action="store_true", help="do not train; batch norm then adds no bias")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'network':<15} {'fault':<6} {'against':<12} {'broken':<34} {'found first':<34} {'':<6} seconds")
    table: list[Row] = []
    for name in given.networks or networks.names():
        for row in rows(name, given.quantizer, given.samples, given.seed, given.c, not given.untrained):
            print(row.text(), flush=True)
            table.append(row)
    wrong = sum(not row.right for row in table)
    print(f"{len(table) - wrong} of {len(table)} right; onnx {onnx.__version__}, torch {torch.__version__}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
