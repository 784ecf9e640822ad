"""The whole network in bf16: float32's range with eight significant bits. Written like float16."""

from compress.qat import unmarked
from exporters.half.formats import BF16

RULES = unmarked.rules("bf16", BF16)
