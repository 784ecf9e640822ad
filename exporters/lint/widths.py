"""P9, P10: channels that int8 kernels pad."""

from collections.abc import Iterator

from exporters.lint.finding import BUILT, TENSORRT, Hit, Rule
from exporters.lint.view import ACTIVATIONS, MOVES, QUANTIZERS, Product, View, depthwise, groups

_TO_THE_OUTPUT = ACTIVATIONS | MOVES | frozenset(QUANTIZERS) | {"Softmax", "LogSoftmax", "Add", "Cast"}
PADDED_TO = 4  # channels of an int8 input become a multiple of this: 3 -> 4, 17 -> 20, and 4 per group


def _depthwise(view: View) -> Iterator[Hit]:
    for product in view.products:
        if view.in_int8(product) and depthwise(view, product.node):
            found = groups(view, product.node)
            assert found is not None
            yield Hit(
                product.node,
                f"depthwise in int8: a kernel in front pads its {found[1]} channels to {found[1] * PADDED_TO}",
                "measure it against float on the target, and list it in float_modules where float wins",
            )


def _multiples(view: View) -> Iterator[Hit]:
    multiple = view.device.width_multiple
    for product in view.products:
        if multiple < 2 or not product.quantised or not product.constant or depthwise(view, product.node):
            continue
        sizes = channels(view, product)
        if sizes is None:
            continue
        inputs, outputs = sizes
        said = [f"{inputs} input channels"] if inputs % multiple else []
        if outputs % multiple and view.after(product.node.output[0], _TO_THE_OUTPUT)[0] not in view.outputs:
            said.append(f"{outputs} output channels")
        if said:
            padded = f" ({inputs} are padded to {-(-inputs // PADDED_TO) * PADDED_TO})" if inputs % PADDED_TO else ""
            yield Hit(
                product.node,
                f"{' and '.join(said)}{padded}; tensor cores want multiples of {multiple}",
                f"choose widths that are multiples of {multiple}; the data's own channels cannot be chosen",
            )


def channels(view: View, product: Product) -> tuple[int, int] | None:
    """Input and output channels of a product with a constant weight, per group; None where shapes hide them."""
    if product.node.op_type in ("Conv", "ConvTranspose"):
        found = groups(view, product.node)
        return None if found is None else (found[1] // found[0], found[2])
    shape = view.shape(product.weight)
    if shape is None or len(shape) < 2:
        return None
    rows, columns = shape[-2], shape[-1]
    if not isinstance(rows, int) or not isinstance(columns, int):
        return None
    transposed = any(item.name == "transB" and item.i for item in product.node.attribute)
    return (columns, rows) if transposed else (rows, columns)


RULES = (
    Rule(
        "P9",
        "Depthwise int8 convolutions are measured against float ones",
        f"{BUILT}: 16 channels became 64, 32 became 128; NVIDIA/TensorRT#2197",
        "slow",
        TENSORRT,
        _depthwise,
    ),
    Rule(
        "P10",
        "Channels are multiples of the target's width_multiple",
        f"{BUILT}: 3 input channels became 4, 17 became 20; TensorRT best practices",
        "note",
        TENSORRT,
        _multiples,
    ),
)
