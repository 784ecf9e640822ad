"""The two distances that rank untrained students, as losses beside plain distillation.

Source: Dong, Li, Wei, "DisWOT: Student Architecture Search for Distillation WithOut Training", CVPR 2023,
arXiv:2303.15678: L = gamma CE + alpha KD + beta_1 M_s + beta_2 M_r. gamma 0.1 and alpha 0.9 are those of the released
scripts; the betas are not published: 3000 is what the authors' code base gives the identical loss of arXiv:1907.09682,
and 1 for the semantic term is proposed.

A recipe names the layers: [distill.objectives.relations] student = "...", teacher = "..." (the last maps before
pooling) and [distill.objectives.semantics] student = "...", teacher = "..." (what the last linear layers take).
"""

from compress.contracts.method import Method
from compress.objectives.labels import Labels
from compress.objectives.relations import Relations
from compress.objectives.semantics import Semantics
from compress.objectives.soft_targets import SoftTargets

METHOD = Method(
    source="arXiv:2303.15678",
    objectives={"labels": Labels, "soft_targets": SoftTargets, "semantics": Semantics, "relations": Relations},
    weights={"labels": 0.1, "soft_targets": 0.9, "semantics": 1.0, "relations": 3000.0},
    tasks=("classification",),
)
