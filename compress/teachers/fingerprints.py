"""What tells one teacher's answers from another's."""

import hashlib

import torch
from torch import nn


def of_module(module: nn.Module) -> str:
    """SHA-256 over the architecture's printed form and every parameter and buffer, the unsaved ones included.

    The same weights in the same network give the same digest on every machine and device.
    """
    digest = hashlib.sha256(repr(module).encode())
    for name, value in sorted([*module.named_parameters(), *module.named_buffers()]):
        plain = value.detach().cpu().contiguous()
        digest.update(f"{name}:{plain.dtype}:{tuple(plain.shape)}:".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
