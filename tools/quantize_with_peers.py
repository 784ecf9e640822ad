"""Quantise one float ONNX model after training with the tools that people already use, in an environment of theirs.

    PEERS/bin/python tools/quantize_with_peers.py float.onnx calibration.npz FOLDER

Writes FOLDER/<peer>.onnx for each peer that is installed and succeeds, and FOLDER/peers.json: version, or why not.
Each gets the same float model and the same calibration inputs, and the settings that its documentation recommends for
x86 processors with VNNI: uint8 activations, int8 weights per channel, Q/DQ or whatever form the peer writes.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx


class Reader:
    """Calibration batches in the form that onnxruntime's quantiser and Intel Neural Compressor's both read."""

    def __init__(self, name: str, batches: list[Any]) -> None:
        self._name, self._batches = name, batches
        self._left: Iterator[Any] = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._left, None)
        return None if batch is None else {self._name: batch}

    def rewind(self) -> None:
        self._left = iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter([{self._name: batch} for batch in self._batches])


def with_onnxruntime(model: Path, out: Path, name: str, batches: list[Any]) -> str:
    """onnxruntime.quantization.quantize_static after its own preprocessing."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(model), str(prepared))
        quantize_static(
            str(prepared),
            str(out),
            Reader(name, batches),  # type: ignore[arg-type]
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
    return "onnxruntime " + metadata.version("onnxruntime")


def with_neural_compressor(model: Path, out: Path, name: str, batches: list[Any]) -> str:
    """Intel Neural Compressor's ONNX edition, static quantisation."""
    from onnx_neural_compressor import data_reader
    from onnx_neural_compressor.quantization import QuantFormat, QuantType, config, quantize

    class Calibration(Reader, data_reader.CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        pass

    settings = config.StaticQuantConfig(
        Calibration(name, batches),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    with tempfile.TemporaryDirectory() as folder:  # it writes beside its input, too
        copied = Path(folder) / "model.onnx"
        shutil.copy(model, copied)
        quantize(str(copied), str(out), settings)
    return "onnx-neural-compressor " + metadata.version("onnx-neural-compressor")


def with_nncf(model: Path, out: Path, name: str, batches: list[Any]) -> str:
    """NNCF's ONNX back end, its default (performance) preset and, beside it, mixed."""
    import nncf  # type: ignore[import-not-found]

    quantised = nncf.quantize(
        onnx.load(str(model)),
        nncf.Dataset([{name: batch} for batch in batches]),
        subset_size=len(batches),
        preset=nncf.QuantizationPreset.MIXED,  # what its documentation names for activations without a symmetric range
    )
    onnx.save(quantised, str(out))
    return "nncf " + metadata.version("nncf")


PEERS: dict[str, Callable[[Path, Path, str, list[Any]], str]] = {
    "quantize_static": with_onnxruntime,
    "neural_compressor": with_neural_compressor,
    "nncf": with_nncf,
}


def main() -> int:
    given = argparse.ArgumentParser(description="Quantise one ONNX model with other tools.")
    given.add_argument("model", type=Path)
    given.add_argument("calibration", type=Path, help=".npz with one array, batch first")
    given.add_argument("folder", type=Path)
    given.add_argument("--batch", type=int, default=64)
    options = given.parse_args()
    with np.load(options.calibration, allow_pickle=False) as stored:
        name = stored.files[0]
        inputs = stored[name]
    batches = [inputs[start : start + options.batch] for start in range(0, len(inputs), options.batch)]
    found = {}
    for peer, quantise in PEERS.items():
        out = options.folder / f"{peer}.onnx"
        for old in options.folder.glob(f"{peer}.onnx*"):  # some refuse to write over their own files
            old.unlink()
        try:
            found[peer] = {"version": quantise(options.model, out, name, batches)}
        except Exception as error:  # whatever a peer raises is its result
            out.unlink(missing_ok=True)
            found[peer] = {"failed": f"{type(error).__name__}: {error}"[:300]}
    (options.folder / "peers.json").write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
