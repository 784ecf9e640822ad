"""Which exporters' int8 graphs TensorRT takes, and how much of them runs in int8: ours beside those of other projects.

    python -m tools.accept_exporters [--peers PYTHON] [--networks resnet mobilenet_v2] [--json FILE]

PYTHON is the interpreter of an environment with onnxruntime, torchao, NNCF and NVIDIA Model Optimizer (and torch,
scikit-learn, safetensors). Without it only ours is tried, and the table says so. Each exporter runs in a process of
its own (tools/export_with_peers.py), each file is compiled as it is by TensorRT-RTX for SM80: refused and why, or heavy
int8 kernels of all heavy kernels, beside the weighted nodes of the graph. Kernels are read from the build log; nothing
runs on a GPU.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from safetensors.torch import save_file

from compress.qat import prepare as qat
from compress.qat.quantizer import rules
from exporters import build_log, child, engine_request, graph, rtx_build, torch_to_onnx
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from tools import accept_networks, networks
from tools.export_with_peers import EXPORTERS
from tools.networks import Network

CAPABILITY = "8.0"
SECONDS = 600
OURS = ("tensorrt",)
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Verdict:
    """One exporter's file of one network.

    Attributes:
        version: of what exported it.
        failed: the exporter's own error; "" where it wrote a file.
        refused: the parser's or builder's; "" where the file compiled.
        heavy, int8: kernels of convolutions and products, and those whose input is int8.
        weighted: Conv, Gemm, MatMul nodes of the file.
    """

    exporter: str
    network: str
    version: str = ""
    failed: str = ""
    refused: str = ""
    heavy: int = 0
    int8: int = 0
    weighted: int = 0

    def text(self) -> str:
        """A cell of the table."""
        if self.failed:
            return "does not export"
        return "refused" if self.refused else f"{self.int8}/{self.heavy}"


def compile_file(path: Path, exporter: str, network: str, version: str) -> Verdict:
    """What TensorRT-RTX makes of a file, unchanged, in a child process."""
    model = onnx.load(str(path))
    weighted = sum(node.op_type in graph.WEIGHTED for node in model.graph.node)
    with tempfile.TemporaryDirectory(prefix="verdict-") as name:
        folder = Path(name)
        (folder / rtx_build.MODEL).write_bytes(path.read_bytes())
        request = engine_request.request(model, BuildOptions(), (CAPABILITY,))
        (folder / rtx_build.REQUEST).write_text(json.dumps(request), "utf-8")
        outcome = child.run(
            child.python("exporters.rtx_build"),
            folder=folder,
            seconds=SECONDS,
            memory_bytes=12 << 30,
            environment=child.plain_environment(),
        )
        why = outcome.why()
        if why is None:
            result: dict[str, Any] = json.loads((folder / rtx_build.RESULT).read_text("utf-8"))
            if result["stage"] != "done":
                errors = [str(error["text"]) for error in result["errors"]] or [str(result.get("said", "no reason"))]
                why = errors[0].strip().splitlines()[0]
        if why is not None:
            return Verdict(exporter, network, version, refused=why[:300], weighted=weighted)
        log = (folder / rtx_build.LOG).read_text("utf-8", "replace")
    heavy = [kernel for kernel in build_log.kernels(log) if kernel.heavy]
    int8 = sum(kernel.input_type == "Int8" for kernel in heavy)
    return Verdict(exporter, network, version, heavy=len(heavy), int8=int8, weighted=weighted)


def ours(network: Network, quantizer: str, folder: Path) -> Verdict:
    """Our own exporter with one quantiser, calibrated, untuned."""
    path = folder / f"{network.name}-{quantizer}.onnx"
    example = tuple(tensor[:2] for tensor in network.data("train").inputs)
    try:
        prepared = qat.prepare(networks.trained(network.name), example, quantizer)
        accept_networks.calibrate(network, prepared)
        accept_networks.export(network, prepared, path)
    except ExportError as error:
        return Verdict(f"compress {quantizer}", network.name, failed=str(error))
    assert rules(quantizer).symmetric
    return compile_file(path, f"compress {quantizer}", network.name, "this checkout")


def theirs(network: Network, exporter: str, python: Path, folder: Path) -> Verdict:
    """Another project's exporter, in its own environment and process."""
    state, plain = folder / f"{network.name}.safetensors", folder / f"{network.name}-float.onnx"
    if not plain.exists():
        model = networks.trained(network.name)
        save_file({key: value.contiguous().clone() for key, value in model.state_dict().items()}, state)
        example = tuple(tensor[:2] for tensor in network.data("train").inputs)
        names = {"input_names": network.input_names, "output_names": network.output_names}
        torch_to_onnx.convert(model, example, plain, opset=18, metadata={}, **names)  # type: ignore[arg-type]
    out = folder / f"{network.name}-{exporter}.onnx"
    command = [str(python), "-m", "tools.export_with_peers", exporter, network.name, str(state), str(plain), str(out)]
    environment = child.plain_environment(OMP_NUM_THREADS="1", COMPRESS_CACHE=str(folder / "cache"))
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Verdict(exporter, network.name, failed=f"not done after {SECONDS} s")
    if done.returncode != 0 or not out.exists():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        return Verdict(exporter, network.name, failed=f"status {done.returncode}: {lines[-1][:300]}")
    return compile_file(out, exporter, network.name, done.stdout.strip().splitlines()[-1])


def table(verdicts: Sequence[Verdict], names: Sequence[str]) -> str:
    """One line per exporter: a cell per network, the version, and the first reason where something went wrong."""
    cells = {(verdict.exporter, verdict.network): verdict for verdict in verdicts}
    head = f"{'exporter':24} " + " ".join(f"{name:>16}" for name in names) + "  version"
    lines = [head, "-" * len(head)]
    for exporter in dict.fromkeys(verdict.exporter for verdict in verdicts):
        row = [cells[exporter, name] for name in names if (exporter, name) in cells]
        line = f"{exporter:24} " + " ".join(f"{verdict.text():>16}" for verdict in row)
        reasons = [verdict.failed or verdict.refused for verdict in row if verdict.failed or verdict.refused]
        lines.append(f"{line}  {next((verdict.version for verdict in row if verdict.version), '')}")
        lines.extend(f"{'':24} {reason}" for reason in dict.fromkeys(reasons))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 where ours is refused or a quantised layer of ours runs in float."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="python of the peers' environment")
    parser.add_argument("--networks", nargs="+", default=["resnet", "mobilenet_v2"], choices=networks.names())
    parser.add_argument("--exporters", nargs="+", default=list(EXPORTERS), choices=list(EXPORTERS))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    there = given.peers is not None and given.peers.exists()
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory() as name:
        for network in map(networks.load, given.networks):
            verdicts += [ours(network, quantizer, Path(name)) for quantizer in OURS]
            if there:
                for exporter in given.exporters:
                    verdicts.append(theirs(network, exporter, given.peers, Path(name)))
                    print(f"{network.name} {exporter}: {verdicts[-1].text()}", file=sys.stderr, flush=True)
    print(table(verdicts, given.networks))
    if not there:
        print(f"peers not tried: {given.peers or 'no --peers'} is no interpreter here")
    if given.json is not None:
        given.json.write_text(json.dumps([dataclasses.asdict(verdict) for verdict in verdicts], indent=1), "utf-8")
    return int(any(v.exporter.startswith("compress") and (v.failed or v.refused or not v.int8) for v in verdicts))


if __name__ == "__main__":
    sys.exit(main())
