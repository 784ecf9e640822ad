"""Which teacher suits a student, by size alone: a teacher that is too large teaches worse than a smaller one.

Source: Zhang et al., "Towards the Law of Capacity Gap in Distilling Language Models", ACL 2025, arXiv:2311.07052. For a
fixed student the loss against the teacher's size falls and rises again; the size at its bottom grows linearly with the
student's. Sizes are in millions of parameters, all of them counted, embeddings too (proposed: the paper's rule for
counting was not found).

What it rests on, and what not: the constants come from language models of 70 M to 2.8 B parameters whose students were
pruned from the teacher, so that size and initial weights changed together. They were not seen on small networks: there
the bottom is flat and the slope within the noise between seeds (`tools/effects/capacity_gap_law.py`). So `PRIOR` is a
starting point to be fitted again, and a teacher's quality counts beside its size (Busbridge et al., "Distillation
Scaling Laws", ICML 2025): keep the teachers' own losses with the pilots.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Where = Literal["interior", "boundary"]
FEWEST_TEACHERS = 5  # per student: of fewer, the grid's spacing decides what comes out
NEAREST = 3  # points that the parabola through a curve's bottom goes by
CONFIDENCE = 0.95


def side_sparsity(sparsity: float) -> float:
    """Sparsity of each of the two sides of a weight matrix that together remove this share of its parameters.

    1 - sqrt(1 - sparsity): parameters go with the product of both sides.

    Args:
        sparsity: of the whole, in [0, 1].

    Raises:
        ValueError: outside of it.
    """
    if not 0.0 <= sparsity <= 1.0:
        raise ValueError(f"a sparsity is from 0 to 1; this one is {sparsity}")
    return 1.0 - math.sqrt(1.0 - sparsity)


def side_sparsity_percent(sparsity: float) -> int:
    """`side_sparsity` in whole per cent: what stays is rounded, the rest goes, as in the authors' code."""
    return 100 - round(100.0 * (1.0 - side_sparsity(sparsity)))


def decoder_params(*, vocabulary: int, hidden: int, layers: int, feed_forward: int) -> int:
    """Parameters of a decoder with rotary attention and gated feed-forward layers, norms not counted.

    Two embeddings (input and output), four square projections and three feed-forward ones per layer.
    """
    return 2 * vocabulary * hidden + layers * (4 * hidden**2 + 3 * hidden * feed_forward)


@dataclass(frozen=True)
class Law:
    """T* = slope x S + intercept, all in millions of parameters."""

    slope: float
    intercept_m: float
    source: str

    def teacher_m(self, student_m: float) -> float:
        """The best teacher's size for a student.

        Raises:
            ValueError: it would be no larger than the student: the line does not reach down there.
        """
        size = self.slope * student_m + self.intercept_m
        if not size > student_m:
            raise ValueError(
                f"for a student of {student_m:g} M parameters the line gives a teacher of {size:g} M, which is no"
                " larger: it was not fitted this far down"
            )
        return size

    def student_m(self, teacher_m: float) -> float:
        """The size whose best teacher has `teacher_m`; the inverse of `teacher_m`.

        Raises:
            ValueError: it would not be above 0, or not below the teacher's.
        """
        size = (teacher_m - self.intercept_m) / self.slope if self.slope else math.nan
        if not 0.0 < size < teacher_m:
            raise ValueError(
                f"for a teacher of {teacher_m:g} M parameters the line gives a student of {size:g} M: it was not"
                " fitted there"
            )
        return size


PUBLISHED = Law(2.498, -11.498, "arXiv:2311.07052, fit over GPT-2 and Pythia teachers, R2 0.9957")
"""The paper's fit; the unit of the intercept is taken to be millions (proposed: its pilots stay below 3 B)."""
PRIOR = Law(2.5, 0.0, "arXiv:2311.07052, the rounded ratio; of language models, not of the task at hand")
"""The rule that the paper reads off its fit. Without an intercept it can be asked for any size."""


@dataclass(frozen=True)
class Pilot:
    """One small distillation.

    Attributes:
        loss: of the student on validation labels; lower is better. Not its training loss: the soft part of that
            contains the teacher's entropy, so that two teachers' curves do not compare.
        teacher_loss: the teacher's own on the same, where known.
        family: of networks; sizes of two families do not compare.
    """

    student_m: float
    teacher_m: float
    loss: float
    seed: int
    teacher_loss: float | None = None
    family: str = ""


@dataclass(frozen=True)
class Optimum:
    """The best teacher of one student. "boundary": at an end of the sizes that were tried, so it may lie beyond."""

    student_m: float
    teacher_m: float
    where: Where
    teachers: int
    family: str = ""


