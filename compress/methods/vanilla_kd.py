"""The teacher's softened probabilities together with the labels.

Sources: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, section 2; that this
plain form keeps up with later losses under a strong recipe: Hao, Guo, Han, Hu, Xu, Wang, "Revisit the Power of Vanilla
Knowledge Distillation", NeurIPS 2023, arXiv:2305.15781, whose code weights both terms with 1.

Here both weights are the recipe's; 0.9 and 0.1 are Hinton's "considerably lower weight" on the labels. The teacher
answers the very examples that the student sees, after the same augmentation.
"""

from compress.contracts.method import Method
from compress.objectives.labels import Labels
from compress.objectives.soft_targets import SoftTargets

METHOD = Method(
    source="arXiv:1503.02531 sec. 2, arXiv:2305.15781",
    objectives={"soft_targets": SoftTargets, "labels": Labels},
    weights={"soft_targets": 0.9, "labels": 0.1},
    tasks=("classification", "segmentation"),
)
