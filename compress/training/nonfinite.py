"""Where a number that is not finite comes from: looked for once a loss or a gradient has failed, at no cost before."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.signals import Signals

SHOWN = 4  # examples or tensors that a sentence names


def first_source(
    batches: Mapping[str, Batch],
    ask: Mapping[str, Callable[[Batch], Signals]],
    students: Mapping[str, nn.Module],
    autocast: Callable[[], AbstractContextManager[Any]],
    gradients: Mapping[str, str],
) -> str:
    """The first place, in the order in which a step computes, where a value is NaN or infinite.

    Args:
        batches: of the step, by stream.
        ask: each teacher, by name.
        students: by name; run once more, to watch every module.
        autocast: the precision that the step ran in.
        gradients: parameter -> what is wrong with its gradient, as the failed step left them.

    Returns:
        A phrase that names a tensor, and examples by their position in the stream where rows tell them apart.
    """
    for stream, batch in batches.items():
        for name, tensor in _tensors(batch):
            if (rows := _rows(tensor)) is not None:
                return f"{name} of {_examples(batch, rows, stream)} {_is(tensor)}"
    for student, network in students.items():
        wrong = [f"{student}.{name}" for name, value in _stored(network) if not _finite(value)]
        if wrong:
            return f"weights of the student are not finite: {_some(wrong)}"
    for stream, batch in batches.items():
        for teacher, answer in ask.items():
            found = answer(batch)
            named = {"output": found.output, **found.others, **{f"tap {n}": v for n, v in found.taps.items()}}
            for name, tensor in named.items():
                if (rows := _rows(tensor)) is not None:
                    return f"the {name} of {teacher!r} for {_examples(batch, rows, stream)} {_is(tensor)}"
    for stream, batch in batches.items():
        for student, network in students.items():
            if (told := _module(network, batch, autocast)) is not None:
                name, tensor, rows = told
                where = f"module {name!r} of {student!r}" if name else f"the output of {student!r}"
                return f"{where} gives a value that {_is(tensor)}, for {_examples(batch, rows, stream)}"
    if gradients:
        told_gradients = [f"that of {name} {what}" for name, what in gradients.items()]
        return f"every value is finite and a gradient is not: {_some(told_gradients)}"
    return "inputs, weights and answers are finite: it arises in a term of the loss"


def broken_gradients(students: Mapping[str, nn.Module]) -> dict[str, str]:
    """Parameter -> what is wrong with its gradient, where it is not finite."""
    return {
        f"{student}.{name}": _is(parameter.grad)
        for student, network in students.items()
        for name, parameter in network.named_parameters()
        if parameter.grad is not None and not _finite(parameter.grad)
    }


def _tensors(batch: Batch) -> Iterator[tuple[str, Tensor]]:
    for number, tensor in enumerate(batch.inputs):
        yield f"input {number}", tensor
    if batch.labels is not None:
        yield "the label", batch.labels
    yield from batch.extras.items()
    yield from batch.common.items()


def _stored(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


def _module(
    network: nn.Module, batch: Batch, autocast: Callable[[], AbstractContextManager[Any]]
) -> tuple[str, Tensor, Tensor] | None:
    """The first module that gives such a value, with the value and its rows; None where none does."""
    found: list[tuple[str, Tensor, Tensor]] = []
    names = {module: name for name, module in network.named_modules()}

    def watch(module: nn.Module, _: object, result: object) -> None:
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if not found and isinstance(tensor, Tensor) and (rows := _rows(tensor)) is not None:
                found.append((names[module], tensor, rows))

    hooks = [module.register_forward_hook(watch) for module in names]
    try:
        with torch.no_grad(), autocast():
            network(*batch.inputs)
    except RuntimeError:
        pass  # a network that takes more than its inputs tells what it told until then
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _rows(tensor: Tensor) -> Tensor | None:
    """Rows that hold such a value; None where there is none."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return None
    wrong = ~torch.isfinite(tensor.detach().reshape(len(tensor), -1) if tensor.ndim else tensor.detach().reshape(1, 1))
    rows = wrong.any(dim=1).nonzero().flatten().cpu()
    return rows if len(rows) else None


def _examples(batch: Batch, rows: Tensor, stream: str) -> str:
    """Positions in the stream, where a row is an example."""
    if len(batch.index) <= int(rows.max()):
        return f"a batch of {stream!r}"
    places = [str(place) for place in batch.index.cpu()[rows].tolist()]
    return f"{'example' if len(places) == 1 else 'examples'} {_some(places)} of {stream!r}"


def _is(tensor: Tensor) -> str:
    values = tensor.detach()
    nan, infinite = int(values.isnan().sum()), int(values.isinf().sum())
    kinds = [f"{count:,} NaN" for count in (nan,) if count] + [f"{count:,} infinite" for count in (infinite,) if count]
    return f"has {' and '.join(kinds)} of {values.numel():,} values"


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
