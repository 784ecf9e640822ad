"""Nothing but the teacher's answers, on data that are chosen for how faithful a copy they make.

Source: Stanton, Izmailov, Kirichenko, Alemi, Wilson, "Does Knowledge Distillation Really Work?", NeurIPS 2021,
arXiv:2106.05945: the pure form of distillation (alpha = 0 in its equation 2), in which fidelity is studied:

    L = -T^2 sum_j softmax(z_teacher / T)_j log softmax(z_student / T)_j.

What it measures, agreement and divergence on test data and on the distillation data, is in every run's report whatever
the method: `compress/diagnostics/fidelity.py`, `compress/stages/fidelity.py`. A recipe chooses the intervention:
[distill.objectives.soft_cross_entropy] temperature, [distill.strategy] streams, others, mixed
(`compress/strategies/distillation_data.py`), and epochs. Labels play no part: mixtures of hard labels are not defined
for blends there. A more faithful student need not be more accurate; it is as well calibrated as its teacher.
"""

from compress.contracts.method import Method
from compress.objectives.soft_cross_entropy import SoftCrossEntropy
from compress.strategies.distillation_data import DistillationData

METHOD = Method(
    source="arXiv:2106.05945 eq. 2 and 3",
    objectives={"soft_cross_entropy": SoftCrossEntropy},
    strategy=DistillationData,
    tasks=("classification", "segmentation"),
)
