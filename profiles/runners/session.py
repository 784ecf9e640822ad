"""How runtimes on a processor are timed, which all do in the same way: load, run once, pin, measure."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from profiles import cores, meters, resident
from profiles.measure import Measurement, Setup, TensorSpec, example_inputs, wall_clock
from profiles.measure import measure as measure_sample
from profiles.runners import Arrays, WrongDeviceError, batch_of
from profiles.runners.processor import misfit, said
from profiles.target import Target


class Session(Protocol):
    """A loaded model that knows its inputs."""

    inputs: tuple[TensorSpec, ...]

    def run(self, inputs: Arrays) -> Any:
        """Outputs by name."""
        ...


class SetupOf(Protocol):
    """What a measurement says about itself."""

    def __call__(self, inputs: Arrays, threads: int, on: Sequence[int] = ()) -> Setup: ...


def measure(
    load: Callable[[], Session],
    timed: Callable[[Any, Arrays], Callable[[], object]],
    setup: SetupOf,
    target: Target | None,
    inputs: Arrays | None,
    *,
    batch: int,
    threads: int,
    seconds: float,
    pin: bool,
) -> Measurement:
    """Time one forward pass; arguments and errors as `on_onnxruntime.measure`.

    Args:
        load: opens the model.
        timed: one run as a caller makes it, without checks.
        setup: see `SetupOf`.
    """
    wrong = misfit(target) if target is not None else None
    if wrong is not None:
        raise WrongDeviceError(wrong, fix="measure on the device itself")
    with cores.pinned(cores.choose(threads) if pin else ()) as on:
        with resident.peak() as memory:
            loaded = load()
            given = example_inputs(loaded.inputs, batch) if inputs is None else dict(inputs)
            batch_of(given, batch if inputs is None else None)
            loaded.run(given)  # checks names, shapes and types once
        where = setup(given, threads, on)
        found = measure_sample(wall_clock(timed(loaded, given)), where, seconds, meter=meters.of_processor())
    return said(found, memory.extra_bytes, target)
