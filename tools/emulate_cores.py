"""Compare generated C on every emulated core with onnxruntime, code for code, in every quantised tensor.

    python tools/emulate_cores.py RUN_OR_MODEL [...] [--inputs 100] [--cores cortex-m4,cortex-m55]

RUN is the folder of a finished `compress pipeline` (its task's test examples are the inputs), MODEL an ONNX file with
Q/DQ pairs (random inputs). Three results are compared with those of the cores:

- integers: onnxruntime with its integer kernels (session.qdqisint8allowed=1; without it s8 activations run in floats).
  int32 sums are exact, so there is one right answer, and every code must be equal;
- as written: onnxruntime with no rewriting, which multiplies decoded floats and adds the float bias. An integer kernel
  (onnxruntime's as much as ours) rounds the bias to the scale of its sums, so codes next to a half may differ by one;
- as written, biases on the grid: the same graph with biases rounded as integer kernels round them. What still differs
  are sums of floats that round across a half; it depends on the order of the sum, which no runtime promises.

What comes before the first quantiser (a log-mel front-end) is float on either side and may differ in its last bit; the
comparison starts at the first quantised tensor, and codes that differ there are counted of their own.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions  # type: ignore[attr-defined]

import profiles
from exporters import onnx_to_c
from profiles.runners import on_cortex_m
from profiles.runners.cortex_m.toolchain import CORES

Floats = NDArray[np.float32]
ENTRY = "entry_"  # names of the inputs that take the place of the front-end
TAP = "tap_"


@dataclass(frozen=True)
class Tapped:
    """A model that also returns every quantised tensor, decoded.

    Attributes:
        outputs: names, the model's own first.
        entries: decoded tensor of each first quantiser -> the input that replaces what it quantises.
        scales: output -> one step of its codes.
    """

    model: onnx.ModelProto
    outputs: tuple[str, ...]
    entries: Mapping[str, str]
    scales: Mapping[str, float]


def tapped(model: onnx.ModelProto) -> Tapped:
    """Return every quantised tensor too."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    own = [value.name for value in graph.output]
    scales, entries, quantised = {}, {}, set[str]()
    for node in list(graph.node):
        after = any(name in quantised for name in node.input)
        if node.op_type == "QuantizeLinear" and node.input[0] not in stored:
            name = f"{TAP}{node.output[0]}"
            graph.node.append(
                helper.make_node("DequantizeLinear", [node.output[0], *node.input[1:]], [name], name=name)
            )
            graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
            scales[name] = float(stored[node.input[1]])
            if not after:
                entries[name] = f"{ENTRY}{node.output[0]}"
            quantised.add(node.output[0])
        elif after:
            quantised.update(node.output)
    return Tapped(copy, (*own, *scales), entries, scales)


