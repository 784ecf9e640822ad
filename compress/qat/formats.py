"""The number format that a run ships: the target's own, or one that the recipe asks for and the device has."""

import dataclasses

from compress.errors import RecipeError
from compress.qat import quantizer
from profiles.target import Target

OLDEST_FP8 = (8, 9)  # compute capability: Ada; before it there are no FP8 tensor cores


def chosen(target: Target, wanted: str) -> Target:
    """The target with the quantiser of a format.

    Args:
        target: the device, with the format that it ships by default.
        wanted: fp32, fp16, bf16, int8, fp8, int4; or "target" for its own.

    Raises:
        RecipeError: the device does not compute in it, or no quantiser writes it for the target's runtime.
    """
    if wanted in ("target", quantizer.rules(target.quantizer).ships):
        return target
    names = [name for name in quantizer.names() if quantizer.rules(name).ships == wanted]
    why = _missing(target, wanted)
    if why is None and (not names or wanted == "int8"):
        why = f"is written with the quantizer {target.quantizer!r}, and nothing says which int8 rules its runtime wants"
    if why is not None:
        raise RecipeError(
            f"quantize.format is {wanted!r}, but {target.device} {why}",
            fix='write format = "target" for what the device does best, or choose another target',
        )
    # FP8 moves and multiplies like int8 on every device that has both, and four-bit weights multiply in fp16.
    precision = {"fp8": "int8", "int4": "fp16"}.get(wanted, wanted)
    return dataclasses.replace(target, quantizer=names[0], precision=precision)  # type: ignore[arg-type]


def _missing(target: Target, wanted: str) -> str | None:
    """Why the device cannot compute in a format; None where it can."""
    peaks = {**target.hardware.tops, **target.hardware.rate}
    if wanted == "fp32":
        return None
    if wanted == "int4":
        return None if target.runtime in ("tensorrt", "onnxruntime") else "has a runtime without four-bit weights"
    if wanted in ("fp16", "bf16") and target.runtime != "tensorrt":
        return f"has a runtime ({target.runtime}) that computes {wanted} in float32"
    if peaks.get(wanted, 0) <= 0:
        return f"has no {wanted} arithmetic (its peaks are {', '.join(sorted(peaks)) or 'not stated'})"
    if wanted == "fp8" and _capability(target) < OLDEST_FP8:
        return f"has compute capability {target.compute_capability}, and FP8 starts at 8.9 (Ada, Hopper)"
    return None


def _capability(target: Target) -> tuple[int, ...]:
    return tuple(int(part) for part in target.compute_capability.split(".") if part.isdigit())
