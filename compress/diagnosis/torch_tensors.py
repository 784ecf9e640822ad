"""A torch module's intermediate tensors under the names that its exported ONNX file gives them.

torch's exporter names an ONNX tensor after the node of the exported program that it came from. Exporting the same
module again gives the same program, so its nodes can be run in torch and looked up by the file's names.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn
from torch.fx import Interpreter, Node

from compress.errors import RunError
from exporters import free_sizes, recurrent_shapes, torch_operators

Arrays = Mapping[str, NDArray[np.generic]]
# Numpy has no such types. Codes of eight bits are compared by what they stand for, one node later.
WITHOUT_NUMPY = frozenset({torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2})


class TorchTensors:
    """A reference for `exporters.bisect`.

    Args:
        module: what was exported, in evaluation mode; the converted student, for a quantised file.
        example: its inputs, two samples at least.
        exported: the file that was made of it: names of inputs and outputs, and which dimensions are free.

    Raises:
        RunError: the module cannot be exported again.
    """

    def __init__(self, module: nn.Module, example: tuple[Tensor, ...], exported: ModelProto) -> None:
        fixed = {tensor.name for tensor in exported.graph.initializer}
        self._inputs = [value.name for value in exported.graph.input if value.name not in fixed]
        self._outputs = [value.name for value in exported.graph.output]
        program = _program(module, example, exported, self._inputs, self._outputs)
        self._graph = program.module(check_guards=False)
        nodes = [node for node in self._graph.graph.nodes if node.op == "call_function"]
        self._names = {node.name: node for node in nodes}
        returned = _returned(self._graph.graph.nodes)
        self._names.update(zip(self._outputs, returned, strict=False))

    @property
    def names(self) -> Sequence[str]:
        """What it computes, and the outputs by the file's names."""
        return list(self._names)

    @cached_property
    def constants(self) -> Mapping[str, NDArray[np.generic]]:
        """Parameters and buffers of types that numpy has, by the names of the file's initializers."""
        stored = self._graph.state_dict()
        return {
            name: value.detach().cpu().numpy() for name, value in stored.items() if value.dtype not in WITHOUT_NUMPY
        }

    def compute(self, names: Sequence[str], inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        """Values of these tensors, from one run; a value is dropped as soon as nothing needs it."""
        wanted = {self._names[name]: name for name in names}
        also = {name: self._names[name] for name in names}
        keeper = _Keeper(self._graph, set(wanted))
        with torch.no_grad(), _quiet():
            keeper.run(*(torch.from_numpy(np.array(inputs[name])) for name in self._inputs))
        return {name: keeper.kept[node] for name, node in also.items() if node in keeper.kept}


class _Keeper(Interpreter):
    """Runs the graph and keeps what some nodes give."""

    def __init__(self, graph: torch.fx.GraphModule, wanted: set[Node]) -> None:
        super().__init__(graph)
        self._wanted = wanted
        self.kept: dict[Node, NDArray[np.generic]] = {}

    def run_node(self, n: Node) -> Any:
        """As the base class; keeps tensors that were asked for and that numpy can hold."""
        value = super().run_node(n)
        if n in self._wanted and isinstance(value, Tensor) and value.dtype not in WITHOUT_NUMPY:
            self.kept[n] = value.detach().cpu().contiguous().numpy()
        return value


def _program(
    module: nn.Module, example: tuple[Tensor, ...], exported: ModelProto, inputs: Sequence[str], outputs: Sequence[str]
) -> torch.export.ExportedProgram:
    opset = max(entry.version for entry in exported.opset_import if entry.domain in ("", "ai.onnx"))
    inputs_of = tuple(torch.cat([tensor, tensor]) if tensor.shape[0] == 1 else tensor for tensor in example)
    sizes = _free(exported, inputs)
    free = None if sizes is None else free_sizes.as_arguments(module, sizes)
    try:
        with _quiet(), torch.no_grad(), recurrent_shapes.shapes_only():
            captured: nn.Module | torch.export.ExportedProgram = module
            if any(axis > 0 for shape in sizes or () for axis in shape):  # as the exporter does for free lengths
                captured = torch.export.export(module, inputs_of, dynamic_shapes=free, strict=False)
                inputs_of, free = (), None
            made = torch.onnx.export(
                captured,
                inputs_of,
                dynamo=True,
                opset_version=max(opset, 18),
                dynamic_shapes=free,
                input_names=list(inputs),
                output_names=list(outputs),
                verbose=False,
                optimize=False,
                external_data=False,
                custom_translation_table=torch_operators.translations(),
            )
    except (torch.onnx.errors.OnnxExporterError, torch._dynamo.exc.UserError, RuntimeError, ValueError) as error:
        raise RunError(
            f"the module cannot be exported again: {str(error).splitlines()[0]}",
            fix="bisect two ONNX files instead: compress bisect A.onnx B.onnx --inputs golden.npz",
        ) from error
    assert made is not None
    assert made.exported_program is not None
    return made.exported_program


def _free(exported: ModelProto, inputs: Sequence[str]) -> tuple[dict[int, Any], ...] | None:
    """Free dimensions as the file has them: the batch, and lengths of any size."""
    by_name = {value.name: value for value in exported.graph.input}
    batch = torch.export.Dim("batch", min=1)
    shapes = []
    for name in inputs:
        dims = by_name[name].type.tensor_type.shape.dim
        free = [axis for axis, dim in enumerate(dims) if not dim.HasField("dim_value")]
        shapes.append({axis: batch if axis == 0 else torch.export.Dim.DYNAMIC for axis in free})
    return tuple(shapes) if any(shapes) else None


def _returned(nodes: Any) -> list[Node]:
    last = next(node for node in reversed(list(nodes)) if node.op == "output")
    return list(last.all_input_nodes) if len(last.all_input_nodes) == 1 else [*_flat(last.args)]


def _flat(value: Any) -> Iterator[Node]:
    if isinstance(value, Node):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
