"""A loaded engine: run it, time it, and read what its inspector says about its layers."""

from __future__ import annotations

import ctypes
import json
import re
import time
from typing import Any

from .api import DATA_TYPES, Api
from .files import RefusedError
from .gpu import Cuda

WARM_UP_SECONDS = 0.2
LEAST_RUNS = 50
MOST_RUNS = 5000


class Engine:
    """An engine that is loaded and can be run for one batch after another."""

    def __init__(self, trt: Any, cuda: Cuda, plan: bytes, request: dict[str, Any], model: bytes) -> None:
        self.trt, self.cuda = trt, cuda
        self.logger = trt.Logger(trt.Logger.WARNING)
        self.runtime = trt.Runtime(self.logger)
        if request.get("version_compatible"):  # such an engine carries code of its own
            self.runtime.engine_host_code_allowed = True
        if request.get("dla") is not None:
            self.runtime.DLA_core = int(request["dla"]["core"])
        self.engine = self.runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise RefusedError("TensorRT cannot load the engine that it built")
        if request.get("strip_weights"):
            self._take_weights(model)
        self.context = self.engine.create_execution_context()
        self.stream = cuda.stream()
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        self.inputs = [name for name in names if self.engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.outputs = [name for name in names if name not in self.inputs]
        self.memory: dict[str, tuple[int, ctypes.c_void_p]] = {}

    def _take_weights(self, model: bytes) -> None:
        """Give an engine that was built without weights those of its ONNX file."""
        refitter = self.trt.Refitter(self.engine, self.logger)
        taken = self.trt.OnnxParserRefitter(refitter, self.logger).refit_from_bytes(model)
        if not taken or not refitter.refit_cuda_engine():
            raise RefusedError(
                "TensorRT cannot put the ONNX file's weights into the engine that was built without them"
            )

    def dtype(self, name: str) -> Any:
        """numpy's type of a tensor."""
        import numpy as np

        kind = self.engine.get_tensor_dtype(name).name
        if kind not in DATA_TYPES:
            raise RefusedError(f"tensor {name!r} is {kind}, which numpy has no type for; export it with another type")
        return np.dtype(DATA_TYPES[kind])

    def prepare(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Copy inputs to the device, set shapes and addresses; returns empty host arrays for the outputs."""
        import numpy as np

        arrays: dict[str, Any] = {}
        for name in self.inputs:
            arrays[name] = np.ascontiguousarray(inputs[name], dtype=self.dtype(name))
        self._choose_profile({name: array.shape for name, array in arrays.items()})
        for name, array in arrays.items():
            if not self.context.set_input_shape(name, tuple(array.shape)):
                raise RefusedError(f"the engine takes no input {name!r} of shape {array.shape}")
        results: dict[str, Any] = {}
        for name in self.outputs:
            results[name] = np.empty(tuple(self.context.get_tensor_shape(name)), dtype=self.dtype(name))
        for name, array in {**arrays, **results}.items():
            size, pointer = self.memory.get(name, (0, ctypes.c_void_p()))
            if size < array.nbytes:
                if size:
                    self.cuda.call("cuMemFree_v2", pointer)
                pointer = self.cuda.allocate(array.nbytes)
                self.memory[name] = (array.nbytes, pointer)
            self.context.set_tensor_address(name, int(pointer.value or 0))
        for name, array in arrays.items():
            source = array.ctypes.data_as(ctypes.c_void_p)
            self.cuda.call("cuMemcpyHtoD_v2", self.memory[name][1], source, ctypes.c_size_t(array.nbytes))
        return results

    def _choose_profile(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """The first optimisation profile that contains the shapes."""
        for index in range(self.engine.num_optimization_profiles):
            if self.engine.num_optimization_profiles == 1:
                return
            if all(self._contains(name, index, shape) for name, shape in shapes.items()):
                self.context.set_optimization_profile_async(index, int(self.stream.value or 0))
                self.cuda.call("cuStreamSynchronize", self.stream)
                return
        raise RefusedError(f"none of the engine's {self.engine.num_optimization_profiles} profiles contains {shapes}")

    def _contains(self, name: str, profile: int, shape: tuple[int, ...]) -> bool:
        smallest, _, largest = self.engine.get_tensor_profile_shape(name, profile)
        low, high = tuple(smallest), tuple(largest)
        return len(low) == len(shape) and all(low[i] <= shape[i] <= high[i] for i in range(len(shape)))

    def enqueue(self) -> None:
        """Put one run on the stream."""
        if not self.context.execute_async_v3(int(self.stream.value or 0)):
            raise RuntimeError("TensorRT could not run the engine")

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs of one batch."""
        results = self.prepare(inputs)
        self.enqueue()
        self.cuda.call("cuStreamSynchronize", self.stream)
        for name, array in results.items():
            sink = array.ctypes.data_as(ctypes.c_void_p)
            self.cuda.call("cuMemcpyDtoH_v2", sink, self.memory[name][1], ctypes.c_size_t(array.nbytes))
        return results

    def latency(self, inputs: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Milliseconds of one run on the device, by CUDA events; copies to and from it are not included."""
        self.prepare(inputs)
        begin, end = self.cuda.event(), self.cuda.event()
        deadline = time.monotonic() + min(WARM_UP_SECONDS, seconds)
        while time.monotonic() < deadline:
            self.enqueue()
            self.cuda.call("cuStreamSynchronize", self.stream)
        found: list[float] = []
        deadline = time.monotonic() + seconds
        while len(found) < LEAST_RUNS or (time.monotonic() < deadline and len(found) < MOST_RUNS):
            self.cuda.call("cuEventRecord", begin, self.stream)
            self.enqueue()
            self.cuda.call("cuEventRecord", end, self.stream)
            self.cuda.call("cuEventSynchronize", end)
            elapsed = ctypes.c_float()
            self.cuda.call("cuEventElapsedTime", ctypes.byref(elapsed), begin, end)
            found.append(elapsed.value)
        return {**percentiles(found), "origin": "measured", "clock": "CUDA events, no copies, no CUDA graph"}

    def information(self) -> str:
        """What the engine's inspector says, JSON as it is."""
        inspector = self.engine.create_engine_inspector()
        return str(inspector.get_engine_information(self.trt.LayerInformationFormat.JSON))


def percentiles(values: list[float]) -> dict[str, Any]:
    """Median and spread of a sample, by nearest rank."""
    ordered = sorted(values)

    def rank(share: float) -> float:
        return ordered[min(len(ordered) - 1, max(0, round(share * (len(ordered) - 1))))]

    return {
        "runs": len(ordered),
        "p5_ms": rank(0.05),
        "median_ms": rank(0.5),
        "p95_ms": rank(0.95),
        "p99_ms": rank(0.99),
    }


# ---------------------------------------------------------------------------------------------------------------------
# The inspector's report


def layers(information: str, api: Api) -> list[dict[str, Any]]:
    """One row for each layer of the inspector's JSON: name, kind, tactic, types of inputs and outputs, ONNX nodes.

    Before 11 a tensor's type and format are one text ("Format/Datatype"), from 11 on two. A layer that is only a name
    (an engine built without details) gives a row with that name.
    """
    rows = []
    for layer in json.loads(information).get("Layers", []):
        if isinstance(layer, str):
            rows.append(_row(layer, {}, api))
        elif isinstance(layer, dict):
            rows.append(_row(str(layer.get("Name", "")), layer, api))
    return rows


def _row(name: str, layer: dict[str, Any], api: Api) -> dict[str, Any]:
    return {
        "name": name,
        "kind": str(layer.get("LayerType", "")),
        "tactic": str(layer.get("TacticName", "")),
        "inputs": [kind_of(str(tensor.get(api.type_key, ""))) for tensor in layer.get("Inputs") or []],
        "outputs": [kind_of(str(tensor.get(api.type_key, ""))) for tensor in layer.get("Outputs") or []],
        "nodes": _nodes(name, str(layer.get("Metadata", "")), api),
    }


def kind_of(text: str) -> str:
    """ "Thirty-two wide channel vectorized row major Int8 format" -> "Int8"; the text itself where it names no type."""
    for word, kind in _KINDS:
        if re.search(rf"\b{word}\b", text, re.IGNORECASE):
            return kind
    return text


_KINDS = (
    ("uint8", "UInt8"),
    ("int8", "Int8"),
    ("int4", "Int4"),
    ("fp8", "FP8"),
    ("fp16|half", "Half"),
    ("bf16|bfloat16", "BFloat16"),
    ("fp32|float", "Float"),
    ("int32", "Int32"),
    ("int64", "Int64"),
    ("bool", "Bool"),
)


def _nodes(name: str, metadata: str, api: Api) -> list[str]:
    if api.node_metadata:
        return re.findall(r"\[ONNX Layer: ([^\]]*)\]", metadata)
    return [part.strip() for part in name.split(" + ") if part.strip()]  # 8.5 joins the names of what it fused


def int8_nodes(rows: list[dict[str, Any]]) -> set[str]:
    """ONNX nodes in layers whose first input is int8."""
    return {node for row in rows if row["inputs"][:1] == ["Int8"] for node in row["nodes"]}
