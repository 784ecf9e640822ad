"""Where and how precisely a training computes: one process, or as many as torchrun started."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from compress.contracts.batch import Batch
from compress.ranks import leave_at_exit

Precision = Literal["auto", "fp32", "bf16"]


def resolved_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """What "auto" means here: bf16 where the hardware multiplies it natively, else fp32. Decided by capability.

    Shapes change nothing, so a machine always gives the same answer.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "fp32"


def local_processes() -> tuple[int, int]:
    """Processes per machine and machines, as torchrun says; (1, 1) without it."""
    if not dist.is_torchelastic_launched():
        return 1, 1
    local, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return local, everywhere // local


def open_fabric(precision: Precision, together: bool = True) -> tuple[Fabric, Literal["fp32", "bf16"]]:
    """Fabric on the GPU where there is one, else on the CPU.

    Args:
        together: joined with the other processes that torchrun started; False trains in this process alone.
    """
    # Fabric announces its precision and its processes on stderr; a run has its own way to speak.
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
    local, machines = local_processes() if together else (1, 1)
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    exact = resolved_precision(precision, torch.device(accelerator))
    fabric = Fabric(
        accelerator=accelerator,
        devices=local,
        num_nodes=machines,
        strategy="auto" if local * machines == 1 else "ddp",
        precision="bf16-mixed" if exact == "bf16" else "32-true",
    )
    if local * machines > 1:
        leave_at_exit()
    fabric.launch()
    return fabric, exact


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Leave the global random state as it was, and let cuDNN choose repeatable kernels."""
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.backends.cudnn.flags(
            enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=True
        ),
    ):
        yield


def seed_all(seed: int, device: torch.device) -> None:
    """Seed torch's generators of the CPU and of the device."""
    # torch.manual_seed also tells devices that this run does not use, which takes longer than a small step.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def placed(batch: Batch, device: torch.device) -> Batch:
    """The batch on the device."""
    return batch if device.type == "cpu" else batch.to(device)


def laid_out(batch: Batch) -> Batch:
    """The same batch with images as channels_last, which convolutions are faster with on CPU and GPU."""
    if all(tensor.ndim != 4 for tensor in batch.inputs):
        return batch
    inputs = tuple(
        tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor for tensor in batch.inputs
    )
    return replace(batch, inputs=inputs)
