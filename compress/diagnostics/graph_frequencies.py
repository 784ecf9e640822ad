"""Does the student differ between neighbouring nodes as its teacher does, or is what sets them apart drowned?

Source: the question is that of Wu et al., AAAI 2023, arXiv:2305.10758, section 3; these figures are proposed. With the
graph's normalised adjacency A~ = D^-1/2 (A + I) D^-1/2 (Kipf, Welling, arXiv:1609.02907, equation 2), A~ z is what the
logits z have in common with their neighbourhood, and (I - A~) z is what differs from it.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.diagnostic import Diagnostic
from compress.contracts.signals import Signals
from compress.graphs import EDGES, NODE, STREAM


def smoothed(values: Tensor, edges: Tensor) -> Tensor:
    """A~ values: (N, C), (2, E) int64 in both directions without loops -> (N, C)."""
    degree = 1.0 + torch.zeros(len(values), dtype=values.dtype).index_add_(
        0, edges[1], torch.ones(edges.shape[1], dtype=values.dtype)
    )
    scale = degree.rsqrt().unsqueeze(1)
    scaled = scale * values
    return scale * (scaled + torch.zeros_like(values).index_add_(0, edges[1], scaled[edges[0]]))


def high_share(values: Tensor, edges: Tensor) -> float:
    """||(I - A~) values|| / ||values||, Frobenius, in [0, 2); 0 for values of 0.

    Eigenvalues of I - A~ lie in [0, 2): 0 is a signal that only follows the degrees, near 2 one that alternates.
    """
    size = float(values.norm())
    return float((values - smoothed(values, edges)).norm()) / size if size else 0.0


def low_share(values: Tensor, edges: Tensor) -> float:
    """||A~ values|| / ||values||, Frobenius, in [0, 1]; 0 for values of 0."""
    size = float(values.norm())
    return float(smoothed(values, edges).norm()) / size if size else 0.0


class GraphFrequencies(Diagnostic):
    """`low_share` and `high_share` of both sets of logits over the whole graph, and student over teacher.

    `high_kept` well below 1 says that the student lost what sets neighbours apart ("drowned"). Above 1 it sets them
    apart more than its teacher does, which a student without the graph to smooth its answers may. No figures where the
    batches have no graph, or not all of its nodes.
    """

    stream = STREAM

    def measure(self, answers: Iterator[tuple[Batch, Signals, Signals]]) -> Mapping[str, float]:
        """(batch, student, teacher) triples -> figures by name."""
        nodes, ours, theirs, edges = [], [], [], None
        for batch, student, teacher in answers:
            if NODE not in batch.extras or EDGES not in batch.common or student.output.ndim != 2:
                return {}
            nodes.append(batch.extras[NODE].cpu())
            ours.append(student.output.double().cpu())
            theirs.append(teacher.output.double().cpu())
            edges = batch.common[EDGES].cpu()
        if edges is None:
            return {}
        order = torch.cat(nodes).argsort()
        count = len(order)
        if not torch.equal(torch.cat(nodes)[order], torch.arange(count)) or bool((edges >= count).any()):
            return {}
        z, h = torch.cat(ours)[order], torch.cat(theirs)[order]
        figures = {
            "low_student": low_share(z, edges),
            "low_teacher": low_share(h, edges),
            "high_student": high_share(z, edges),
            "high_teacher": high_share(h, edges),
        }
        if figures["high_teacher"]:
            figures["high_kept"] = figures["high_student"] / figures["high_teacher"]
        return figures


DIAGNOSTIC = GraphFrequencies
