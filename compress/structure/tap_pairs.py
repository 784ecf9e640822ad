"""Which taps of two networks are compared: what all objectives and diagnostics on pairs of features share.

Networks that are asked for n stages may have fewer; then several names mean the same end. Each end is compared once:
of the names for one end the last is right, as the end of the first of two stages is where the second of four ends.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from compress.contracts.preparation import Preparation
from compress.contracts.stages import Stage, read_stage
from compress.errors import RecipeError


@dataclass(frozen=True)
class TapPairs:
    """The student's taps with the teacher's that they are compared with."""

    student: tuple[str, ...]
    teacher: tuple[str, ...]

    @staticmethod
    def read(what: str, student: Sequence[str] | str, teacher: Sequence[str] | str) -> "TapPairs":
        """As a recipe says them: one name each, or as many.

        Args:
            what: the objective's name, for the error.

        Raises:
            RecipeError: the two lists are empty or differ in length.
        """
        ours = (student,) if isinstance(student, str) else tuple(student)
        theirs = (teacher,) if isinstance(teacher, str) else tuple(teacher)
        if not ours or len(ours) != len(theirs):
            raise RecipeError(
                f"{what} pairs {len(ours)} student modules with {len(theirs)} of the teacher",
                fix="name as many modules of the teacher as of the student, and one at least",
            )
        return TapPairs(ours, theirs)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return zip(self.student, self.teacher, strict=True)

    def __len__(self) -> int:
        return len(self.student)

    def once(self, preparation: Preparation) -> "TapPairs":
        """Without the pairs that repeat a stage of either side; modules that were named stay as they are."""
        kept = matched(ends(self.student, preparation.student_stages), ends(self.teacher, preparation.teacher_stages))
        return TapPairs(tuple(self.student[n] for n in kept), tuple(self.teacher[n] for n in kept))


def ends(taps: Sequence[str], stages: Mapping[str, Stage]) -> tuple[Hashable, ...]:
    """What tells taps apart: the module for stages, the place in the list for names of modules."""
    return tuple(stages[tap].module if tap in stages else place for place, tap in enumerate(taps))


def matched(student: Sequence[Hashable], teacher: Sequence[Hashable]) -> tuple[int, ...]:
    """Places of pairs, in order, in which nothing occurs twice on either side: as many as can be, from the last on.

    Args:
        student, teacher: what stands at each place, equally many; equal things are neighbours.
    """
    kept: list[int] = []
    for place in reversed(range(len(student))):
        if all(student[place] != student[other] and teacher[place] != teacher[other] for other in kept):
            kept.append(place)
    return tuple(reversed(kept))


def distinct(taps: Sequence[str], stages: Mapping[str, Stage]) -> tuple[str, ...]:
    """The taps of one network without repeated stages."""
    found = ends(taps, stages)
    return tuple(taps[place] for place in matched(found, found))


def fewer(taps: Iterable[str], stages: Mapping[str, Stage]) -> tuple[int, int] | None:
    """(how many stages there are, how many were asked for); None where none of `taps` means what another does."""
    asked = [tap for tap in dict.fromkeys(taps) if read_stage(tap) is not None and tap in stages]
    there = {stages[tap].module for tap in asked}
    return (len(there), len(asked)) if len(there) < len(asked) else None
