"""Export one small network as int8 ONNX with one exporter of another project, in an environment of that project's.

    PEERS/bin/python -m tools.export_with_peers EXPORTER NETWORK STATE.safetensors FLOAT.onnx OUT.onnx

A process for each exporter: some leave torch changed behind them, some end their process. Every one gets the same
trained network, the same calibration batches, and the settings that its documentation names for int8.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tools import networks

BATCHES = 8
BATCH = 32


@dataclass(frozen=True)
class Job:
    """What an exporter gets."""

    model: nn.Module
    batches: list[Tensor]
    name: str  # of the input
    float_model: Path
    out: Path

    def arrays(self) -> list[dict[str, Any]]:
        """The batches as onnxruntime takes them."""
        return [{self.name: batch.numpy()} for batch in self.batches]


class Reader:
    """Calibration batches as onnxruntime's quantiser reads them."""

    def __init__(self, arrays: list[dict[str, Any]]) -> None:
        self._left = iter(arrays)

    def get_next(self) -> dict[str, Any] | None:
        """The next batch; None behind the last."""
        return next(self._left, None)


def torch_float(job: Job) -> str:
    """No quantisation, dynamo exporter."""
    _export(job.model, job, dynamo=True)
    return "torch " + torch.__version__


def torch_float_legacy(job: Job) -> str:
    """No quantisation, TorchScript exporter."""
    _export(job.model, job, dynamo=False)
    return "torch " + torch.__version__


def onnxruntime_default(job: Job) -> str:
    """quantize_static as it comes."""
    return _static(job)


def onnxruntime_symmetric(job: Job) -> str:
    """quantize_static, symmetric, per channel; int32 biases."""
    return _static(job, per_channel=True, extra_options={"ActivationSymmetric": True, "WeightSymmetric": True})


def onnxruntime_float_bias(job: Job) -> str:
    """The same without quantised biases."""
    options = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    return _static(job, per_channel=True, extra_options=options)


def torchao_xnnpack_ptq(job: Job) -> str:
    """torchao's pt2e flow with the quantiser that it ships, after training."""
    return _torchao(job, qat=False)


def torchao_xnnpack_qat(job: Job) -> str:
    """The same, prepared for quantisation-aware training."""
    return _torchao(job, qat=True)


def nncf_torch(job: Job) -> str:
    """NNCF's torch back end, TorchScript exporter."""
    import nncf  # type: ignore[import-not-found]

    quantised = nncf.quantize(job.model, nncf.Dataset(job.batches), subset_size=len(job.batches))
    _export(quantised, job, dynamo=False)
    return "nncf " + metadata.version("nncf")


def nncf_onnx(job: Job) -> str:
    """NNCF's ONNX back end, preset PERFORMANCE."""
    import nncf

    quantised = nncf.quantize(
        onnx.load(str(job.float_model)),
        nncf.Dataset(job.arrays()),
        subset_size=len(job.batches),
        preset=nncf.QuantizationPreset.PERFORMANCE,
    )
    onnx.save(quantised, str(job.out))
    return "nncf " + metadata.version("nncf")


def modelopt_onnx(job: Job) -> str:
    """NVIDIA Model Optimizer on the ONNX file."""
    from modelopt.onnx.quantization import quantize  # type: ignore[import-not-found]

    quantize(
        str(job.float_model),
        quantize_mode="int8",
        calibration_data={job.name: np.concatenate([batch.numpy() for batch in job.batches])},
        calibration_eps=["cpu"],
        output_path=str(job.out),
    )
    return "nvidia-modelopt " + metadata.version("nvidia-modelopt")


def modelopt_torch(job: Job) -> str:
    """NVIDIA Model Optimizer on the torch module, INT8 default, TorchScript exporter."""
    _export(_modelopt(job), job, dynamo=False)
    return "nvidia-modelopt " + metadata.version("nvidia-modelopt")


def modelopt_torch_dynamo(job: Job) -> str:
    """The same, dynamo exporter."""
    _export(_modelopt(job), job, dynamo=True)
    return "nvidia-modelopt " + metadata.version("nvidia-modelopt")


EXPORTERS: dict[str, Callable[[Job], str]] = {
    function.__name__: function
    for function in (
        torch_float,
        torch_float_legacy,
        onnxruntime_default,
        onnxruntime_symmetric,
        onnxruntime_float_bias,
        torchao_xnnpack_ptq,
        torchao_xnnpack_qat,
        nncf_torch,
        nncf_onnx,
        modelopt_onnx,
        modelopt_torch,
        modelopt_torch_dynamo,
    )
}


def _static(job: Job, **settings: Any) -> str:
    from onnxruntime.quantization import quantize_static

    quantize_static(str(job.float_model), str(job.out), Reader(job.arrays()), **settings)  # type: ignore[arg-type]
    return "onnxruntime " + metadata.version("onnxruntime")


def _torchao(job: Job, *, qat: bool) -> str:
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e, prepare_qat_pt2e
    from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_qat=qat))
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(job.model, (job.batches[0],), dynamic_shapes=({0: batch},)).module()
    prepared = (prepare_qat_pt2e if qat else prepare_pt2e)(exported, quantizer)
    for calibration in job.batches:
        prepared(calibration)
    if qat:
        move_exported_model_to_eval(prepared)
    _export(convert_pt2e(prepared), job, dynamo=True)
    return "torchao " + metadata.version("torchao")


def _modelopt(job: Job) -> nn.Module:
    import modelopt.torch.quantization as mtq  # type: ignore[import-not-found]

    def calibrate(model: nn.Module) -> None:
        for batch in job.batches:
            model(batch)

    quantised: nn.Module = mtq.quantize(job.model, mtq.INT8_DEFAULT_CFG, calibrate)
    return quantised


def _export(model: nn.Module, job: Job, *, dynamo: bool) -> None:
    with torch.no_grad():
        torch.onnx.export(
            model,
            (job.batches[0],),
            str(job.out),
            dynamo=dynamo,
            input_names=[job.name],
            output_names=["output"],
            external_data=False,
            **({} if dynamo else {"opset_version": 17, "dynamic_axes": {job.name: {0: "batch"}}}),
        )


def main() -> int:
    """Export, and print the version of what did."""
    parser = argparse.ArgumentParser(description="Export one network with one exporter of another project.")
    parser.add_argument("exporter", choices=list(EXPORTERS))
    parser.add_argument("network", choices=networks.names())
    parser.add_argument("state", type=Path)
    parser.add_argument("float_model", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    network = networks.load(given.network)
    model = network.build()
    model.load_state_dict(load_file(given.state))
    (inputs,) = network.inputs(BATCHES * BATCH)
    job = Job(model.eval(), list(inputs.split(BATCH)), network.input_names[0], given.float_model, given.out)  # type: ignore[no-untyped-call]
    print(EXPORTERS[given.exporter](job))
    return 0


if __name__ == "__main__":
    sys.exit(main())
