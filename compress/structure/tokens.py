"""How images, spectrograms and signals are cut into tokens, for the spaces whose networks read tokens."""

SIDES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # of a patch
FEWEST_TOKENS = 4
MOST_TOKENS = 196  # as many as ViT has of 224 x 224 pixels; attention's cost grows with their square


def patches(shape: tuple[int, ...]) -> tuple[tuple[bool, int], ...]:
    """(frames, patch) worth offering, the smallest patches first: those that make a good number of tokens and leave
    less than a quarter of an axis over.

    Args:
        shape: of one example's features, (C, H, W) or (C, L).

    Returns:
        frames: whether a token is as high as the map; patch: its side along the last axis, and along the other where it
        does not make frames.
    """
    height, width = (1, shape[1]) if len(shape) == 2 else (shape[1], shape[2])
    found: list[tuple[bool, int]] = []
    for side in SIDES:
        for frames in (False, True) if height > 1 else (False,):
            high, wide = patch_of(shape, frames, side)
            tokens = (height // high) * (width // wide)
            whole = all(4 * (size % part) < size for size, part in ((height, high), (width, side)))
            if side <= width and (frames or high < height or height == 1):
                found += [(frames, side)] * (FEWEST_TOKENS <= tokens <= MOST_TOKENS and whole)
    return tuple(found)


def patch_of(shape: tuple[int, ...], frames: bool, side: int) -> tuple[int, int]:
    """Height and width of one token; a signal is one high."""
    if len(shape) == 2:
        return (1, side)
    return (shape[1] if frames else side, side)


def grid_of(shape: tuple[int, ...], frames: bool, side: int) -> tuple[int, int]:
    """How many tokens there are along each axis; what is left over at the right and bottom is in none."""
    high, wide = patch_of(shape, frames, side)
    height, width = (1, shape[1]) if len(shape) == 2 else (shape[1], shape[2])
    return height // high, width // wide
