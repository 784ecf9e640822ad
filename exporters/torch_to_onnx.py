"""A torch module, float or quantised by torchao's pt2e flow, as an ONNX file.

The file is made for machines that never saw the module: standard operators of the opset that the target's runtime
knows, weights stored as int8 behind DequantizeLinear, a batch dimension named "batch", class names and preprocessing
in its metadata, and nothing of the machine that exported it. The same module gives the same bytes, also in another
process.

STFT stays STFT here (onnxruntime and the C exporter have it); TensorRT's builders rewrite it.
"""

import contextlib
import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

from exporters import free_sizes, graph, large, operators_once, recurrent_shapes, rewrite, torch_operators
from exporters.artifact import Artifact
from exporters.errors import ExportError
from exporters.passes import (
    drop_identities,
    drop_unused,
    floor_scales,
    fold_weight_quantizers,
    gather_codes,
    lower_opset,
    mean_to_global_pool,
    pack_int4,
    share_quantizers,
    strip_traces,
)
from exporters.rewrite import Pass, named

BATCH = "batch"
LOWEST_OPSET = 18  # torch's exporter writes nothing older; passes/lower_opset.py does
NO_LENGTHS: Mapping[str, Mapping[int, str]] = {}
HIGHEST_IR = 10  # read by every runtime since onnx 1.16, so by TensorRT 10.3's parser

SIMPLIFY = (  # in this order
    drop_identities,
    fold_weight_quantizers,
    pack_int4,
    floor_scales,
    gather_codes,
    share_quantizers,
    mean_to_global_pool,
    drop_unused,
)


def convert(
    module: nn.Module,
    example: tuple[Tensor, ...],
    out: Path,
    *,
    opset: int,
    input_names: Sequence[str],
    output_names: Sequence[str],
    metadata: Mapping[str, str],
    dynamic_batch: bool = True,
    dynamic: Mapping[str, Mapping[int, str]] = NO_LENGTHS,
    simplify: bool = True,
    last: Sequence[Pass] = (),
    verify: bool = True,
    one_file_bytes: int = large.ONE_FILE_BYTES,
) -> Artifact:
    """Write `module` as an ONNX file.

    Args:
        module: a plain module in evaluation mode, or the GraphModule that `convert_pt2e` returned (in evaluation mode
            by `move_exported_model_to_eval`). It is called with `example` and not changed.
        example: one tensor per input, batch first. Every other dimension becomes static unless `dynamic` names it.
        out: the file; written whole or not at all.
        opset: version of the standard operators, as the target's runtime knows them.
        input_names: one per input.
        output_names: one per output.
        metadata: plain text by key: class names as JSON, preprocessing, normalisation, where the weights came from.
        dynamic_batch: False keeps the example's batch size.
        dynamic: input -> {axis: name of its size in the file}, for lengths that are free; axes of one name have one
            size. The module must have been captured with them free.
        simplify: False skips the rewrites of `exporters.passes` except the removal of traces.
        last: rewrites behind all others, such as the Casts of a half-precision network.
        verify: run the graph on the example before the first rewrite and behind the last of ours (not behind `last`,
            whose caller knows what they may change), and refuse a rewrite that changed more than it says.
        one_file_bytes: where the weights are larger than this, they go into a data file beside the model.

    Returns:
        The file, with facts: opset, sha256, bytes, count of each operator, weighted_nodes, weighted_nodes_int8; and
        `files`, the sha256 of each file written.

    Raises:
        ExportError: the module has an operator that ONNX lacks, its outputs lose the batch dimension, the opset cannot
            be had, or the result fails onnx's full check.
    """
    _check_arguments(example, input_names, output_names, metadata)
    _check_lengths(example, input_names, dynamic)
    if dynamic_batch:
        # torch.export reads a batch of 1 as the constant 1.
        example = tuple(torch.cat([tensor, tensor]) if tensor.shape[0] == 1 else tensor for tensor in example)
    shapes = _shapes(module, input_names, dynamic_batch, dynamic)
    if dynamic:
        model = _export(_capture(module, example, shapes), (), max(opset, LOWEST_OPSET), input_names, output_names)
        _name_sizes(model, dynamic, dynamic_batch)
    else:
        model = _export(module, example, max(opset, LOWEST_OPSET), input_names, output_names, shapes)
    reached = graph.opset(model)
    if reached != max(opset, LOWEST_OPSET):
        raise ExportError(
            f"this model cannot be written in ONNX opset {opset}: torch's exporter gave opset {reached}",
            fix=f"set the target's opset to {reached}",
        )
    model = strip_traces.apply(model)
    steps = [named(step) for step in SIMPLIFY] if simplify else []
    steps += [named(lower_opset, opset), named(drop_unused)]
    samples = {name: tensor.numpy(force=True) for name, tensor in zip(input_names, example, strict=True)}
    model = rewrite.run(model, steps, samples=samples if verify else None)
    for step in last:
        model = step.apply(model)
    model = finish(model, metadata)
    if dynamic_batch:
        _check_batch(model)
    return write(model, Path(out), one_file_bytes=one_file_bytes)


