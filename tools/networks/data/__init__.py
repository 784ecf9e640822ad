"""Data for the networks: sklearn's digits made harder, and sounds, signals, pictures and phrases from a generator."""

import zlib

import torch


def generator(seed: int, part: str, kind: str) -> torch.Generator:
    """A generator of its own for each seed, part and kind of data."""
    return torch.Generator().manual_seed(zlib.crc32(f"{kind}/{part}/{seed}".encode()))
