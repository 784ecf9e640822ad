"""Every network through the whole path, for every quantiser: what is accepted, what runs in int8, what agrees.

    python -m tools.accept_networks [--networks resnet vit] [--quantizers tensorrt onnxruntime_x86] [--json FILE]

Trained float network -> prepare -> calibrate -> a short quantisation-aware training -> convert -> ONNX and its passes
-> TensorRT-RTX engines for SM80 and SM86 (tensorrt) -> onnxruntime, in its default session and with the graph as
written.

The bars: every graph is accepted; as many weighted nodes run in int8 as the quantiser intended; 99.9 % of output values
are within one output step of the fake-quantised torch model; the ONNX file's score is within 0.2 points of that
model's. One step is the largest magnitude of an output over 127 where the output is float. The exit status is 1 where
a bar is missed. All is measured here, on test data; engines are compiled, not run.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor

import profiles
from compress.qat import prepare as qat
from compress.qat.prepared import Prepared
from compress.qat.quantizer import rules
from exporters import onnx_to_rtx_engine, torch_to_onnx
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from tools import networks
from tools.networks import Network, Tensors

QUANTIZERS = ("tensorrt", "onnxruntime_x86")
CAPABILITIES = ("8.0", "8.6")
WITHIN = 0.999
POINTS = 0.2
INTEGER = {  # operators of onnxruntime's optimised graph that multiply in integers
    "QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QGemm",
}  # fmt: skip
CALIBRATION = 512  # samples
BATCH = 64


@dataclass(frozen=True)
class Agreement:
    """One onnxruntime session beside the fake-quantised torch model.

    Attributes:
        within: share of values within one output step.
        worst: largest difference, in output steps.
        score: on test data, in [0, 1].
    """

    within: float
    worst: float
    score: float


@dataclass(frozen=True)
class Row:
    """One network and one quantiser; `refused` holds the reason where the path ended early.

    Attributes:
        intended: weighted operators and products that the quantiser marks.
        sites: all of them.
        int8: those that run in integers: heavy int8 kernels of the engine with the fewest, or integer operators of
            onnxruntime's optimised graph.
        missed: ONNX nodes that are quantised in the graph and compiled to float.
        engines: compute capability -> "accepted" or why not.
        fake_quant, calibrated, float_: scores of the fake-quantised model after and before training, and of the float.
    """

    network: str
    quantizer: str
    refused: str = ""
    intended: int = 0
    sites: int = 0
    int8: int = 0
    missed: tuple[str, ...] = ()
    engines: dict[str, str] = dataclasses.field(default_factory=dict)
    default: Agreement | None = None
    written: Agreement | None = None
    float_: float = 0.0
    calibrated: float = 0.0
    fake_quant: float = 0.0
    float_sites: tuple[tuple[str, str, str], ...] = ()  # module, operator, reason

    def misses(self) -> list[str]:
        """The bars that this row misses, in words."""
        if self.refused:
            return [f"refused: {self.refused}"]
        found = [f"SM{c.replace('.', '')}: {verdict}" for c, verdict in self.engines.items() if verdict != "accepted"]
        if self.int8 != self.intended or self.missed:
            found.append(f"int8 {self.int8} of {self.intended} intended {' '.join(self.missed)}")
        for name, side in (("default session", self.default), ("graph as written", self.written)):
            assert side is not None
            if side.within < WITHIN:
                found.append(f"{name}: {100 * side.within:.2f} % within one step")
            if abs(side.score - self.fake_quant) * 100 > POINTS + 1e-9:
                found.append(f"{name}: {100 * (side.score - self.fake_quant):+.2f} points")
        return found


def accept(network: Network, quantizer: str, folder: Path, *, epochs: float, engines: bool = True) -> Row:
    """One row; a refusal on the way is in it."""
    model = networks.trained(network.name)
    try:
        prepared = qat.prepare(
            model,
            tuple(tensor[:2] for tensor in network.data("train").inputs),
            quantizer,
            input_names=network.input_names,
            dynamic=network.dynamic,
        )
        calibrate(network, prepared)
        calibrated = networks.score(network, prepared)
        fine_tune(network, prepared, epochs)
        path = folder / f"{network.name}-{quantizer}.onnx"
        export(network, prepared, path)
    except (ExportError, Exception) as error:  # every refusal is a row of the table
        return Row(network.name, quantizer, refused=f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")
    intended = intended_integers(prepared)
    if quantizer == "tensorrt":
        verdicts, int8, missed = compiled(network, path, folder, intended) if engines else ({}, intended, ())
    else:
        verdicts, int8, missed = {}, integer_operators(path), ()
    return Row(
        network.name,
        quantizer,
        intended=intended,
        sites=len(prepared.sites),
        int8=int8,
        missed=missed,
        engines=verdicts,
        default=agreement(network, prepared, path, as_written=False),
        written=agreement(network, prepared, path, as_written=True),
        float_=networks.score(network, model),
        calibrated=calibrated,
        fake_quant=networks.score(network, prepared),
        float_sites=tuple((site.module, site.operator, site.reason) for site in prepared.sites if not site.quantized),
    )


def calibrate(network: Network, prepared: Prepared) -> None:
    """With the first training samples."""
    inputs = network.data("train").inputs
    batches = [tuple(tensor[start : start + BATCH] for tensor in inputs) for start in range(0, CALIBRATION, BATCH)]
    qat.calibrate(prepared, [batch for batch in batches if len(batch[0])])


def fine_tune(network: Network, prepared: Prepared, epochs: float) -> None:
    """Quantisation-aware training at a thirtieth of the rate; ranges are frozen behind it."""
    if epochs > 0:
        networks.train(
            network,
            prepared,
            epochs=epochs,
            rate=network.rate / 30,
            before_step=lambda share: qat.enter(prepared, qat.phase(share)),
        )
    qat.enter(prepared, qat.phase(1.0))
    prepared.eval()


def export(network: Network, prepared: Prepared, path: Path) -> None:
    """The ONNX file, with free batch and lengths."""
    torch_to_onnx.convert(
        qat.convert(prepared),
        tuple(tensor[:2] for tensor in network.data("train").inputs),
        path,
        opset=20,
        input_names=network.input_names,
        output_names=network.output_names,
        metadata={},
        dynamic=network.dynamic,
        last=rules(prepared.quantizer).passes,
    )


def compiled(network: Network, path: Path, folder: Path, intended: int) -> tuple[dict[str, str], int, tuple[str, ...]]:
    """Verdict per capability, nodes in int8 of the engine with the fewest, and quantised nodes that run in float."""
    verdicts: dict[str, str] = {}
    fewest, missed = intended, ()
    lengths = {
        name: (max(2, size // 2), size, size)
        for input_name, tensor in zip(network.input_names, network.inputs(2), strict=True)
        for axis, name in network.dynamic.get(input_name, {}).items()
        for size in (tensor.shape[axis],)
    }
    target = profiles.target("a100")
    for capability in CAPABILITIES:
        options = BuildOptions(
            purpose="check",
            capability=capability,
            dims=lengths,
            name=f"{path.stem}_sm{capability.replace('.', '')}.engine",
        )
        try:
            facts: dict[str, Any] = dict(onnx_to_rtx_engine.convert(path, target, folder, options=options).facts)
        except ExportError as error:
            verdicts[capability] = str(error).splitlines()[0][:200]
            fewest = 0
            continue
        verdicts[capability] = "accepted"
        here = int(facts["weighted_nodes"]) - len(facts["float_nodes"])
        if here <= fewest:
            fewest, missed = here, tuple(facts["missed_int8_nodes"])
    return verdicts, fewest, missed


def intended_integers(prepared: Prepared) -> int:
    """Operators that the quantiser means to run in integers; a table is stored in them and multiplies nothing."""
    return sum(site.quantized and not site.operator.startswith("embedding") for site in prepared.sites)


def integer_operators(path: Path) -> int:
    """Operators of onnxruntime's optimised graph that multiply in integers."""
    with tempfile.TemporaryDirectory() as name:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(name) / "optimised.onnx")
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        model = onnx.load(options.optimized_model_filepath)
    return sum(node.op_type in INTEGER for node in model.graph.node)