def write(model: ModelProto, out: Path, *, one_file_bytes: int = large.ONE_FILE_BYTES) -> Artifact:
    """Check a finished model and write it, whole or not at all; arguments and errors as in `convert`."""
    _check(model)
    files = large.write(model, out, one_file_bytes=one_file_bytes)
    size = sum(out.with_name(name).stat().st_size for name in files)
    return Artifact(path=out, kind="onnx", facts=facts(model, files[out.name], size) | {"files": files})


def finish(model: ModelProto, metadata: Mapping[str, str]) -> ModelProto:
    """The same graph with a fixed header: producer, IR version, metadata in order of their keys, inferred shapes."""
    model = graph.copy(model)
    # Shapes written by the exporter may carry names of its symbols; infer them again from the inputs.
    del model.graph.value_info[:]
    inferred = large.infer_shapes(model, check_type=True, strict_mode=False)
    values = sorted(inferred.graph.value_info, key=lambda value: value.name)
    for value, found in zip(model.graph.output, inferred.graph.output, strict=True):
        value.CopyFrom(found)
    model.graph.value_info.extend(values)
    model.ir_version = min(model.ir_version, HIGHEST_IR)
    model.producer_name = "compress"
    model.producer_version = ""
    model.domain = ""
    model.model_version = 0
    model.graph.name = "model"
    for key in sorted(metadata):
        model.metadata_props.add(key=key, value=metadata[key])
    return model


