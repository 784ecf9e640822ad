"""A stand-in for TensorRT's Python interface that computes with onnxruntime and has exactly a release's names.

FAKE_TENSORRT is the version it plays. What that release lacks is absent here: classes, functions, properties and
members of enumerations are those of ../surfaces, which tools/record_tensorrt_api.py took from the public sources of the
bindings. Reading or setting anything else raises AttributeError, as the real module does.

FAKE_REFUSES, FAKE_CRASHES, FAKE_WRONG, FAKE_SLOW, FAKE_GREEDY and FAKE_DLA_LACKS (an ONNX operator) make it refuse the
graph, abort, compute nonsense, take its time, take memory, or keep an operator off the DLA.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import time
from pathlib import Path

import numpy as np

__version__ = os.environ.get("FAKE_TENSORRT", "10.3.0")
_NUMBER = tuple(int(part) for part in __version__.split(".")[:2])
_RECORDED = ((8, 5), (8, 6), (10, 3), (10, 7), (10, 16), (11, 1))
_OLDER = [number for number in _RECORDED if number <= _NUMBER] or [_RECORDED[0]]
_FILE = Path(__file__).parents[1] / "surfaces" / f"tensorrt_{_OLDER[-1][0]}_{_OLDER[-1][1]}.json"
_SURFACE: dict[str, list[str]] = json.loads(_FILE.read_text(encoding="utf-8"))["names"]
_MAJOR = _NUMBER[0]


def _enumeration(name: str) -> None:
    if name in _SURFACE:
        globals()[name] = enum.IntEnum(name, _SURFACE[name], start=0)


def _like_the_release(kind: type) -> type:
    """Take away what the release does not have, and refuse to set anything else."""
    name = getattr(kind, "plays", kind.__name__)
    if name not in _SURFACE:
        return kind
    known = set(_SURFACE[name])
    for base in kind.__mro__[:-1]:
        for member in [member for member in vars(base) if not member.startswith("_") and member != "plays"]:
            if member not in known and base.__name__ != "ILogger":
                delattr(base, member)

    def set_attribute(self: object, member: str, value: object) -> None:
        if not member.startswith("_") and member not in known:
            raise AttributeError(f"{name!r} object has no attribute {member!r}")
        object.__setattr__(self, member, value)

    if not name.startswith("I") or name in ("IBuilderConfig",):  # a user's own class may have what it likes
        kind.__setattr__ = set_attribute  # type: ignore[method-assign, assignment]
    return kind


for _name in (
    "BuilderFlag",
    "DataType",
    "DeviceType",
    "HardwareCompatibilityLevel",
    "LayerInformationFormat",
    "MemoryPoolType",
    "OnnxParserFlag",
    "ProfilingVerbosity",
    "TensorIOMode",
):
    _enumeration(_name)

_FLAGS = {"EXPLICIT_BATCH": 0, "EXPLICIT_PRECISION": 1} if _MAJOR < 10 else {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
NetworkDefinitionCreationFlag = enum.IntEnum(
    "NetworkDefinitionCreationFlag",
    {name: value for name, value in _FLAGS.items() if name in _SURFACE["NetworkDefinitionCreationFlag"]},
)


class ILogger:
    class Severity(enum.Enum):
        ERROR = 1
        WARNING = 2
        VERBOSE = 4

    def __init__(self) -> None:
        pass


class Logger(ILogger):
    WARNING = ILogger.Severity.WARNING
    ERROR = ILogger.Severity.ERROR

    def __init__(self, severity: object) -> None:
        super().__init__()


class _Tensor:
    dtype = globals()["DataType"].FLOAT

    def __init__(self, name: str) -> None:
        self.name = name


@_like_the_release
class ILayer:
    def __init__(self, name: str, operator: str) -> None:
        self.__dict__["_operator"] = operator
        self.__dict__["name"] = name

    @property
    def type(self) -> str:
        return f"LayerType.{self._operator.upper()}"


@_like_the_release
class _Network:
    plays = "INetworkDefinition"

    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._model = b""
        self._layers: list[ILayer] = []
        self._ends: tuple[list[str], list[str]] = ([], [])

    num_layers = property(lambda self: len(self._layers))
    num_inputs = property(lambda self: len(self._ends[0]))
    num_outputs = property(lambda self: len(self._ends[1]))

    def get_layer(self, index: int) -> ILayer:
        return self._layers[index]

    def get_input(self, index: int) -> _Tensor:
        return _Tensor(self._ends[0][index])

    def get_output(self, index: int) -> _Tensor:
        return _Tensor(self._ends[1][index])

    def _parsed(self, data: bytes) -> str:
        import onnx

        self._model = data
        graph = onnx.load_from_string(data).graph
        stored = {tensor.name for tensor in graph.initializer}
        zeros = {node.input[2] for node in graph.node if "Linear" in node.op_type and len(node.input) > 2}
        self._layers = [ILayer(node.name, node.op_type) for node in graph.node]
        inputs = [value.name for value in graph.input if value.name not in stored]
        self._ends = (inputs, [value.name for value in graph.output])
        codes = [t.name for t in graph.initializer if t.data_type == onnx.TensorProto.INT8 and t.name not in zeros]
        if _MAJOR < 10 and codes:
            return f"{codes[0]}: invalid weights type of Int8"
        return "Non-zero zero point is not supported" if "FAKE_REFUSES" in os.environ else ""


@_like_the_release
class _Error:
    plays = "ParserError"

    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text

    def node(self) -> int:
        return 3

    def node_name(self) -> str:
        return "node_q"

    def node_operator(self) -> str:
        return "QuantizeLinear"


@_like_the_release
class OnnxParser:
    def __init__(self, network: _Network, logger: ILogger) -> None:
        self._network, self._logger = network, logger
        self._wrong = ""
        network._parser = self  # type: ignore[attr-defined]
        self._set: list[str] = []

    num_errors = property(lambda self: 1 if self._wrong else 0)

    def set_flag(self, flag: enum.IntEnum) -> None:
        self._set.append(flag.name)

    def parse(self, data: bytes) -> bool:
        self._wrong = self._network._parsed(data)
        self._logger.log(ILogger.Severity.VERBOSE, "parsing")  # type: ignore[attr-defined]
        return not self._wrong

    def get_error(self, index: int) -> _Error:
        return _Error(self._wrong)


class _Cache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data or b"timings of " + os.environ.get("FAKE_CAPABILITY", "87").encode()


@_like_the_release
class IBuilderConfig:
    def __init__(self) -> None:
        self._profiles: list[dict[str, list[tuple[int, ...]]]] = []
        self._set: list[str] = []
        self._cleared: list[str] = []
        self._pools: dict[str, int] = {}
        self._cache: _Cache | None = None
        for name in ("int8_calibrator", "progress_monitor"):
            self.__dict__[name] = None

    def set_memory_pool_limit(self, pool: enum.IntEnum, size: int) -> None:
        self._pools[pool.name] = size

    def set_flag(self, flag: enum.IntEnum) -> None:
        self._set.append(flag.name)

    def clear_flag(self, flag: enum.IntEnum) -> None:
        self._cleared.append(flag.name)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile._shapes)
        return len(self._profiles) - 1

    def create_timing_cache(self, data: bytes) -> _Cache:
        return _Cache(data)

    def set_timing_cache(self, cache: _Cache, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        if cache.data and cache.data != _Cache(b"").serialize():
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> _Cache:
        assert self._cache is not None
        return self._cache

    def can_run_on_DLA(self, layer: ILayer) -> bool:  # noqa: N802
        return layer._operator != os.environ.get("FAKE_DLA_LACKS")


@_like_the_release
class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(
        self, name: str, smallest: tuple[int, ...], typical: tuple[int, ...], largest: tuple[int, ...]
    ) -> None:
        self._shapes[name] = [smallest, typical, largest]


if "IProgressMonitor" in _SURFACE:

    class IProgressMonitor:
        def __init__(self) -> None:
            pass


if "IInt8EntropyCalibrator2" in _SURFACE:

    class IInt8EntropyCalibrator2:
        def __init__(self) -> None:
            pass


@_like_the_release
class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> _Network:
        return _Network(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: _Network, config: IBuilderConfig) -> bytes | None:
        log = self._logger.log  # type: ignore[attr-defined]
        monitor = vars(config)["progress_monitor"]
        if monitor is not None:
            monitor.phase_start("Building", None, 4)
        if "FAKE_CRASHES" in os.environ:
            log(ILogger.Severity.VERBOSE, "tactic of node_bad")
            os.abort()
        if "FAKE_SLOW" in os.environ:
            time.sleep(float(os.environ["FAKE_SLOW"]) / 2)
            if monitor is not None:
                monitor.step_complete("Building", 0)
            time.sleep(float(os.environ["FAKE_SLOW"]) / 2)
        if "FAKE_GREEDY" in os.environ:
            self.__dict__["_held"] = b"x" * (int(os.environ["FAKE_GREEDY"]) << 20)
            time.sleep(60)
        if monitor is not None:
            monitor.phase_finish("Building")
        typed = _MAJOR >= 11 or (_MAJOR == 10 and bool(network._flags & 2))
        precisions = {"INT8", "FP16"} & set(config._set)
        if typed and precisions:
            log(ILogger.Severity.ERROR, f"precision flags {precisions} on a strongly typed network")
            return None
        if not typed and "INT8" not in precisions and b"QuantizeLinear" in network._model:
            log(ILogger.Severity.ERROR, "Q/DQ without the INT8 flag")
            return None
        calibrator = vars(config)["int8_calibrator"]
        told = {
            "flags": network._flags,
            "set": sorted(config._set),
            "cleared": config._cleared,
            "parser": network._parser._set,  # type: ignore[attr-defined]
            "pools": config._pools,
            "profiles": config._profiles,
            "calibration": calibrator.read_calibration_cache().decode() if calibrator is not None else None,
        }
        for name in ("hardware_compatibility_level", "builder_optimization_level", "DLA_core", "default_device_type"):
            value = vars(config).get(name)
            told[name] = value.name if isinstance(value, enum.Enum) else value
        return json.dumps(told).encode() + b"\n" + network._model


@_like_the_release
class Runtime:
    def __init__(self, logger: ILogger) -> None:
        pass

    def deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine | None:
        header, _, model = plan.partition(b"\n")
        told = json.loads(header)
        if "VERSION_COMPATIBLE" in told["set"] and not vars(self).get("engine_host_code_allowed"):
            return None
        if told["DLA_core"] != vars(self).get("DLA_core"):
            return None
        return ICudaEngine(told, model)


@_like_the_release
class ICudaEngine:
    def __init__(self, told: dict, model: bytes) -> None:
        import onnx
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._told = told
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._nodes = [(node.op_type, node.name) for node in onnx.load_from_string(model).graph.node]
        self._names = [
            [item.name for item in items] for items in (self._session.get_inputs(), self._session.get_outputs())
        ]
        self._weights = "STRIP_PLAN" not in told["set"]

    num_io_tensors = property(lambda self: sum(map(len, self._names)))
    num_optimization_profiles = property(lambda self: max(1, len(self._told["profiles"])))

    def get_tensor_name(self, index: int) -> str:
        return [*self._names[0], *self._names[1]][index]

    def get_tensor_mode(self, name: str) -> enum.IntEnum:
        modes = globals()["TensorIOMode"]
        return modes.INPUT if name in self._names[0] else modes.OUTPUT

    def get_tensor_dtype(self, name: str) -> enum.IntEnum:
        return globals()["DataType"].FLOAT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        items = [*self._session.get_inputs(), *self._session.get_outputs()]
        shape = next(item for item in items if item.name == name).shape
        return tuple(size if isinstance(size, int) else -1 for size in shape)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self._told["profiles"][profile][name]]

    def create_execution_context(self) -> IExecutionContext | None:
        return IExecutionContext(self) if self._weights else None

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)


@_like_the_release
class EngineInspector:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine

    def get_engine_information(self, kind: object) -> str:
        joined = {"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}
        split = {"Format": "Channel major", "Datatype": "Int8"}
        layers = []
        for kind_of, name in self._engine._nodes:
            if kind_of == "Conv":
                layer = {"Name": name, "LayerType": "Convolution", "Inputs": [split if _MAJOR >= 11 else joined]}
                if _NUMBER >= (8, 6):
                    layer["Metadata"] = f"[ONNX Layer: {name}]"
                layers.append(layer)
        return json.dumps({"Layers": layers, "I/O Tensors" if _MAJOR >= 11 else "Bindings": []})


if "OnnxParserRefitter" in _SURFACE:

    @_like_the_release
    class Refitter:
        def __init__(self, engine: ICudaEngine, logger: ILogger) -> None:
            self._engine = engine

        def refit_cuda_engine(self) -> bool:
            return self._engine._weights

    @_like_the_release
    class OnnxParserRefitter:
        def __init__(self, refitter: Refitter, logger: ILogger) -> None:
            self._refitter = refitter

        def refit_from_bytes(self, model: bytes) -> bool:
            self._refitter._engine._weights = True
            return True


@_like_the_release
class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._profile = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self._profile = index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = shape
        if not self._engine._told["profiles"]:
            return True
        smallest, _, largest = self._engine._told["profiles"][self._profile][name]
        return all(smallest[i] <= shape[i] <= largest[i] for i in range(len(shape)))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        item = next(item for item in self._engine._session.get_outputs() if item.name == name)
        batch = next(iter(self._shapes.values()))[0]
        return tuple(size if isinstance(size, int) else batch for size in item.shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        inputs = {name: self._view(name, shape).copy() for name, shape in self._shapes.items()}
        for name, result in zip(self._engine._names[1], self._engine._session.run(None, inputs)):  # noqa: B905 (Python 3.8)
            view = self._view(name, result.shape)
            view[...] = -result if "FAKE_WRONG" in os.environ else result
        return True

    def _view(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape))
        pointer = ctypes.cast(self._addresses[name], ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(pointer, (count,)).reshape(shape)
