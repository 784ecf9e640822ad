"""A small audio network learns a regression from its teacher's answers alone, by their concordance over each batch.

Source: Kounadis-Bastian, Schruefer, Derington, Wierstorf, Eyben, Burkhardt, Schuller, "Wav2Small: Distilling Wav2Vec2
to 72K parameters for Low-Resource Speech Emotion Recognition", 2024, arXiv:2408.13920.

    L = 1 - mean over outputs of CCC(student, teacher),    moments of the batch, biased

No human label is looked at: ratings of emotion disagree so much that small networks trained on them fail, and what a
large ensemble says of the same clips is smooth, and to be had for any audio, so mixtures are labelled as well
(`compress/strategies/mixed_signals.py`). Whether the paper adds a squared error was not found: its weight is 0 here.

The paper's teacher is the mean of two networks; weights were not found, a half each is proposed. What a task or a user
gives as teacher may be such a mean already (`compress/tasks/spoken_attributes.py`,
`compress/teachers/ensemble.py`). Student and front-end are `compress/spaces/wav2small.py` and
`compress/frontends/decibel_mel.py`; the front-end is exported with the student and never quantised.

Batches of 32 or more are proposed: the coefficient of fewer than about eight examples is mostly chance.
"""

from compress.contracts.method import Method
from compress.objectives.concordance import Concordance
from compress.strategies.mixed_signals import MixedSignals

METHOD = Method(
    source="arXiv:2408.13920",
    objectives={"concordance": Concordance},
    strategy=MixedSignals,
    diagnostics=("concordance",),
    tasks=("regression",),
)
