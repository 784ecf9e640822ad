"""Relations between classes and between examples instead of probabilities: for teachers far stronger than the student.

Source: Huang, You, Wang, Qian, Xu, "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, arXiv:2205.10536,
equation 10: cross-entropy + beta (between classes) + gamma (between examples), beta = gamma = 2. The second term
correlates over the batch: batches below about 32 examples make it noisy (proposed bound).
"""

from compress.contracts.method import Method
from compress.objectives.correlations import BetweenClasses, BetweenExamples
from compress.objectives.labels import Labels

METHOD = Method(
    source="arXiv:2205.10536 eq. 10",
    objectives={"between_classes": BetweenClasses, "between_examples": BetweenExamples, "labels": Labels},
    weights={"between_classes": 2.0, "between_examples": 2.0, "labels": 1.0},
    tasks=("classification", "segmentation"),
)
