"""Where the stages of a network end, so that features can be asked for without naming modules."""

import re
from dataclasses import dataclass

_NAME = re.compile(r"stage ([1-9]\d*) of ([1-9]\d*)")


@dataclass(frozen=True)
class Stage:
    """The end of one stage.

    Attributes:
        module: whose output it is.
        channels: axis of the channels in that output.
        grid: sizes of the map, (H, W) or (L,); () for a vector. Tokens that were cut from a map have its sizes.
        extra: tokens in front of those of the grid (a class token).
    """

    module: str
    channels: int
    grid: tuple[int, ...]
    extra: int = 0

    @property
    def tokens(self) -> bool:
        """Whether positions come before channels, as in transformers and mixers."""
        return self.channels > 1


def stage(number: int, of: int) -> str:
    """What taps call the end of the `number`-th of `of` stages.

    Networks differ in what their modules are called and in how many there are; asked for by this name, features come
    from where the network's own structure says. In a network with fewer stages several names mean the same end: whoever
    asks for all of them takes each end once (`structure.tap_pairs`), and the report says so. The feature is (B,
    channels, positions ...) for every family: tokens of a picture are a map again, class tokens are left out.

    Args:
        number: 1 to `of`; the last one is nearest to the output.
    """
    return f"stage {number} of {of}"


def stages(count: int) -> tuple[str, ...]:
    """All of them, the first one first."""
    return tuple(stage(number, count) for number in range(1, count + 1))


def read_stage(name: str) -> tuple[int, int] | None:
    """(number, of) of a name that `stage` makes; None for the name of a module."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    number, of = int(found[1]), int(found[2])
    return (number, of) if number <= of else None
