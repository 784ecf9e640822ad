"""One list-wise loss instead of a mixture: the student learns to rank the true class first, then as the teacher does.

Source: Bassam, Zhu, Bian, "PLD: A Choice-Theoretic List-Wise Knowledge Distillation", NeurIPS 2025, arXiv:2506.12542:

    L(s) = sum_k q[pi_k] (log sum_{l >= k} exp s[pi_l] - s[pi_k]),  pi = (label, the others by falling teacher logit),

with q the teacher's probabilities. The first choice is the cross-entropy, so there is no term of labels and no weight
to tune: `compress/objectives/plackett_luce.py`.

The label's term is weighed by the teacher's probability of the label, which `true_class` shows in the learning curve
(weight 0: it is watched). Where its mean is low the teacher contradicts the labels and switches them off; below 0.3 the
report warns (proposed). The temperature is 1: the paper's ImageNet sections call it best, its CIFAR-100 section says 4.
"""

from compress.contracts.method import Method
from compress.objectives.plackett_luce import PlackettLuce
from compress.objectives.true_class import TrueClass

METHOD = Method(
    source="arXiv:2506.12542",
    objectives={"plackett_luce": PlackettLuce, "true_class": TrueClass},
    weights={"plackett_luce": 1.0, "true_class": 0.0},
    diagnostics=("true_class",),
    tasks=("classification", "segmentation"),
)
