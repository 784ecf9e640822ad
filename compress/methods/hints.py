"""First an inner layer of the student learns to predict the teacher's, then the whole student learns its outputs.

Source: Romero, Ballas, Ebrahimi Kahou, Chassang, Gatta, Bengio, "FitNets: Hints for Thin Deep Nets", ICLR 2015,
arXiv:1412.6550: stage 1 minimises equation 3 through a regressor that is then dropped, stage 2 equation 2 at
temperature 3 with lambda, the weight of the teacher's term, falling from 4 to 1 (the authors' code: over epochs 5 to
400 of 500).

Equation 2 has no factor for the temperature. Soft targets here have its square, so that their weight is lambda / 9.

Here the regressor is a 1x1 convolution, stage 1 takes three tenths of the epochs, and the hint goes on guiding nothing
in stage 2. The pair of layers is the middle of both networks; a recipe names others, or other stages:
[distill.objectives.features] student = "stage 4 of 4", teacher = "...". The quantised student goes on with stage 2,
lambda being 1.
"""

from functools import partial

from compress.contracts.clock import Clock
from compress.contracts.method import Method, Phase
from compress.contracts.step import only
from compress.objectives.features import Features
from compress.objectives.labels import Labels
from compress.objectives.soft_targets import SoftTargets

TEMPERATURE = 3.0
SOFT_TARGETS = partial(SoftTargets, temperature=TEMPERATURE)


def annealed(clock: Clock) -> float:
    """Lambda, which falls linearly from 4 to 1, without the factor that soft targets have."""
    return (4.0 - 3.0 * clock.progress) / TEMPERATURE**2


METHOD = Method(
    source="arXiv:1412.6550 eq. 2 and 3",
    objectives={"features": Features, "soft_targets": SOFT_TARGETS, "labels": Labels},
    weights={"soft_targets": annealed},
    phases=(
        Phase("hint", share=0.3, step=only("features")),
        Phase("distill", share=0.7, step=only("soft_targets", "labels"), groups=("student",)),
    ),
    diagnostics=("fidelity",),
    tasks=("classification", "segmentation"),
    quantized=Method(
        source="arXiv:1412.6550 eq. 2",
        objectives={"soft_targets": SOFT_TARGETS, "labels": Labels},
        weights={"soft_targets": 1.0 / TEMPERATURE**2},
    ),
)
