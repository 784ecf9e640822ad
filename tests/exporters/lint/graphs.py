"""A small hand for writing Q/DQ graphs, and the good ones that bad patterns are planted in."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

METADATA = {"quantizer": "tensorrt", "recipe": "abc"}


class Writer:
    """Collects nodes; each method returns the name of the tensor that it made."""

    def __init__(self, shape: tuple[int | str, ...] = ("batch", 16, 8, 8), opset: int = 20) -> None:
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))]
        self.opset = opset
        self.rng = np.random.default_rng(0)
        self.count = 0

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def const(self, value: ArrayLike, dtype: DTypeLike = np.float32) -> str:
        name = self.name("const")
        self.tensors.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def op(self, kind: str, *inputs: str, name: str = "", domain: str = "", **attributes: object) -> str:
        name = name or self.name(kind.lower())
        node = helper.make_node(kind, list(inputs), [f"{name}_out"], name=name, domain=domain, **attributes)
        node.metadata_props.add(key="module", value=f"net.{name}")
        self.nodes.append(node)
        return f"{name}_out"

    def pair(
        self,
        tensor: str,
        scale: ArrayLike = 0.05,
        zero: int = 0,
        dtype: DTypeLike = np.int8,
        name: str = "",
        **attributes: int,
    ) -> str:
        """Quantize and dequantize; nodes `<name>_q` and `<name>_dq`."""
        name = name or self.name("pair")
        step = self.const(scale)
        point = self.const(np.full(np.shape(scale), zero), dtype)
        codes = self.op("QuantizeLinear", tensor, step, point, name=f"{name}_q", **attributes)
        return self.op("DequantizeLinear", codes, step, point, name=f"{name}_dq", **attributes)

    def weight(self, *shape: int, axis: int = 0, scale: ArrayLike | None = None, name: str = "") -> str:
        """int8 codes and their DequantizeLinear."""
        codes = self.const(self.rng.integers(-127, 128, shape), np.int8)
        step = self.const(np.full(shape[axis], 0.01) if scale is None else scale)
        zero = self.const(np.zeros(shape[axis]), np.int8)
        return self.op("DequantizeLinear", codes, step, zero, name=name or self.name("weight"), axis=axis)

    def real(self, *shape: int) -> str:
        """A float weight."""
        return self.const(self.rng.standard_normal(shape) * 0.1)

    def conv(self, tensor: str, weight: str, channels: int = 16, name: str = "", size: int = 3, group: int = 1) -> str:
        bias = self.const(np.zeros(channels))
        return self.op(
            "Conv",
            tensor,
            weight,
            bias,
            name=name or self.name("conv"),
            kernel_shape=[size, size],
            pads=[size // 2] * 4,
            group=group,
        )

    def int8_conv(self, tensor: str, name: str = "") -> str:
        """16 -> 16 channels, its input as it is."""
        return self.conv(tensor, self.weight(16, 16, 3, 3), name=name)

    def body(self) -> str:
        """A convolution with its activation, as every rule wants it: (batch, 16, 8, 8)."""
        return self.op("Relu", self.int8_conv(self.pair("x"), "first"))

    def model(self, *outputs: str, metadata: dict[str, str] | None = None) -> ModelProto:
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", self.inputs, values, self.tensors)
        domains = {node.domain for node in self.nodes} - {""}
        imports = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        made = helper.make_model(graph, opset_imports=imports, ir_version=10, producer_name="tests")
        for key, value in (METADATA if metadata is None else metadata).items():
            made.metadata_props.add(key=key, value=value)
        return onnx.shape_inference.infer_shapes(made)


def write(model: ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    """The model as a file."""
    onnx.save(model, str(folder / name))
    return folder / name


def good() -> ModelProto:
    """A residual network with pool, concat, gate, attention-free head; nothing for a rule of TensorRT to say."""
    g = Writer()
    first = g.pair(g.body(), 0.1)
    second = g.op("Relu", g.op("Add", g.int8_conv(first), first))
    pooled = g.pair(g.op("MaxPool", second, kernel_shape=[2, 2], strides=[2, 2]), 0.1)
    left, right = (g.pair(g.op("Relu", g.int8_conv(pooled)), 0.2) for _ in range(2))
    joined = g.op("Concat", left, right, axis=1)
    third = g.op("HardSwish", g.conv(g.pair(joined, 0.2), g.weight(16, 32, 3, 3)))
    mean = g.op("GlobalAveragePool", g.pair(third))
    flat = g.op("Flatten", mean)
    return g.model(g.op("Gemm", g.pair(flat), g.weight(8, 16), g.const(np.zeros(8)), name="head", transB=1))


def good_for_onnxruntime() -> ModelProto:
    """uint8 activations, every output quantised."""
    g = Writer()
    first = unsigned(g, g.op("Relu", g.int8_conv(g.pair("x", zero=128, dtype=np.uint8))))
    branch = g.pair(g.int8_conv(first), zero=128, dtype=np.uint8)
    total = unsigned(g, g.op("Relu", g.op("Add", branch, first)))
    mean = unsigned(g, g.op("GlobalAveragePool", total))
    flat = unsigned(g, g.op("Flatten", mean))
    head = g.op("Gemm", flat, g.weight(8, 16), name="head", transB=1)
    return g.model(head, metadata={"quantizer": "onnxruntime_x86", "recipe": "abc"})


def unsigned(g: Writer, tensor: str, scale: float = 0.05) -> str:
    """uint8 with zero point 0, as behind a Relu."""
    return g.pair(tensor, scale, 0, np.uint8)
