"""How far each sample follows the teacher, read off the triangle of student, teacher and label by a small network.

Source: Hu et al., "Less or More From Teacher: Exploiting Trilateral Geometry For Knowledge Distillation", ICLR 2024,
arXiv:2312.15112. The state is that of the authors' code (its "option 3"): four vertices and five squared edges. The
loss of one sample is a * T^2 KL(teacher || student) + (1 - a) * cross-entropy, with a = sigmoid(network(state)).

The network's size is the released one (9C-32-16-1, leaky ReLU); how it is trained is `compress/methods/tgeo_kd.py`.
That its last layer starts at zero (every sample at a = 1/2), `every` and `inner_rate` are proposed.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.errors import RecipeError, TaskError
from compress.similarity import soft_target_loss


def trilateral_state(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    averages: Tensor | None,
    *,
    student_teacher_edge: bool = True,
) -> Tensor:
    """The triangle of student S, teacher T and label G, with the teacher's average B over the label's class.

    Args:
        student, teacher: logits, (B, C). Probabilities are taken at temperature 1; no gradient flows into either,
            because the student could otherwise lower its loss by moving its own ratio.
        labels: class indices, (B,).
        averages: row c is the teacher's mean probability over training samples of class c, (C, C); None leaves B and
            its edges out.
        student_teacher_edge: False leaves (T - S)^2 out.

    Returns:
        (B, nC), blocks of C: S, T, G, B, (B-S)^2, (G-S)^2, (T-S)^2, (T-G)^2, (B-G)^2, elementwise.

    Raises:
        ValueError: shapes that do not fit.
    """
    if student.shape != teacher.shape or student.ndim != 2 or labels.shape != student.shape[:1]:
        raise ValueError(
            f"student logits {tuple(student.shape)}, teacher logits {tuple(teacher.shape)},"
            f" labels {tuple(labels.shape)}"
        )
    s, t = student.detach().softmax(dim=1), teacher.detach().softmax(dim=1)
    g = F.one_hot(labels, s.shape[1]).to(s)
    middle = [(t - s).square()] if student_teacher_edge else []
    if averages is None:
        return torch.cat([s, t, g, (g - s).square(), *middle, (t - g).square()], dim=1)
    b = averages.to(s)[labels]
    edges = [(b - s).square(), (g - s).square(), *middle, (t - g).square(), (b - g).square()]
    return torch.cat([s, t, g, b, *edges], dim=1)


class Trilateral(Objective):
    """Mixes the teacher's and the label's loss of each sample by a learned ratio.

    The ratio gets no gradient from this loss, which could only pick the smaller of the two terms: the network behind it
    is trained by the method's outer step.

    Args:
        temperature: of the teacher's term, > 0.
        hidden: sizes of the network's inner layers.
        every: training steps between two of the network's own; 0 leaves the ratio where it starts.
        inner_rate: size of the plain gradient step that the student is thought to take, > 0.
        student_teacher_edge, class_averages: whether the state has these.

    Attributes:
        frozen: whether the network has been learned already and stays as it is.

    Raises:
        RecipeError: a number out of its range.
    """

    averages: Tensor

    def __init__(
        self,
        temperature: float = 4.0,
        hidden: Sequence[int] = (32, 16),
        every: int = 2,
        inner_rate: float = 0.3,
        student_teacher_edge: bool = True,
        class_averages: bool = True,
    ) -> None:
        super().__init__()
        for name, value in {"temperature": temperature, "inner_rate": inner_rate}.items():
            if not 0.0 < value < float("inf"):
                raise RecipeError(f"trilateral has {name} = {value}", fix=f"write a {name} above 0")
        if every < 0 or any(width < 1 for width in hidden):
            raise RecipeError(
                f"trilateral has every = {every} and hidden = {list(hidden)}",
                fix="write every = 2 (0 never trains the ratio) and hidden = [32, 16]",
            )
        self.temperature, self.inner_rate, self.frozen = temperature, inner_rate, False
        self._every, self._hidden = every, tuple(hidden)
        self._student_teacher_edge, self._class_averages = student_teacher_edge, class_averages
        self.network = nn.Sequential()

    def prepare(self, preparation: Preparation) -> None:
        """Average the teacher's answers to the training examples by label, and size the network.

        Raises:
            TaskError: the training examples have no class indices.
        """
        classes = preparation.outputs
        sums, counts = torch.zeros(classes, classes, dtype=torch.float64), torch.zeros(classes, 1, dtype=torch.float64)
        for batch, teacher in preparation.answers("train"):
            labels = _indices(batch).cpu()
            sums.index_add_(0, labels, teacher.output.softmax(dim=1).double().cpu())
            counts.index_add_(0, labels, torch.ones(len(labels), 1, dtype=torch.float64))
        self._supervised = preparation.supervised
        self._build((sums / counts.clamp(min=1.0)).float())

    def take_up(self, state: Mapping[str, Tensor]) -> None:
        """Go on with a ratio that was learned before, which stays as it is."""
        self._build(state["averages"])
        self.load_state_dict(dict(state))
        self.requires_grad_(False)
        self.frozen = True

    def due(self, clock: Clock) -> bool:
        """Whether the network is trained at this step."""
        return self._every > 0 and not self.frozen and clock.step % self._every == 0

    def ratios(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """The teacher's share of each sample's loss, (B,) in (0, 1). Gradient flows into the network alone."""
        averages = self.averages if self._class_averages else None
        state = trilateral_state(student, teacher, labels, averages, student_teacher_edge=self._student_teacher_edge)
        ratio: Tensor = torch.sigmoid(self.network(state)).squeeze(1)
        return ratio

    def terms(self, student: Tensor, teacher: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(T^2 KL(teacher || student), the task's loss on the label), (B,) nats each."""
        return soft_target_loss(student, teacher, self.temperature), self._supervised(student, labels)

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,) nats.

        Raises:
            TaskError: the stream has no class indices.
        """
        labels = _indices(batch)
        with torch.no_grad():
            ratio = self.ratios(student.output, teacher.output, labels)
        soft, hard = self.terms(student.output, teacher.output, labels)
        return ratio * soft + (1.0 - ratio) * hard

    def ratio(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """What reports show: `ratios`, without gradient."""
        with torch.no_grad():
            return self.ratios(student.output, teacher.output, _indices(batch))

    def _build(self, averages: Tensor) -> None:
        classes = len(averages)
        self.register_buffer("averages", averages)
        blocks = 3 + 2 + self._student_teacher_edge + 3 * self._class_averages
        sizes = (blocks * classes, *self._hidden)
        layers: list[nn.Module] = []
        for before, after in zip(sizes, self._hidden, strict=False):
            layers += [nn.Linear(before, after), nn.LeakyReLU()]
        last = nn.Linear(sizes[-1], 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(*layers, last)


def _indices(batch: Batch) -> Tensor:
    if batch.labels is None or batch.labels.is_floating_point() or batch.labels.ndim != 1:
        raise TaskError(
            "the objective 'trilateral' needs one class index per example", fix="use it with a classification task"
        )
    return batch.labels
