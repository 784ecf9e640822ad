"""The whole network in fp16: for devices without int8 units, and where int8 does not pay.

Nothing is marked. The export writes Casts and fp16 weights (exporters/passes/cast_to_half.py); what would overflow,
underflow or lose its sum stays float32 there, decided on calibration data.
"""

from compress.qat import unmarked
from exporters.half.formats import FP16

RULES = unmarked.rules("fp16", FP16)
