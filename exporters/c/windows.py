"""Sizes of a sliding window: kernel, stride, dilation and padding of a convolution or pool, always as two axes."""

from dataclasses import dataclass

from exporters.c.graph import Node
from exporters.errors import ExportError


@dataclass(frozen=True)
class Window:
    """A window over (height, width); a 1-D one has height 1."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int]  # top, left; bottom and right follow from the output's size
    size_in: tuple[int, int]
    size_out: tuple[int, int]

    def fields(self) -> str:
        """As initialisers of a C structure."""
        (kh, kw), (sh, sw), (dh, dw), (top, left) = self.kernel, self.stride, self.dilation, self.pad
        return (
            f".in_h = {self.size_in[0]}, .in_w = {self.size_in[1]}, .out_h = {self.size_out[0]}, "
            f".out_w = {self.size_out[1]}, .kernel_h = {kh}, .kernel_w = {kw}, .stride_h = {sh}, .stride_w = {sw}, "
            f".dilation_h = {dh}, .dilation_w = {dw}, .pad_top = {top}, .pad_left = {left}"
        )


def window(node: Node, shape_in: tuple[int, ...], shape_out: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
    """The window of a Conv or pool from shape (1, C, ...) to (1, C', ...)."""
    axes = len(kernel)
    if axes not in (1, 2):
        raise ExportError(f"{node.describe()} slides over {axes} axes; there are 1 and 2", fix="use 1-D or 2-D layers")
    stride = tuple(node.attributes.get("strides", (1,) * axes))
    dilation = tuple(node.attributes.get("dilations", (1,) * axes))
    pads = tuple(node.attributes.get("pads", (0,) * (2 * axes)))[:axes]
    automatic = node.attributes.get("auto_pad", b"NOTSET").decode()
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        missing = [
            max(0, (out - 1) * s + (k - 1) * d + 1 - size)
            for size, out, k, s, d in zip(shape_in[2:], shape_out[2:], kernel, stride, dilation, strict=True)
        ]
        pads = tuple(m // 2 if automatic == "SAME_UPPER" else m - m // 2 for m in missing)
    return Window(
        kernel=_two(kernel, 1),
        stride=_two(stride, 1),
        dilation=_two(dilation, 1),
        pad=_two(pads, 0),
        size_in=_two(shape_in[2:], 1),
        size_out=_two(shape_out[2:], 1),
    )


def whole(shape: tuple[int, ...]) -> Window:
    """A window over everything of (1, C, ...)."""
    size = _two(shape[2:], 1)
    return Window(size, (1, 1), (1, 1), (0, 0), size, (1, 1))


def _two(part: tuple[int, ...], fill: int) -> tuple[int, int]:
    full = (fill,) * (2 - len(part)) + tuple(int(x) for x in part)
    return full[0], full[1]
