"""A training on disk: everything that the next step depends on, whole or not at all."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from compress.errors import TrainingError
from compress.training.curve import CurvePoint
from profiles import atomic

VERSION = 2


def write(path: Path, identity: str, content: dict[str, Any]) -> None:
    """Replace the checkpoint at `path`. `content` is tensors, numbers, strings and containers of these."""
    with atomic.writing(path) as temporary:
        torch.save({"version": VERSION, "identity": identity, **content}, temporary)


def read(path: Path, identity: str, device: torch.device) -> dict[str, Any] | None:
    """The checkpoint at `path`, or None where there is none.

    Raises:
        TrainingError: the file is garbled, or belongs to a training with other numbers, data, methods or networks.
    """
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise TrainingError(
            f"the checkpoint {path} cannot be read: {type(error).__name__}",
            fix=f"remove {path} to train from the start",
        ) from error
    if content.get("version") != VERSION or content.get("identity") != identity:
        raise TrainingError(
            f"the checkpoint {path} belongs to another training (method, numbers, data, seed or network differ)",
            fix=f"give back what that training was started with, or remove {path} to train from the start",
        )
    return content


def curve_to_plain(curve: list[CurvePoint]) -> list[dict[str, Any]]:
    """Plain data that a checkpoint may hold."""
    return [{**asdict(point), "terms": dict(point.terms)} for point in curve]


def curve_from_plain(plain: list[dict[str, Any]]) -> list[CurvePoint]:
    """The curve that `curve_to_plain` gave."""
    return [CurvePoint(**point) for point in plain]
