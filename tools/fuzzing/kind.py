"""What a kind of input must say to be fuzzed."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Rng = random.Random


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        prepare: makes sound samples once, in a folder of its own; not part of a case's time.
        examine: damages one of them, drawn from the generator, and reads it as the product does. It returns when the
            input was taken and raises UserError where it was refused; anything else is a bug of the product.
    """

    name: str
    prepare: Callable[[Path], Any]
    examine: Callable[[Any, Rng, Path], None]
