"""LEAF: a small encoder of texts whose vectors are the teacher's, from texts and the teacher's answers alone.

Source: Vujanic, Rueckstiess, "LEAF: Knowledge Distillation of Text Embedding Models with Teacher-Aligned
Representations", 2025, arXiv:2509.12539.

    y_i = Norm(W_out MeanPool(Encoder(x_i)) + b)        (compress/structure/embedding_head.py)
    L   = 1/B sum_i |y_i - y^_i|^2                        (compress/objectives/l2_align.py)

As the two spaces coincide, documents may be embedded by the teacher and queries by the student, and what the teacher's
space has (vectors that can be cut short, or rounded) the student's has too: for unit vectors with |y - y^| <= e every
inner product moves by at most e with one side replaced, 2 e with both, and a prefix of the difference is no longer than
all of it. No labels, no negatives: small batches do. The same loss goes on in quantisation-aware training.

Learning rate, batch, epochs and the student's schedule are not in the abstract; the recipe's are proposed.
"""

from compress.contracts.method import Method
from compress.objectives.l2_align import L2Align

METHOD = Method(
    source="arXiv:2509.12539",
    objectives={"l2_align": L2Align},
    diagnostics=("embedding_space",),
    tasks=("embedding",),
)
