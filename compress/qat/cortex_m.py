"""Where generated C for a Cortex-M core wants Q/DQ: around every operator, the logits too.

int8 activations with a zero point, per-channel symmetric weights, int32 biases: the scheme of CMSIS-NN and TensorFlow
Lite's integer kernels (TensorFlow Lite 8-bit quantization specification; Lai, Suda, Chandra 2018, arXiv:1801.06601).
Max-pools and concatenations keep one scale; averages get their own, which costs the kernel one multiplication.
Nothing on the device is float between the first quantiser and the logits.
"""

import torch

from compress.qat import integer_domain
from compress.qat import quantizer as q


def mark(placement: q.Placement) -> list[q.Site]:
    """Mark one graph; see the module's docstring for the rules."""
    return integer_domain.mark(placement, network_output=True, one_concat_scale=True)


RULES = q.Rules(dtype=torch.int8, low_code=-128, high_code=127, symmetric=False, mark=mark)