def from_entries(net: Tapped, shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """The model with a graph input in front of every first quantiser; the front-end's result is not used."""
    copy = onnx.ModelProto()
    copy.CopyFrom(net.model)
    for name, entry in net.entries.items():
        quantiser = next(n for n in copy.graph.node if n.output and n.output[0] == name.removeprefix(TAP))
        quantiser.input[0] = entry
        copy.graph.input.append(helper.make_tensor_value_info(entry, TensorProto.FLOAT, list(shapes[name])))
    return copy


def biases_on_the_grid(model: onnx.ModelProto) -> onnx.ModelProto:
    """Round every bias to a multiple of input scale times weight scale, as integer kernels do."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in copy.graph.initializer}
    made = {name: node for node in copy.graph.node for name in node.output}
    for node in copy.graph.node:
        if node.op_type in ("Conv", "Gemm") and len(node.input) > 2 and node.input[2] in stored:
            left, right = made.get(node.input[0]), made.get(node.input[1])
            if left is None or right is None or {left.op_type, right.op_type} != {"DequantizeLinear"}:
                continue
            step = numpy_helper.to_array(stored[left.input[1]]) * numpy_helper.to_array(stored[right.input[1]])
            bias = stored[node.input[2]]
            rounded = (np.rint(numpy_helper.to_array(bias) / step) * step).astype(np.float32)
            bias.CopyFrom(numpy_helper.from_array(rounded, bias.name))
    return copy


def run(model: onnx.ModelProto, feeds: Mapping[str, Floats], names: Sequence[str], rewrite: bool) -> dict[str, Floats]:
    """Outputs of onnxruntime, one input at a time."""
    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    levels = GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if rewrite else levels.ORT_DISABLE_ALL
    if rewrite:
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    session = InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    known = {value.name for value in session.get_inputs()}
    size = len(next(iter(feeds.values())))
    rows = [
        session.run(list(names), {key: value[at : at + 1] for key, value in feeds.items() if key in known})
        for at in range(size)
    ]
    return {name: np.concatenate([row[at] for row in rows]) for at, name in enumerate(names)}


def steps_apart(first: Mapping[str, Floats], second: Mapping[str, Floats], net: Tapped) -> tuple[int, int]:
    """Elements that differ, and the largest difference in steps of a tensor's codes."""
    differ, largest = 0, 0
    for name in net.outputs:
        a, b = first[name].reshape(-1), second[name].reshape(-1)
        unequal = a != b
        differ += int(unequal.sum())
        if unequal.any() and name in net.scales:
            largest = max(largest, round(float(np.abs(a - b).max()) / net.scales[name]))
    return differ, largest


def compare(title: str, path: Path, inputs: Mapping[str, Floats], cores: Sequence[str]) -> bool:
    """Print one model's table; whether every code is that of the integer kernels."""
    net = tapped(onnx.load(str(path)))
    target = profiles.target("hearing-aid")
    equal = True
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        onnx.save(net.model, str(folder / "tapped.onnx"))
        whole = onnx_to_c.convert(folder / "tapped.onnx", target, folder / "tapped").path
        plain = onnx_to_c.convert(path, target, folder / "plain").path
        written = run(net.model, inputs, net.outputs, rewrite=False)
        shapes = {name: (1, *written[name].shape[1:]) for name in net.outputs}
        host = on_cortex_m.run_on_host(whole, inputs)
        entries = {entry: host[name].reshape(-1, *shapes[name][1:]) for name, entry in net.entries.items()}
        codes = sum(written[name].size for name in net.outputs)
        print(f"\n{title}: {len(next(iter(inputs.values())))} inputs, {len(net.outputs)} tensors, {codes:,} codes")
        for name in net.entries:
            off = int((host[name].reshape(-1) != written[name].reshape(-1)).sum())
            print(f"  first quantised tensor: {off} of {written[name].size:,} codes differ from onnxruntime's")
        model = from_entries(net, shapes)
        feeds = {**inputs, **entries}
        references = {
            "integers": run(model, feeds, net.outputs, rewrite=True),
            "as written": run(model, feeds, net.outputs, rewrite=False),
            "on the grid": run(biases_on_the_grid(model), feeds, net.outputs, rewrite=False),
        }
        head = f"  {'core':<11} {'differ from integers':>21} {'as written':>21} {'biases on the grid':>21}"
        print(f"{head} {'instructions':>13} {'flash':>8} {'RAM':>7}")
        for core in cores:
            with on_cortex_m.load(whole, core) as board:
                ours = board.run(inputs)
            with on_cortex_m.load(plain, core) as board:
                counted = board.emulate({key: value[:2] for key, value in inputs.items()}).instructions.mean()
                size = board.footprint
            cells = []
            for name, reference in references.items():
                differ, largest = steps_apart(ours, reference, net)
                equal = equal and (name != "integers" or not differ)
                cells.append(f"{differ:>12} by <= {largest:<2}")
            print(f"  {core:<11} {' '.join(f'{cell:>21}' for cell in cells)} {counted:>13,.0f}", end=" ")
            print(f"{size.flash:>8,} {size.ram:>7,}")
    return equal


def inputs_of(place: Path, count: int) -> tuple[Path, dict[str, Floats]]:
    """The model of a run with its task's first test examples, or a model with random inputs."""
    if place.is_file():
        rng = np.random.default_rng(0)
        graph = onnx.load(str(place)).graph
        stored = {tensor.name for tensor in graph.initializer}
        shapes = {
            value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim][1:]
            for value in graph.input
            if value.name not in stored
        }
        return place, {name: rng.normal(size=(count, *shape)).astype(np.float32) for name, shape in shapes.items()}
    import torch

    from compress import catalog

    recipe: dict[str, Any] = json.loads((place / "run.json").read_text(encoding="utf-8"))["recipe"]
    task = catalog.load("compress.tasks", recipe["task"]["name"]).TASK
    data = recipe["task"]["data"]
    test = task.load(Path(data) if data else None).test
    batch = test.batch(torch.arange(min(count, len(test))))
    inputs = {name: tensor.numpy() for name, tensor in zip(task.input_names, batch.inputs, strict=True)}
    return place / "4_export" / "model.onnx", inputs


def main() -> int:
    """Compare; 1 where a code differs from the integer kernels'."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("places", nargs="+", type=Path, metavar="RUN_OR_MODEL")
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--cores", default=",".join(CORES))
    given = parser.parse_args()
    results = []
    for place in given.places:
        path, inputs = inputs_of(place, given.inputs)
        results.append(compare(place.name, path, inputs, given.cores.split(",")))
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
