"""A small network learns, on held-out examples, how far each sample should follow the teacher rather than its label.

Source: Hu et al., "Less or More From Teacher: Exploiting Trilateral Geometry For Knowledge Distillation", ICLR 2024,
arXiv:2312.15112.

    inner:  L(theta, omega) = mean_i [ a_i T^2 KL(teacher_i || student_i) + (1 - a_i) CE(student_i, y_i) ]
    outer:  min over omega of CE(held-out examples; theta*(omega)),   theta* = argmin L(theta, omega)

with a_i = sigmoid(network_omega(state_i)) and the state of `compress/objectives/trilateral.py`. How the paper solves
this was not found. Proposed: every second step the student is thought to take one plain gradient step,
theta' = theta - eta dL/dtheta, and omega one of the optimiser's along the gradient of the held-out loss at theta'; that
gradient is exact for this one step (`hypergradient`). Then the student makes its ordinary step with the new ratios.

The held-out examples are a tenth of the training split (`compress/strategies/held_out.py` says why); a comparison with
another method at equal data gives that one the same strategy. T = 4, eta = 0.3, two steps per outer one and the outer
rate (2.5 times the student's peak, which makes 1e-2 of 4e-3, and constant) are proposed, the last three from a pilot.

Under several processes each one looks ahead with the gradient of its own part of the batch.

While the student is quantised the ratio stays as it was learned: a step of second order through rounding, which has no
gradient but a pretended one, would be unreliable (proposed).
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.method import Constant, Method, Phase
from compress.contracts.step import Update
from compress.contracts.world import World
from compress.objectives.trilateral import Trilateral
from compress.strategies.held_out import STREAM, HeldOut

Terms = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Student logits (B, C) -> (the teacher's term (B,), the label's term (B,))."""
Outer = Callable[[Tensor], Tensor]
"""Student logits on held-out examples -> their mean loss, ()."""


def hypergradient(
    student: nn.Module,
    output: Tensor,
    inputs: tuple[Tensor, ...],
    held_out: tuple[Tensor, ...],
    ratio: Tensor,
    terms: Terms,
    outer: Outer,
    rate: float,
    draws: int = 0,
) -> tuple[Tensor, Tensor]:
    """How the held-out loss after one gradient step of the student depends on each sample's ratio.

    With g the held-out gradient at theta' it is -(rate / B) <g, d(soft_i - hard_i)/dtheta>: a ratio should rise where
    moving from the label to the teacher lowers the held-out loss. The product is a forward-mode derivative of the
    logits along g, so that no graph of second order is built.

    Args:
        student: its parameters and buffers (statistics of normalisation) stay as they are, and get no gradient.
        output: the student's logits on the training batch, (B, C), with their graph, which is kept.
        inputs: of the training batch.
        held_out: inputs of the held-out batch.
        ratio: of each sample, (B,).
        terms: what it mixes.
        outer: the loss that the ratios are to lower.
        rate: size of the step, eta.
        draws: seed under which `output` was computed, so that dropout takes the same units again.

    Returns:
        (held-out loss (), slopes (B,)), without gradient.
    """
    parameters = {name: value for name, value in student.named_parameters() if value.requires_grad}
    still = {name: value.clone() for name, value in student.named_buffers()}  # statistics move in these copies
    logits = output.detach().requires_grad_()
    soft, hard = terms(logits)
    share = ratio.detach()
    (descent,) = torch.autograd.grad((share * soft + (1.0 - share) * hard).mean(), logits, retain_graph=True)
    (contrast,) = torch.autograd.grad((soft - hard).sum(), logits)
    slopes = torch.autograd.grad(output, list(parameters.values()), descent, retain_graph=True, materialize_grads=True)
    ahead = {
        name: (value.detach() - rate * slope).requires_grad_()
        for (name, value), slope in zip(parameters.items(), slopes, strict=True)
    }
    loss = outer(_first(functional_call(student, {**ahead, **still}, held_out)))
    directions = torch.autograd.grad(loss, list(ahead.values()), materialize_grads=True)
    with drawing(draws, inputs[0].device):
        moved = _derivative(student, parameters, directions, still, inputs)
    if moved is None:  # nothing that the logits depend on is trained
        moved = torch.zeros_like(logits)
    return loss.detach(), -(rate / len(logits)) * (contrast * moved).sum(dim=1)


@contextmanager
def drawing(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers come from `seed`; afterwards they go on as if nothing had been drawn."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _derivative(
    student: nn.Module,
    parameters: Mapping[str, Tensor],
    directions: Sequence[Tensor],
    buffers: Mapping[str, Tensor],
    inputs: tuple[Tensor, ...],
) -> Tensor | None:
    """Of the logits along `directions` in the parameters; None where the logits do not depend on them."""
    # Fused attention has no forward-mode derivative.
    with warnings.catch_warnings(), torch.no_grad(), forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
        warnings.simplefilter("ignore", DeprecationWarning)  # the first dual number loads torch's own old scripts
        duals = {
            name: forward_ad.make_dual(value.detach(), direction)  # type: ignore[no-untyped-call]
            for (name, value), direction in zip(parameters.items(), directions, strict=True)
        }
        output = _first(functional_call(student, {**duals, **buffers}, inputs))
        tangent: Tensor | None = forward_ad.unpack_dual(output).tangent  # type: ignore[no-untyped-call]
        return tangent


def bilevel_step(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
    """Where it is due the ratios' network moves, then the student does."""
    batch, held = batches["train"], batches[STREAM]
    objective = world.objectives["trilateral"]
    assert isinstance(objective, Trilateral)
    teacher = world.ask("teacher", batch)
    draws = int(torch.randint(2**31, ()))
    with drawing(draws, batch.inputs[0].device):
        student = world.observe("student", batch)
    if objective.due(clock):
        assert batch.labels is not None
        assert held.labels is not None
        labels, known = batch.labels, held.labels
        ratio = objective.ratios(student.output, teacher.output, labels)
        loss, slopes = hypergradient(
            world.students["student"],
            student.output,
            batch.inputs,
            held.inputs,
            ratio,
            lambda logits: objective.terms(logits, teacher.output, labels),
            lambda logits: world.supervised(logits, known).mean(),
            objective.inner_rate,
            draws,
        )
        # The held-out loss as it is, with the gradient that is known of it.
        yield Update(
            loss + (slopes * (ratio - ratio.detach())).sum(),
            groups=("objectives",),
            logs={"held_out": loss, "teacher's share": ratio.mean()},
        )
    mixed = objective(student, teacher, batch, clock).mean()
    yield Update(world.weights("trilateral") * mixed, groups=("student",), logs={"trilateral": mixed})


def _first(answer: Any) -> Tensor:
    """The logits among a student's outputs."""
    if isinstance(answer, Tensor):
        return answer
    first: Tensor = next(iter(answer.values() if isinstance(answer, Mapping) else answer))
    return first


SETTLED = Method(source="arXiv:2312.15112", objectives={"trilateral": Trilateral}, strategy=HeldOut)

METHOD = Method(
    source="arXiv:2312.15112",
    objectives={"trilateral": Trilateral},
    strategy=HeldOut,
    phases=(Phase("distill", step=bilevel_step),),
    rates={"objectives": Constant(2.5)},
    diagnostics=("fidelity", "teacher_share"),
    tasks=("classification",),
    quantized=SETTLED,
)
