"""First an inner layer of the student learns to predict the teacher's, then the whole student learns its outputs.

Source: Romero, Ballas, Ebrahimi Kahou, Chassang, Gatta, Bengio, "FitNets: Hints for Thin Deep Nets", ICLR 2015,
arXiv:1412.6550: stage 1 minimises equation 3 through a regressor that is then dropped, stage 2 equation 2 with the
weight of the teacher's term falling from 4 to 1 (section 3.1).

Here the regressor is a 1x1 convolution, stage 1 takes three tenths of the epochs, and the hint goes on guiding nothing
in stage 2. The pair of layers is the middle of both networks; a recipe names others, or other stages:
[distill.objectives.features] student = "stage 4 of 4", teacher = "...". The quantised student goes on with stage 2.
"""

from compress.contracts.clock import Clock
from compress.contracts.method import Method, Phase
from compress.contracts.step import only
from compress.objectives.features import Features
from compress.objectives.labels import Labels
from compress.objectives.soft_targets import SoftTargets


def annealed(clock: Clock) -> float:
    """Section 3.1: lambda falls linearly from 4 to 1."""
    return 4.0 - 3.0 * clock.progress


METHOD = Method(
    source="arXiv:1412.6550 eq. 2 and 3",
    objectives={"features": Features, "soft_targets": SoftTargets, "labels": Labels},
    weights={"soft_targets": annealed},
    phases=(
        Phase("hint", share=0.3, step=only("features")),
        Phase("distill", share=0.7, step=only("soft_targets", "labels"), groups=("student",)),
    ),
    diagnostics=("fidelity",),
    tasks=("classification", "segmentation"),
    quantized=Method(
        source="arXiv:1412.6550 eq. 2",
        objectives={"soft_targets": SoftTargets, "labels": Labels},
    ),
)
