"""The names of TensorRT's Python interface that a bundle's script uses, run by onnxruntime.

FAKE_TENSORRT is the version it plays: what a version lacks is absent here too (11 has no INT8 flag, 10 joins a layer's
type with its format). FAKE_REFUSES, FAKE_CRASHES and FAKE_WRONG make it refuse the graph, abort, or compute nonsense.
Recorded from the Python API reference of TensorRT 10.3 and 11.
"""

import ctypes
import enum
import json
import os

import numpy as np

__version__ = os.environ.get("FAKE_TENSORRT", "10.3.0")
_MAJOR = int(__version__.split(".")[0])


class ILogger:
    class Severity(enum.Enum):
        ERROR = 1
        WARNING = 2
        VERBOSE = 4

    def __init__(self) -> None:
        pass


class Logger(ILogger):
    WARNING = ILogger.Severity.WARNING

    def __init__(self, severity: object) -> None:
        super().__init__()


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


BuilderFlag = enum.Enum("BuilderFlag", ["TF32", *(["FP16", "INT8"] if _MAJOR == 10 else [])])
ProfilingVerbosity = enum.Enum("ProfilingVerbosity", ["DETAILED"])
MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
TensorIOMode = enum.Enum("TensorIOMode", ["INPUT", "OUTPUT"])
LayerInformationFormat = enum.Enum("LayerInformationFormat", ["JSON"])


def nptype(kind: object) -> type:
    return np.float32


class _Network:
    model = b""

    def __init__(self, flags: int) -> None:
        self.flags = flags


class _Error:
    def desc(self) -> str:
        return "Non-zero zero point is not supported"

    def node_name(self) -> str:
        return "node_q"

    def node_operator(self) -> str:
        return "QuantizeLinear"


class OnnxParser:
    num_errors = 1

    def __init__(self, network: _Network, logger: ILogger) -> None:
        self.network = network
        self.logger = logger

    def parse(self, data: bytes) -> bool:
        self.network.model = data
        self.logger.log(ILogger.Severity.VERBOSE, "parsing")
        return "FAKE_REFUSES" not in os.environ

    def get_error(self, index: int) -> _Error:
        return _Error()


class _Cache:
    def serialize(self) -> bytes:
        return b"timings"


class _Config:
    profiling_verbosity: object = None

    def __init__(self) -> None:
        self.profiles: list[_Profile] = []
        self.cleared: list[str] = []

    def set_memory_pool_limit(self, pool: object, size: int) -> None:
        assert size > 0

    def clear_flag(self, flag: enum.Enum) -> None:
        self.cleared.append(flag.name)

    def add_optimization_profile(self, profile: "_Profile") -> None:
        self.profiles.append(profile)

    def create_timing_cache(self, data: bytes) -> _Cache:
        return _Cache()

    def set_timing_cache(self, cache: _Cache, ignore_mismatch: bool) -> None:
        assert ignore_mismatch is False

    def get_timing_cache(self) -> _Cache:
        return _Cache()


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(
        self, name: str, smallest: tuple[int, ...], typical: tuple[int, ...], largest: tuple[int, ...]
    ) -> None:
        self.shapes[name] = [smallest, typical, largest]


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self.logger = logger

    def create_network(self, flags: int) -> _Network:
        return _Network(flags)

    def create_builder_config(self) -> _Config:
        return _Config()

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes:
        if "FAKE_CRASHES" in os.environ:
            self.logger.log(ILogger.Severity.VERBOSE, "tactic of node_bad")
            os.abort()
        told = {"flags": network.flags, "cleared": config.cleared, "shapes": config.profiles[0].shapes}
        return json.dumps(told).encode() + b"\n" + network.model


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        pass

    def deserialize_cuda_engine(self, plan: bytes) -> "_Engine":
        header, _, model = plan.partition(b"\n")
        return _Engine(json.loads(header), model)


class _Engine:
    def __init__(self, told: dict, model: bytes) -> None:
        import onnx
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.told = told
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.nodes = [(node.op_type, node.name) for node in onnx.load_from_string(model).graph.node]
        self.names = [
            [item.name for item in items] for items in (self.session.get_inputs(), self.session.get_outputs())
        ]
        self.num_io_tensors = sum(map(len, self.names))

    def get_tensor_name(self, index: int) -> str:
        return [*self.names[0], *self.names[1]][index]

    def get_tensor_mode(self, name: str) -> enum.Enum:
        return TensorIOMode.INPUT if name in self.names[0] else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        return "FLOAT"

    def create_execution_context(self) -> "_Context":
        return _Context(self)

    def create_engine_inspector(self) -> "_Engine":
        return self

    def get_engine_information(self, kind: object) -> str:
        joined = {"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}
        split = {"Format": "Channel major", "Datatype": "Int8"}
        layers = [
            {"Name": name, "Inputs": [joined if _MAJOR == 10 else split], "Metadata": f"[ONNX Layer: {name}]"}
            for kind, name in self.nodes
            if kind == "Conv"
        ]
        return json.dumps({"Layers": layers})


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        smallest, _, largest = self.engine.told["shapes"][name]
        self.shapes[name] = shape
        return all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        item = next(item for item in self.engine.session.get_outputs() if item.name == name)
        batch = next(iter(self.shapes.values()))[0]
        return tuple(size if isinstance(size, int) else batch for size in item.shape)

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        inputs = {name: self._view(name, shape).copy() for name, shape in self.shapes.items()}
        for name, result in zip(self.engine.names[1], self.engine.session.run(None, inputs), strict=True):
            view = self._view(name, result.shape)
            view[...] = -result if "FAKE_WRONG" in os.environ else result
        return True

    def _view(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape))
        pointer = ctypes.cast(self.addresses[name], ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(pointer, (count,)).reshape(shape)