def _check(model: ModelProto) -> None:
    """Refuse what onnx's full check refuses; a model too large for one message is checked without its weights."""
    try:
        onnx.checker.check_model(large.skeleton(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"the exported graph fails onnx's check: {_first_line(str(error))}",
            fix="simplify the module, or report this with the recipe that led to it",
        ) from error


def facts(model: ModelProto, sha256: str, size: int) -> dict[str, object]:
    """Figures of a file; weighted_nodes_int8 counts those whose data and weights both come dequantised."""
    makers = graph.producers(model.graph)
    weighted = [node for node in model.graph.node if node.op_type in graph.WEIGHTED]
    both = [
        node
        for node in weighted
        if all(name in makers and makers[name].op_type == "DequantizeLinear" for name in node.input[:2])
    ]
    return {
        "opset": graph.opset(model),
        "sha256": sha256,
        "bytes": size,
        "operators": dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
        "weighted_nodes": len(weighted),
        "weighted_nodes_int8": len(both),
        "exporter": f"torch {torch.__version__}",
    }


def _check_arguments(
    example: tuple[Tensor, ...], input_names: Sequence[str], output_names: Sequence[str], metadata: Mapping[str, str]
) -> None:
    if len(example) != len(input_names):
        raise ExportError(
            f"{len(example)} example inputs, but {len(input_names)} input names", fix="give one name per input"
        )
    names = [*input_names, *output_names]
    if len(set(names)) != len(names):
        raise ExportError(f"the names {names} are not all different", fix="name each input and output differently")
    for name, tensor in zip(input_names, example, strict=True):
        if tensor.dim() == 0 or tensor.shape[0] == 0:
            raise ExportError(f"input {name!r} has no batch dimension with samples", fix="pass at least one sample")
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ExportError(f"metadata {key!r} is not text", fix="write it as JSON first")


def _capture(module: nn.Module, example: tuple[Tensor, ...], shapes: Any) -> torch.export.ExportedProgram:
    """The module as a graph whose lengths are free, also through recurrent layers."""
    try:
        with _quiet(), torch.no_grad(), recurrent_shapes.shapes_only():
            return torch.export.export(module, example, dynamic_shapes=shapes, strict=False)
    except (torch._dynamo.exc.UserError, RuntimeError, ValueError) as error:
        raise ExportError(
            f"the module works for one size only: {_first_line(str(error))}",
            fix="let no Python branch depend on a free size, and capture the module with that size free",
        ) from error


def _export(
    module: nn.Module | torch.export.ExportedProgram,
    example: tuple[Tensor, ...],
    opset: int,
    input_names: Sequence[str],
    output_names: Sequence[str],
    shapes: tuple[Any, ...] | None = None,
) -> ModelProto:
    try:
        with _quiet(), torch.no_grad(), recurrent_shapes.shapes_only(), operators_once.kept():
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=shapes,
                input_names=list(input_names),
                output_names=list(output_names),
                verbose=False,
                optimize=True,
                external_data=False,
                custom_translation_table=torch_operators.translations(),
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise _refusal(error) from error
    if program is None:
        raise ExportError("torch's exporter returned nothing", fix="update torch to 2.11 or later")
    model = graph.copy(program.model_proto)
    given = [value.name for value in model.graph.output]
    if given != list(output_names):
        raise ExportError(
            f"the model has {len(given)} outputs {given}, but the names given are {list(output_names)}",
            fix="give one name per output tensor",
        )
    return model


def _check_lengths(
    example: tuple[Tensor, ...], input_names: Sequence[str], dynamic: Mapping[str, Mapping[int, str]]
) -> None:
    given = dict(zip(input_names, example, strict=True))
    sizes: dict[str, int] = {}
    for name, axes in dynamic.items():
        if name not in given:
            raise ExportError(
                f"dynamic names the input {name!r}, but there are {', '.join(input_names)}", fix="name an input"
            )
        for axis, length in axes.items():
            shape = tuple(given[name].shape)
            if not 0 < axis < len(shape) or shape[axis] < 2:
                raise ExportError(
                    f"axis {axis} of {name!r}, shape {shape}, cannot be a free length",
                    fix="name an axis behind the batch, with an example of two steps or more",
                )
            if sizes.setdefault(length, shape[axis]) != shape[axis] or length == BATCH:
                raise ExportError(
                    f"{length!r} would name sizes {sizes[length]} and {shape[axis]}",
                    fix="give different lengths different names, and none the name of the batch",
                )


def _shapes(
    module: nn.Module,
    input_names: Sequence[str],
    dynamic_batch: bool,
    dynamic: Mapping[str, Mapping[int, str]],
) -> tuple[Any, ...] | None:
    """What torch.export takes as free sizes; None where nothing is free."""
    if not dynamic_batch and not dynamic:
        return None
    batch = {0: torch.export.Dim(BATCH, min=1)} if dynamic_batch else {}
    # Which lengths are allowed (a convolution needs its kernel's width) follows from the module.
    free = torch.export.Dim.DYNAMIC
    sizes = [{**batch, **dict.fromkeys(dynamic.get(name, {}), free)} for name in input_names]
    return free_sizes.as_arguments(module, sizes)


def _name_sizes(model: ModelProto, dynamic: Mapping[str, Mapping[int, str]], dynamic_batch: bool) -> None:
    """Call free sizes by their names, also within what the outputs' sizes are computed by ("s27//2")."""
    names = {}
    for value in model.graph.input:
        axes = {**({0: BATCH} if dynamic_batch else {}), **dynamic.get(value.name, {})}
        for axis, name in axes.items():
            size = value.type.tensor_type.shape.dim[axis]
            if not size.dim_param:
                raise ExportError(
                    f"the module works for {value.name!r} with {name} = {size.dim_value} only",
                    fix="let no Python branch depend on that size, and capture the module with it free",
                )
            names[size.dim_param] = name
    for value in (*model.graph.input, *model.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), size.dim_param)


def _refusal(error: Exception) -> ExportError:
    """What torch's exporter refused, in one sentence."""
    text = "\n".join(str(link) for link in _chain(error))
    missing = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", text)
    if missing is None:
        missing = re.search(r"No decompositions registered for (?:the complex-valued )?(\S+)", text)
    if missing is not None:
        return ExportError(
            f"torch's operator {missing.group(1)!r} has no ONNX counterpart",
            fix="write that part of the model with other operators",
        )
    if "Constraints violated" in text or "ConstraintViolation" in text or "not marked dynamic" in text:
        return ExportError(
            "the module works for one batch size only: " + _first_matching(text, "batch"),
            fix="capture it with a dynamic batch dimension (torch.export.export(..., dynamic_shapes=...)), "
            "or export with dynamic_batch=False",
        )
    cause = list(_chain(error))[-1]
    return ExportError(
        f"torch cannot export this module: {type(cause).__name__}: {_first_line(str(cause))}",
        fix="try torch.export.export(module, example) alone; its message names the line of the module",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:300] if lines else "(no message)"


def _first_matching(text: str, word: str) -> str:
    lines = [line.strip() for line in text.splitlines() if word in line]
    return lines[-1][:300] if lines else _first_line(text)


def _check_batch(model: ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if not dims or dims[0].dim_param != BATCH:
            found = dims[0].dim_value or dims[0].dim_param or "unknown" if dims else "a scalar"
            raise ExportError(
                f"the first dimension of {value.name!r} is {found}, not the batch",
                fix="let every input and output have the batch first, or export with dynamic_batch=False",
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what torch's exporter says to its own developers; its errors still raise."""
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
