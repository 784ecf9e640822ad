"""Where generated C for a Cortex-M core wants Q/DQ: around every operator, pools on one scale, the logits too.

int8 activations with a zero point, per-channel symmetric weights, int32 biases: the scheme of CMSIS-NN and TensorFlow
Lite's integer kernels (TensorFlow Lite 8-bit quantization specification; Lai, Suda, Chandra 2018, arXiv:1801.06601).
Average pools keep their input's scale, so they are an integer sum and a division; nothing on the device is float
between the first quantiser and the logits.
"""

import torch

from compress.qat import integer_domain
from compress.qat import quantizer as q

CHOICES = integer_domain.Choices(averages_keep_scale=True, network_output=True)


def mark(placement: q.Placement) -> list[q.Site]:
    """Mark one graph; see the module's docstring for the rules."""
    return integer_domain.mark(placement, CHOICES)


RULES = q.Rules(dtype=torch.int8, low_code=-128, high_code=127, symmetric=False, integer_bias=True, mark=mark)
