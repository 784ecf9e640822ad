"""What one forward pass costs on a target, and how each figure was obtained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Origin = Literal["measured", "emulated", "predicted"]
"""measured: on the device itself. emulated: instructions counted on an emulated core, turned into time by a
documented range of cycles per instruction. predicted: a cost model fitted on published figures."""

Precision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True)
class LayerCost:
    """One kernel as the target's runtime would run it after fusion."""

    name: str
    ops: tuple[str, ...]  # operators fused into it, in order
    macs: int
    weight_bytes: int
    activation_bytes: int  # read and written
    latency_ms: float
    bound_by: Literal["compute", "memory", "launch"]
    precision: Precision


@dataclass(frozen=True)
class Cost:
    """One forward pass of the whole batch."""

    target: str
    runtime: str
    batch: int
    precision: Precision
    macs: int  # FLOPs are 2 * macs
    params: int
    weight_bytes: int
    peak_activation_bytes: int  # from liveness of the graph, weights not included
    latency_ms: float  # median of the batch
    interval_ms: tuple[float, float]  # 90 % of unseen cases inside; measured: of medians measured again
    origin: Origin
    energy_mj: float | None = None  # of the batch; None where no source says what the device draws
    energy_interval_mj: tuple[float, float] | None = None
    layers: tuple[LayerCost, ...] = ()
    layers_origin: Origin | None = None  # of the times of `layers`, where it is not `origin`
    weight_bytes_by_dtype: Mapping[str, int] = field(default_factory=dict)  # as stored, biases and scales included
    uncounted: Mapping[str, int] = field(default_factory=dict)  # operator -> times met without a counter
    notes: tuple[str, ...] = ()

    @property
    def flops(self) -> int:
        """Floating-point (or integer) operations: two per multiply-accumulate."""
        return 2 * self.macs
