"""What the number formats that quantise nothing have in common: every site is reported, none is marked."""

import torch

from compress.qat import quantizer as q
from exporters.half.formats import HalfFormat


def rules(ships: str, half: HalfFormat | None) -> q.Rules:
    """Rules that mark nothing.

    Args:
        ships: the format that the network is written in.
        half: how it is written; None for float32.
    """

    def mark(placement: q.Placement) -> list[q.Site]:
        weighted = q.CONVOLUTIONS | {q.LINEAR, q.LOOKUP} | q.PRODUCTS | set(q.WITHOUT_INT8)
        return [q.site(node, False, f"the network is {ships}") for node in placement.nodes if node.target in weighted]

    return q.Rules(
        dtype=torch.int8,
        low_code=-128,
        high_code=127,
        symmetric=True,
        mark=mark,
        ships=ships,
        least_opset=half.oldest_opset if half is not None else 13,
        half=half,
        fine_tunes=False,
    )
