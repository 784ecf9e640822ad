"""What built students taught about predictions, as factors: of costs on the target, of scores after quantisation."""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from compress.selection.events import Recalibrated
from compress.stages.learned import Learned
from profiles.cost import Cost

MEMORY_RATIO = "peak activation memory"


@dataclass(frozen=True)
class Factors:
    """Proposed: costs are multiplied by the largest ratio that was found, scores by their space's mean.

    Attributes:
        latency, memory: found over predicted.
        kept: space -> share of its students' scores that quantisation leaves them; 1 for a space that is not in it.
        builds: artifacts that the costs rest on.
        spaces: space -> artifacts that its share rests on.
    """

    latency: float = 1.0
    memory: float = 1.0
    kept: Mapping[str, float] = field(default_factory=dict)
    builds: int = 0
    spaces: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def of(learned: Sequence[Learned]) -> "Factors":
        """What all earlier rounds taught."""
        shares: dict[str, list[float]] = defaultdict(list)
        for item in learned:
            if item.evidence is not None:
                shares[item.choice.space].append(item.evidence.kept)
        return Factors(
            max((item.latency_ratio for item in learned), default=1.0),
            max((item.memory_ratio for item in learned), default=1.0),
            {space: sum(own) / len(own) for space, own in shares.items()},
            len(learned),
            {space: len(own) for space, own in shares.items()},
        )

    def applied(self, cost: Cost) -> Cost:
        """The cost as it is expected now.

        A ratio below 1 moves the median and the lower end alone: that one artifact was faster than predicted does not
        make the upper end of others surer. They may straddle a budget then, and are measured or dropped.
        """
        low, high = cost.interval_ms
        return dataclasses.replace(
            cost,
            latency_ms=cost.latency_ms * self.latency,
            interval_ms=(low * self.latency, high * max(1.0, self.latency)),
            peak_activation_bytes=round(cost.peak_activation_bytes * max(1.0, self.memory)),
        )

    def expected(self, space: str, score: float) -> float:
        """What a student of that space with this score is expected to have left after quantisation. NaN stays NaN."""
        return score * self.kept.get(space, 1.0)

    def events(self, round_: int) -> list[Recalibrated]:
        """What changed, for the report."""
        told = [("latency", self.latency, self.builds), (MEMORY_RATIO, max(1.0, self.memory), self.builds)]
        told += [
            (f"score of {space} after quantisation", kept, self.spaces[space]) for space, kept in self.kept.items()
        ]
        return [Recalibrated(round_, what, factor, builds) for what, factor, builds in told if factor != 1.0]
