"""The two sixteen-bit floating-point formats: what they can hold, and what rounding to them gives.

Sources: IEEE 754-2008, binary16; bfloat16 as the upper half of binary32 (ONNX, `Cast`).
"""

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto


@dataclass(frozen=True)
class HalfFormat:
    """One format.

    Attributes:
        name: fp16 or bf16.
        onnx_type: value of TensorProto.DataType.
        numpy_type: how arrays of it are stored.
        largest: largest finite value.
        oldest_opset: with which its arithmetic (Conv, pools, element-wise) is defined.
    """

    name: str
    onnx_type: int
    numpy_type: np.dtype[np.generic]
    largest: float
    oldest_opset: int

    def round(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """The values in this format: round half to even, infinity beyond the largest."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(values).astype(self.numpy_type)


FP16 = HalfFormat("fp16", TensorProto.FLOAT16, np.dtype(np.float16), 65504.0, 13)
BF16 = HalfFormat("bf16", TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16), (2.0 - 2.0**-7) * 2.0**127, 22)
FORMATS = {found.name: found for found in (FP16, BF16)}
