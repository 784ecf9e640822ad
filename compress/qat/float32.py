"""The network as it trained."""

from compress.qat import unmarked

RULES = unmarked.rules("fp32", None)
