"""Vectors that are the teacher's: asymmetric search, and what a student inherits of the teacher's space.

Source: Vujanic, Rueckstiess, "LEAF", 2025, arXiv:2509.12539: asymmetric search beats standard search, and robustness
to short and to rounded vectors comes for free where the teacher has it. A teacher with ordered coordinates is made of
all-MiniLM-L6-v2 by turning its vectors to their principal axes, one without by a random rotation: no cosine changes.
"""

import ast
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.experiment import Experiment, Figures, Finding, Holds, Results
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.contracts.task import Task, TrainingNumbers
from compress.errors import TaskError
from compress.frontends.unchanged import Unchanged
from compress.methods.leaf import METHOD
from compress.reproduction.bed import seeded, taught
from compress.reproduction.paired import paired, shown
from compress.retrieval import in_int8, of_unit_length, prefix, recall_at, signs
from compress.spaces.token_encoder import Encoder, Plan
from compress.teachers import minilm
from compress.teachers.remembered import RememberedTeacher
from compress.training.evaluate import outputs_of

PAIRS, TESTED = 1100, 400
LENGTH = 48  # word pieces of a sentence
SHORT = 64  # coordinates that are kept of 384
NUMBERS = TrainingNumbers(epochs=12, batch_size=32, learning_rate=2e-3, weight_decay=0.0)
STUDENT = Plan(width=96, depth=0, heads=1, ratio=1, hidden=256)
TEMPERATURE = 0.05
CHANCE = 10 / TESTED
ORDERED, TURNED, CONTRASTIVE = "aligned to a teacher with ordered axes", "aligned to a turned teacher", "contrastive"
ITSELF = {ORDERED: "teacher with ordered axes", TURNED: "turned teacher"}
ASYMMETRIC, STANDARD = "asymmetric recall@10", "standard recall@10"
CUT, ROUNDED, BITS, COSINE = f"asymmetric, {SHORT} of 384", "asymmetric, int8", "asymmetric, signs", "cosine to teacher"
SPACES = re.compile(r"\s+")
END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


@lru_cache(maxsize=1)
def sentences() -> tuple[tuple[str, str], ...]:
    """(first, second) sentences of the docstrings of this Python's standard library, in the order of its files."""
    found: dict[str, str] = {}
    root = Path(sysconfig.get_paths()["stdlib"])
    for name in sorted(sys.stdlib_module_names):
        module = root / f"{name}.py"
        for path in [module] if module.is_file() else sorted((root / name).glob("*.py")):
            for text in _docstrings(path):
                parts = [SPACES.sub(" ", part).strip() for part in END.split(text)]
                if len(parts) >= 2 and all(4 <= len(part.split()) <= 40 for part in parts[:2]):
                    found.setdefault(parts[0], parts[1])
    return tuple((first, second) for first, second in found.items() if first != second)


