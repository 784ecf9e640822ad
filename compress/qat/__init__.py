"""Quantisation-aware training: one file per runtime family says where Q/DQ stand; the rest is shared."""

import logging

# Importing torchao reports its GPU kernels as missing on every machine without them, and how torch will treat one of
# its enumerations: nothing that a user of ours could act on.
_NOISY = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
_LEVELS = [logger.level for logger in _NOISY]
for _logger in _NOISY:
    _logger.setLevel(logging.ERROR)
try:
    import torchao  # noqa: F401
finally:
    for _logger, _level in zip(_NOISY, _LEVELS, strict=True):
        _logger.setLevel(_level)
