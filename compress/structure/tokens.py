"""How images, spectrograms and signals are cut into tokens, and the networks that read them.

A convolution whose stride is its kernel makes the tokens; blocks look at them; a last layer norm, the mean of the
tokens and a linear layer answer (Dosovitskiy et al. 2021, arXiv:2010.11929, figure 1, with the mean in place of a class
token).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from compress.contracts.space import SpaceContext
from compress.errors import RecipeError
from compress.structure.decisions import listed, once_per_example

SIDES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # of a patch
FEWEST_TOKENS = 4
MOST_TOKENS = 196  # as many as ViT has of 224 x 224 pixels; attention's cost grows with their square
FAMILIES = ("nvidia-gpu", "x86-cpu")
"""Of targets whose runtimes have kernels for layer norm, softmax and GELU between int8 layers."""


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


def offered_patches(space: str, layers: str, context: SpaceContext) -> tuple[tuple[bool, int], ...]:
    """What `patches` offers for this input and target.

    Args:
        space: its name, for messages.
        layers: what its blocks have that stays float, for messages.

    Raises:
        RecipeError: the target has no kernels for such layers, the features make too few tokens, or the task wants an
            answer for every position.
    """
    once_per_example(space, context)
    shape = tuple(context.features.shape[1:])
    if context.family not in FAMILIES:
        raise RecipeError(
            f"the space {space} needs {layers} between int8 layers, which targets of the family {context.family} have"
            f" no kernels for; {listed(FAMILIES)} have",
            fix="choose a space of convolutions ('int8_conv', 'audio_conv'), or 'mlp'",
        )
    found = patches(shape) if len(shape) in (2, 3) and min(shape) >= 1 else ()
    if not found:
        raise RecipeError(
            f"the space {space} takes features (B, C, H, W) or (B, C, L) that make at least {FEWEST_TOKENS} tokens;"
            f" here they are {tuple(context.features.shape)}",
            fix="choose the space 'mlp', or give the task a front-end that makes an image or a signal",
        )
    return found


def wrong_patch(offered: tuple[tuple[bool, int], ...], frames: bool, side: int) -> str | None:
    """Why a stored plan cannot have these tokens, or None."""
    if (frames, side) in offered:
        return None
    sides = listed(other for form, other in offered if form is frames) or "none"
    return f"has {'frames' if frames else 'patches'} of {side}; here there are {sides}"


class TokenNetwork(nn.Module):
    """Tokens of a map or a signal, blocks on them, and one answer. `blocks.0`, `blocks.1`, ... and `head` are its taps.

    Args:
        shape: of one example's features, (C, H, W) or (C, L).
        frames, side: of a token, as `patches` gives them.
        width: channels of a token.
        outputs: of the linear layer.
        depth: blocks.
        block: a block for this many tokens: (B, tokens, width) -> the same.
        places: deviation of the first values of what is learned for each place; None where the blocks tell places apart
            by themselves.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        frames: bool,
        side: int,
        width: int,
        outputs: int,
        *,
        depth: int,
        block: Callable[[int], nn.Module],
        places: float | None = None,
    ) -> None:
        super().__init__()
        self.signal = len(shape) == 2
        patch, (high, wide) = patch_of(shape, frames, side), grid_of(shape, frames, side)
        self.patches = nn.Conv2d(shape[0], width, patch, patch)
        self.places: nn.Parameter | None = None
        if places is not None:
            self.places = nn.Parameter(places * torch.randn(1, high * wide, width))
        self.blocks = nn.Sequential(*(block(high * wide) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) or (B, C, L) -> (B, outputs)."""
        if self.signal:
            x = x.unsqueeze(2)
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        if self.places is not None:
            tokens = tokens + self.places
        output: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return output