def agreement(network: Network, prepared: Prepared, path: Path, *, as_written: bool) -> Agreement:
    """onnxruntime beside the fake-quantised model, on the test data."""
    run = session(network, path, as_written=as_written)
    inputs = network.data("test").inputs
    near, worst, count = 0, 0.0, 0
    found: list[list[Tensor]] = []
    expected: list[list[Tensor]] = []
    with torch.no_grad():
        for start in range(0, len(inputs[0]), 500):
            batch = tuple(tensor[start : start + 500] for tensor in inputs)
            expected.append(list(networks.outputs(prepared, batch)))
            found.append(list(run(*batch)))
    for wanted, given in zip(zip(*expected, strict=True), zip(*found, strict=True), strict=True):
        reference, candidate = torch.cat(wanted).double(), torch.cat(given).double()
        steps = (reference - candidate).abs() / (reference.abs().max() / 127)
        near += int((steps <= 1.0 + 1e-6).sum())
        worst, count = max(worst, float(steps.max())), count + steps.numel()
    return Agreement(near / count, worst, networks.score(network, run))


def session(network: Network, path: Path, *, as_written: bool) -> Callable[..., Tensors]:
    """The file in onnxruntime, one thread, as a function of tensors."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if as_written:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    loaded = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> Tensors:
        given = {name: np.ascontiguousarray(x.numpy()) for name, x in zip(network.input_names, inputs, strict=True)}
        return tuple(torch.from_numpy(array) for array in loaded.run(list(network.output_names), given))

    return run


def table(rows: Sequence[Row]) -> str:
    """Plain text, one line per row."""
    head = (
        f"{'network':15} {'quantizer':15} {'SM80 SM86':9} {'int8':>11} {'default':>8} {'worst':>6} "
        f"{'written':>8} {'worst':>6} {'float':>6} {'PTQ':>6} {'QAT':>6} {'ONNX':>6} {'loss':>6}"
    )
    lines = [head, "-" * len(head)]
    for row in rows:
        if row.refused:
            lines.append(f"{row.network:15} {row.quantizer:15} refused: {row.refused}")
            continue
        assert row.default is not None
        assert row.written is not None
        built = " ".join(f"{'yes' if verdict == 'accepted' else 'NO':>4}" for verdict in row.engines.values())
        lines.append(
            f"{row.network:15} {row.quantizer:15} {built or '   -    -':9} "
            f"{f'{row.int8}/{row.intended} of {row.sites}':>11} "
            f"{100 * row.default.within:8.3f} {row.default.worst:6.2f} "
            f"{100 * row.written.within:8.3f} {row.written.worst:6.2f} {100 * row.float_:6.2f} "
            f"{100 * row.calibrated:6.2f} {100 * row.fake_quant:6.2f} {100 * row.default.score:6.2f} "
            f"{100 * (row.default.score - row.float_):+6.2f}"
        )
    return "\n".join(lines)


def reasons(rows: Sequence[Row]) -> str:
    """Why each float site is float."""
    lines = [
        f"{row.network:15} {row.quantizer:15} {module or '-'} ({operator}): {reason}"
        for row in rows
        for module, operator, reason in row.float_sites
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, the float sites and the bars that were missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(networks.names()), choices=networks.names())
    parser.add_argument("--quantizers", nargs="+", default=list(QUANTIZERS))
    parser.add_argument("--epochs", type=float, default=1.0, help="of quantisation-aware training")
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    parser.add_argument("--keep", type=Path, help="folder for ONNX files and engines; default: a temporary one")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in given.networks:
            for quantizer in given.quantizers:
                rows.append(accept(networks.load(name), quantizer, folder, epochs=given.epochs))
                print(table(rows).splitlines()[-1] if len(rows) > 1 else table(rows), flush=True)
    print("\nfloat sites\n" + reasons(rows))
    missed = [f"{row.network} {row.quantizer}: {what}" for row in rows for what in row.misses()]
    print("\nmissed\n" + "\n".join(missed) if missed else "\nevery bar is met")
    if given.json is not None:
        given.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1), "utf-8")
    return 1 if missed else 0


__all__ = ["Agreement", "Row", "accept", "main", "table"]

if __name__ == "__main__":
    sys.exit(main())
