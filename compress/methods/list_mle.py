"""The likelihood of the teacher's whole ranking, every place of it weighed the same: what PLD improves on.

Sources: Xia, Liu, Wang, Zhang, Li, "Listwise Approach to Learning to Rank: Theory and Algorithm", ICML 2008; as a
baseline of distillation in Bassam, Zhu, Bian, arXiv:2506.12542, Table 6, which finds it two to three points worse.
[distill.objectives.plackett_luce] weights = "position" makes it p-ListMLE.
"""

from functools import partial

from compress.contracts.method import Method
from compress.objectives.plackett_luce import PlackettLuce

METHOD = Method(
    source="Xia et al., ICML 2008; arXiv:2506.12542 Table 6",
    objectives={"plackett_luce": partial(PlackettLuce, weights="uniform")},
    tasks=("classification", "segmentation"),
)
