"""What runners on NVIDIA GPUs share: whether this one fits a target, and what a measurement on it says of itself."""

from dataclasses import replace

from profiles import jetson
from profiles.measure import Measurement
from profiles.runners import cuda_driver
from profiles.target import Target

SETTLE_S = 0.3  # shortest warm-up: a GPU's clock takes longer to rise than a processor's
NEAR = (0.85, 1.1)  # memory of a GPU over what its data sheet says


def misfit(target: Target) -> str | None:
    """Why this GPU is not the target's; None where it is, as far as its driver tells.

    Compute capability, and of cards also the number of multiprocessors and the memory: an A30 is no A100, and one of
    40 GB none of 80 GB. A Jetson's power mode may switch multiprocessors off, which `said` notes.
    """
    here, name = cuda_driver.compute_capability(), cuda_driver.device_name()
    if here != target.compute_capability:
        wanted = target.compute_capability or "none"
        return f"the target has compute capability {wanted}, this GPU ({name}) has {here}"
    if cuda_driver.is_integrated():
        return None
    units, size = cuda_driver.multiprocessors(), cuda_driver.memory_bytes()
    if units is not None and units != target.hardware.units:
        return f"the target has {target.hardware.units} multiprocessors, this GPU ({name}) has {units}"
    memory = target.hardware.memory_gb
    if size is not None and memory and not NEAR[0] < size / 2**30 / memory < NEAR[1]:
        return f"the target has {memory:g} GB of memory, this GPU ({name}) has {size / 2**30:.0f}"
    return None


def said(found: Measurement, target: Target | None) -> Measurement:
    """The measurement with notes on its memory, the board, and how the board's power mode fits the target's."""
    notes = [*found.notes]
    if found.peak_memory_bytes is not None:
        notes.append(f"the model, its buffers and its context take {found.peak_memory_bytes / 2**20:.0f} MiB")
    board = jetson.model()
    if board is not None:
        notes.append(f"on {board}")
    if target is None:
        return replace(found, notes=tuple(notes))
    wanted, units = target.hardware.power_mode, cuda_driver.multiprocessors()
    if units is not None and units != target.hardware.units:
        notes.append(f"the target has {target.hardware.units} multiprocessors, {units} are switched on here")
    if wanted:
        mode = jetson.power_mode()
        if mode is None:
            notes.append(f"the target's power mode is {wanted}; this one's could not be read")
        else:
            notes.append(jetson.other_mode(wanted, mode) or f"in power mode {mode}, as the target")
    return replace(found, notes=tuple(notes))