@dataclass(frozen=True)
class Interval:
    """95 % of the resamples that gave a fit lie inside.

    Attributes:
        undefined: share of all resamples that gave none (fewer than two students with an interior optimum).
    """

    slope: tuple[float, float]
    intercept_m: tuple[float, float]
    undefined: float


@dataclass(frozen=True)
class LawFit:
    """A fitted line.

    Attributes:
        r2: share of the optima's variance that the line explains; NaN where they are all equal and it misses them.
        per_student_optimum: those that were fitted and, marked "boundary", those that were left out.
        ci: None where it was not made from pilots with seeds.
    """

    slope: float
    intercept_m: float
    r2: float
    per_student_optimum: tuple[Optimum, ...] = ()
    ci: Interval | None = None

    @property
    def law(self) -> Law:
        """The line for use."""
        return Law(self.slope, self.intercept_m, f"fitted over {len(self.per_student_optimum)} students")

    @property
    def boundary_hits(self) -> int:
        """Students whose best teacher was the smallest or the largest there was."""
        return sum(optimum.where == "boundary" for optimum in self.per_student_optimum)


def optimum_teacher(
    teachers_m: Sequence[float], losses: Sequence[float], nearest: int | None = NEAREST
) -> tuple[float, Where]:
    """The teacher size at the bottom of a student's loss curve, finer than the grid.

    The vertex of a parabola in ln T by least squares, where it opens upwards and its vertex lies within the grid;
    otherwise the size of least loss, marked "boundary" (proposed).

    Args:
        teachers_m: distinct sizes above 0.
        losses: one per size, lower is better.
        nearest: how many points of least loss the parabola is fitted to, at least 3; None for all.

    Raises:
        ValueError: fewer than 3 sizes, or lists that do not belong together.
    """
    if len(teachers_m) != len(losses) or len(set(teachers_m)) != len(teachers_m) or len(teachers_m) < 3:
        raise ValueError(f"an optimum takes at least 3 distinct sizes, one loss each; here {teachers_m}, {losses}")
    if min(teachers_m) <= 0 or not all(math.isfinite(value) for value in (*teachers_m, *losses)):
        raise ValueError(f"sizes are above 0 and losses are finite; here {teachers_m}, {losses}")
    best = sorted(range(len(losses)), key=lambda place: (losses[place], teachers_m[place]))
    chosen = best[: max(3, nearest)] if nearest is not None else best
    x = np.log([teachers_m[place] for place in chosen])
    # Centred, because ln T of near sizes makes the columns of the least squares almost equal.
    a, b, _ = np.polyfit(x - x.mean(), [losses[place] for place in chosen], 2)
    if a > 0:
        vertex = math.exp(float(np.clip(x.mean() - b / (2 * a), -700, 700)))
        if min(teachers_m) < vertex < max(teachers_m):
            return vertex, "interior"
    return float(teachers_m[best[0]]), "boundary"


def fit_law(students_m: Sequence[float], teachers_m: Sequence[float], weights: Sequence[float] | None = None) -> LawFit:
    """Least squares of T* = slope x S + intercept.

    Args:
        students_m: at least two different sizes.
        teachers_m: the best teacher's size of each.
        weights: of each squared error; equal where not given.

    Raises:
        ValueError: no line is determined.
    """
    s, t = np.asarray(students_m, dtype=float), np.asarray(teachers_m, dtype=float)
    w = np.ones_like(s) if weights is None else np.asarray(weights, dtype=float)
    if not (s.shape == t.shape == w.shape) or len(set(s[w > 0].tolist())) < 2 or (w < 0).any():
        raise ValueError(f"a line takes at least two student sizes, each with its optimum; here {students_m}")
    w = w / w.sum()
    s_mean, t_mean = float(w @ s), float(w @ t)
    slope = float(w @ ((s - s_mean) * (t - t_mean)) / (w @ (s - s_mean) ** 2))
    intercept = t_mean - slope * s_mean
    missed, varied = float(w @ (t - slope * s - intercept) ** 2), float(w @ (t - t_mean) ** 2)
    r2 = 1.0 - missed / varied if varied > 0 else (1.0 if missed == 0 else math.nan)
    return LawFit(slope, intercept, r2)