def _docstrings(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [text for node in ast.walk(tree) if isinstance(node, kinds) and (text := ast.get_docstring(node))]


@dataclass(frozen=True)
class Texts:
    """Sentences as tokens and as the teacher sees them; pair i is at 2 i and 2 i + 1.

    Attributes:
        ids, mask: (N, 48); ids are numbered anew, so that no row of a table stands for a piece that never comes.
        vectors: (N, 384).
        words: how many different pieces there are, padding included.
    """

    ids: Tensor
    mask: Tensor
    vectors: Tensor
    words: int


@lru_cache(maxsize=1)
def texts() -> Texts:
    """All sentences, once for all seeds of a run."""
    flat = [sentence for pair in sentences() for sentence in pair]
    ids, mask = minilm.tokens(flat, LENGTH)
    known, place = torch.unique(ids, return_inverse=True)  # padding is 0 and stays so
    return Texts(place, mask, minilm.vectors(flat, LENGTH), len(known))


@final
class Sentences(Task):
    """Texts without labels."""

    name, kind = "sentences", "embedding"
    labels = tuple(map(str, range(minilm.WIDTH)))
    input_names = ("input_ids", "attention_mask")
    input_shapes = ((LENGTH,), (LENGTH,))
    input_values = (minilm.WORDS, 2)

    def load(self, data: Path | None) -> Splits:
        """Not from a folder."""
        raise TaskError("the experiment cuts its own texts", fix="run compress reproduce leaf")

    def frontend(self) -> nn.Module:
        """Nothing."""
        return Unchanged()

    def teacher(self) -> nn.Module:
        """all-MiniLM-L6-v2."""
        return minilm.network()


class Both(nn.Module):
    """Two texts of one example, (B, 2, n) -> (B, 2 d)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, 2, n) and (B, 2, n) -> (B, 2 d)."""
        output: Tensor = self.encoder(ids.flatten(0, 1), mask.flatten(0, 1))
        return output.reshape(len(ids), -1)


class InBatch(Objective):
    """Tell a pair's second text among those of the batch, and its first one: what embeddings are usually trained by."""

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,) nats."""
        first, second = student.output.chunk(2, dim=1)
        scores = first @ second.T / TEMPERATURE
        own = torch.arange(len(first), device=first.device)
        there, back = (nn.functional.cross_entropy(one, own, reduction="none") for one in (scores, scores.T))
        return (there + back) / 2


def rotations(vectors: Tensor, seed: int) -> Mapping[str, Tensor]:
    """(384, 384) orthogonal matrices: to the principal axes of the training vectors, and a random one."""
    axes = torch.linalg.eigh(torch.cov(vectors.T.double())).eigenvectors.flip(1)
    noise = torch.randn(384, 384, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {ORDERED: axes.float(), TURNED: torch.linalg.qr(noise).Q.float()}


def searched(queries: Tensor, own: Tensor, documents: Tensor) -> dict[str, float]:
    """Recall of queries among documents.

    Args:
        queries: by the student, (Q, d).
        own: the documents by the student, (Q, d).
        documents: by the teacher, (Q, d); the document of query i is at i.
    """
    right = torch.eye(len(queries), dtype=torch.bool)

    def recall(q: Tensor, d: Tensor) -> float:
        return float(recall_at(q @ d.T, right).mean())

    return {
        ASYMMETRIC: recall(queries, documents),
        STANDARD: recall(queries, own),
        CUT: recall(prefix(queries, SHORT), prefix(documents, SHORT)),
        ROUNDED: recall(in_int8(queries), in_int8(documents)),
        BITS: recall(signs(queries), signs(documents)),
    }


def run(data: Path | None, seed: int, say: Callable[[str], None]) -> Figures:
    """Both rotations and the contrastive student, from the same initial weights, on pairs drawn anew for each seed."""
    known, task = texts(), Sentences()
    drawn = torch.randperm(len(known.ids) // 2, generator=torch.Generator().manual_seed(seed))[: PAIRS + TESTED]
    train, test = (torch.stack([2 * part, 2 * part + 1], dim=1) for part in (drawn[:PAIRS], drawn[PAIRS:]))
    figures: dict[str, dict[str, float]] = {}
    nothing = TensorExamples(torch.zeros(0, LENGTH), torch.zeros(0), "nothing")

    def encoder() -> nn.Module:
        return seeded(seed, lambda: Encoder(STUDENT, known.words, LENGTH, minilm.WIDTH, True))

    def given(places: Tensor, name: str) -> TensorExamples:
        return TensorExamples((known.ids[places], known.mask[places]), torch.zeros(len(places)), name, scale=None)

    def answers(network: nn.Module, turn: Tensor | None) -> dict[str, float]:
        queries, own = (outputs_of(network, given(test[:, side], f"side {side}")) for side in (0, 1))
        taught_by = known.vectors if turn is None else known.vectors @ turn
        cosine = (queries * taught_by[test[:, 0]]).sum(dim=1).mean()
        return searched(queries, own, taught_by[test[:, 1]]) | {COSINE: float(cosine)}

    for arm, turn in rotations(known.vectors[train.flatten()], seed).items():
        turned = known.vectors @ turn
        figures[ITSELF[arm]] = searched(turned[test[:, 0]], turned[test[:, 1]], turned[test[:, 1]]) | {COSINE: 1.0}
        split = Splits(given(train.flatten(), f"texts {seed}"), nothing, nothing)
        teachers = {"teacher": RememberedTeacher({"train": of_unit_length(turned[train.flatten()])})}
        student = taught(encoder(), split, NUMBERS, seed, method=METHOD, teachers=teachers, task=task)
        figures[arm] = answers(student, turn)
        say(f"seed {seed}: {arm}: {_shown(figures[arm])}")
    pair = Both(encoder())
    split = Splits(given(train, f"pairs {seed}"), nothing, nothing)
    silent = {"teacher": RememberedTeacher({"train": torch.zeros(PAIRS, 2 * minilm.WIDTH)})}
    taught(pair, split, NUMBERS, seed, objectives={"in_batch": InBatch()}, teachers=silent, task=task)
    figures[CONTRASTIVE] = answers(pair.encoder.eval(), None)
    say(f"seed {seed}: {CONTRASTIVE}: {_shown(figures[CONTRASTIVE])}")
    return figures


def _shown(found: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in found.items())


def judge(results: Results) -> Sequence[Finding]:
    """The specification's criteria."""
    arms = (ORDERED, TURNED)
    ahead = {
        arm: [a - s for a, s in zip(results.of(arm, ASYMMETRIC), results.of(arm, STANDARD), strict=True)]
        for arm in arms
    }
    gap = paired(results.of(ORDERED, CUT), results.of(TURNED, CUT))
    rounding = [
        abs(r - a) for arm in arms for r, a in zip(results.of(arm, ROUNDED), results.of(arm, ASYMMETRIC), strict=True)
    ]
    chance = results.of(CONTRASTIVE, ASYMMETRIC)
    bits = paired(results.of(TURNED, BITS), results.of(ORDERED, BITS))
    return (
        Finding(
            "asymmetric recall is no more than 0.01 below standard recall, in every seed",
            "; ".join(f"{arm}: least {min(gaps):+.3f}" for arm, gaps in ahead.items()),
            _all(min(gaps) >= -0.01 for gaps in ahead.values()),
        ),
        Finding(
            f"with {SHORT} of 384 coordinates a student of ordered axes is at least 0.08 ahead of a turned one",
            str(gap),
            shown(gap, 0.08),
        ),
        Finding(
            "vectors rounded to int8 are within 0.02 of float ones",
            f"largest change {max(rounding):.3f}",
            _all(change <= 0.02 for change in rounding),
        ),
        Finding(
            f"the contrastive student finds the teacher's documents by chance ({CHANCE:.3f}): at most 0.05",
            f"{min(chance):.3f} to {max(chance):.3f}",
            _all(value <= 0.05 for value in chance),
        ),
        Finding(
            "one bit per coordinate follows the rotation the other way round",
            str(bits),
            shown(bits),
            decides=False,
        ),
    )


def _all(holds: Iterable[bool]) -> Holds:
    return "yes" if all(holds) else "no"


EXPERIMENT = Experiment(
    source="arXiv:2509.12539",
    claim="A student whose vectors are the teacher's searches the teacher's documents, and inherits its space.",
    bed=(
        "teacher all-MiniLM-L6-v2, its vectors turned to their principal axes or at random; sentences of docstrings of"
        f" the standard library of Python {sys.version_info.major}.{sys.version_info.minor}: {PAIRS} training pairs"
        f" (first and second sentence), {TESTED} test pairs, where the second is searched by the first; the student is"
        " a bag of word pieces of 96 dimensions with a layer of 256 behind its mean; 12 passes, batches of 32, AdamW at"
        " 2e-3 with one cycle and no decay. The contrastive student sees the same pairs as often, 32 pairs at a time,"
        f" at temperature {TEMPERATURE}"
    ),
    data="",
    columns=(ASYMMETRIC, STANDARD, CUT, ROUNDED, BITS, COSINE),
    reference=CONTRASTIVE,
    seeds=4,
    run=run,
    judge=judge,
)