def optima(pilots: Sequence[Pilot], nearest: int | None = NEAREST) -> tuple[Optimum, ...]:
    """The best teacher of each family's students, from losses averaged over seeds; smallest student first.

    Raises:
        ValueError: a student met fewer than `FEWEST_TEACHERS` teachers.
    """
    cells: dict[tuple[str, float], dict[float, list[float]]] = {}
    for pilot in pilots:
        cells.setdefault((pilot.family, pilot.student_m), {}).setdefault(pilot.teacher_m, []).append(pilot.loss)
    found = []
    for (family, student), losses in sorted(cells.items()):
        if len(losses) < FEWEST_TEACHERS:
            raise ValueError(
                f"a student of {student:g} M met {len(losses)} teachers; its optimum takes {FEWEST_TEACHERS}"
            )
        sizes = sorted(losses)
        size, where = optimum_teacher(sizes, [sum(losses[t]) / len(losses[t]) for t in sizes], nearest)
        found.append(Optimum(student, size, where, len(sizes), family))
    return tuple(found)


def fit_pilots(
    pilots: Sequence[Pilot], *, resamples: int = 1000, seed: int = 0, nearest: int | None = NEAREST
) -> LawFit | None:
    """The law of a grid of small distillations, with an interval from drawing its seeds again.

    Optima at the boundary are reported and not fitted. Seeds are drawn for the whole grid at once, because students of
    one seed share that seed's teachers.

    Returns:
        None where fewer than two student sizes have an interior optimum: then there is no line to speak of.

    Raises:
        ValueError: as `optima`.
    """
    found = optima(pilots, nearest)
    fit = _line(found)
    if fit is None:
        return None
    by_seed: dict[int, list[Pilot]] = {}
    for pilot in pilots:
        by_seed.setdefault(pilot.seed, []).append(pilot)
    rng = random.Random(f"{seed}/capacity gap")
    seeds = sorted(by_seed)
    again = []
    for _ in range(resamples):
        drawn = [pilot for one in rng.choices(seeds, k=len(seeds)) for pilot in by_seed[one]]
        line = _line(optima(drawn, nearest))
        if line is not None:
            again.append((line.slope, line.intercept_m))
    interval = None
    if again:
        edges = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
        (low, low_c), (high, high_c) = np.quantile(np.array(again), edges, axis=0).tolist()
        interval = Interval((low, high), (low_c, high_c), 1.0 - len(again) / resamples)
    return LawFit(fit.slope, fit.intercept_m, fit.r2, found, interval)


def _line(found: Sequence[Optimum]) -> LawFit | None:
    inside = [optimum for optimum in found if optimum.where == "interior"]
    if len({optimum.student_m for optimum in inside}) < 2:
        return None
    return fit_law([o.student_m for o in inside], [o.teacher_m for o in inside])


def doubt(fit: LawFit | None) -> str | None:
    """Why a fit should not replace the prior, in words; None where it may."""
    if fit is None:
        return "fewer than two student sizes had their best teacher inside the sizes that were tried"
    if fit.ci is None:
        return "no resample of the seeds gave a line"
    low, high = fit.ci.slope
    if low <= 1.0:
        return f"the slope {fit.slope:.3g} ({low:.3g} to {high:.3g}) is not told apart from a teacher of equal size"
    return None


@dataclass(frozen=True)
class TeacherChoice:
    """Which of several teachers a student should have.

    Attributes:
        target_m: the size that the law asks for.
        ratio: the teacher's size over the student's.
        assistant_m: size of a network to put between them: distilled from the teacher, it teaches the student. None
            where the teacher is near enough.
    """

    name: str
    teacher_m: float
    target_m: float
    ratio: float
    assistant_m: float | None


def choose_teacher(catalogue: Mapping[str, float], student_m: float, law: Law = PRIOR) -> TeacherChoice:
    """The teacher whose size is nearest to what the law asks for, by ratio: the loss curve is a parabola in ln T.

    Teachers that are no larger than the student are taken only where there are no others. Where the chosen one is so
    large that the law fits twice between, an assistant of the law's size is advised (proposed).

    Args:
        catalogue: name -> size in millions of parameters.
        student_m: above 0.

    Raises:
        ValueError: no teachers, or sizes that are not above 0, or a law that does not reach this student.
    """
    if not catalogue or min(*catalogue.values(), student_m, math.inf) <= 0:
        raise ValueError(f"a choice takes teachers and a student of sizes above 0; here {dict(catalogue)}, {student_m}")
    target = law.teacher_m(student_m)
    larger = {name: size for name, size in catalogue.items() if size > student_m} or catalogue
    name = min(larger, key=lambda name: (abs(math.log(larger[name] / target)), larger[name], name))
    size = catalogue[name]
    return TeacherChoice(name, size, target, size / student_m, target if size >= law.teacher_m(target) else None)


def choose_student(teacher_m: float, law: Law = PRIOR) -> float:
    """The student's size, in millions of parameters, that this teacher suits best; as `Law.student_m`."""
    return law.student_m(teacher_m)
