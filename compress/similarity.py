"""How alike two networks answer one batch: relations between samples, and what the classifier's gradient asks for.

Source: Dong, Li, Wei, "DisWOT: Student Architecture Search for Distillation WithOut Training", CVPR 2023,
arXiv:2303.15678. The relation metric is the loss of Tung and Mori, "Similarity-Preserving Knowledge Distillation",
ICCV 2019, arXiv:1907.09682, equations 2 to 4. Distances of 0 are agreement; these are symmetric, and gradient flows
into both sides, so that who trains a student detaches the teacher's.

The divergence of softened probabilities (Hinton, Vinyals, Dean, arXiv:1503.02531, section 2) is neither: the teacher is
the reference, and gets no gradient.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def relation_matrix(features: Tensor) -> Tensor:
    """Cosine-like similarities between samples: the rows of the Gram matrix, each of unit length.

    Args:
        features: (B, ...), everything behind the batch dimension is flattened.

    Returns:
        (B, B); a row of zeros where a sample's features are all zero. Unchanged by a factor on all features and by a
        rotation of the flattened features.
    """
    rows = features.flatten(1)
    # The factor cancels out below; without it squares of untrained features overflow.
    rows = rows / rows.detach().abs().amax().clamp_min(torch.finfo(rows.dtype).tiny)
    return F.normalize(rows @ rows.T, dim=1)


def relation_rows(student: Tensor, teacher: Tensor) -> Tensor:
    """`relation_distance` by sample: its mean is the distance.

    Args:
        student, teacher: features of the same samples, (B, ...); widths and sizes may differ.

    Returns:
        (B,), >= 0.

    Raises:
        ValueError: the numbers of samples differ, or one side has none or only a batch dimension.
    """
    if len(student) != len(teacher) or not len(student) or min(student.ndim, teacher.ndim) < 2:
        raise ValueError(f"student features {tuple(student.shape)}, teacher features {tuple(teacher.shape)}")
    difference = relation_matrix(student) - relation_matrix(teacher)
    return difference.square().sum(dim=1) / len(student)


def relation_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """M_r: squared Frobenius distance of the two relation matrices, over B squared.

    Arguments and errors are those of `relation_rows`.

    Returns:
        (), 0 to 4 / B.
    """
    return relation_rows(student, teacher).mean()


def semantic_rows(student: Tensor, teacher: Tensor) -> Tensor:
    """`semantic_distance` by class: its mean is the distance.

    The paper's form compares, for each class k, the row-normalised outer products n(g_k g_k^T) of both sides. These
    have rank one: row i is sign(g_ki) g_k / |g_k|, or zero where g_ki is. The squared distance therefore is the number
    of rows that are not zero on each side less twice the cosine times the sum of the products of signs, which takes
    O(K D) and not O(K D^2) (derived here).

    Args:
        student, teacher: gradients of the cross-entropy with respect to the classifier's weight, (K, D).

    Returns:
        (K,), 0 to 4; 0 exactly where one row is a multiple of the other, also a negative one.

    Raises:
        ValueError: the shapes differ: channels of networks of different width have no counterparts. See
            `class_relation_distance` for those.
    """
    if student.shape != teacher.shape or student.ndim != 2:
        raise ValueError(
            f"the semantic distance compares classifiers of one width: student {tuple(student.shape)},"
            f" teacher {tuple(teacher.shape)}"
        )
    ours, theirs = student.sign(), teacher.sign()
    cosine = (_unit(student) * _unit(teacher)).sum(dim=1)
    there = (ours.abs() + theirs.abs()).mean(dim=1)
    # Two equal rows give 0 only up to rounding, which may fall below it.
    return (there - 2.0 * cosine * (ours * theirs).mean(dim=1)).clamp_min(0.0)


def semantic_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """M_s: the mean over classes and channels of the squared distance of the inter-channel correlation matrices.

    Arguments and errors are those of `semantic_rows`.

    Returns:
        (), 0 to 4.
    """
    return semantic_rows(student, teacher).mean()


def class_relation_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """What classifiers of different width can be compared by: relations between classes instead of channels (proposed).

    On published accuracies its sign depends on the initialiser (rank correlation -0.67 or +0.75), so no ranking here
    rests on it unless it is asked for by name.

    Args:
        student: gradient of the cross-entropy with respect to the classifier's weight, (K, D).
        teacher: (K, D'), of the same K classes.

    Returns:
        (), 0 to 4 / K.

    Raises:
        ValueError: the numbers of classes differ.
    """
    return relation_distance(student, teacher)


def classifier_gradient(logits: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
    """Gradient of the mean cross-entropy with respect to the weight of the linear layer that gave `logits`.

    (P - Y)^T H / N in closed form, with P the probabilities and Y one-hot: no backward pass is needed, and gradient
    can flow through it.

    Args:
        logits: (N, K).
        inputs: of that layer, H, (N, D).
        labels: class indices 0 to K - 1, (N,).

    Returns:
        (K, D); each column sums to 0.

    Raises:
        ValueError: the numbers of samples differ, or a label is out of range.
    """
    if logits.ndim != 2 or inputs.ndim != 2 or labels.shape != logits.shape[:1] or len(inputs) != len(logits):
        raise ValueError(
            f"logits {tuple(logits.shape)}, classifier inputs {tuple(inputs.shape)}, labels {tuple(labels.shape)}"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]:
        raise ValueError(f"labels {int(labels.min())} to {int(labels.max())} for {logits.shape[1]} classes")
    wrong = logits.softmax(dim=1) - F.one_hot(labels.long(), logits.shape[1]).to(logits.dtype)
    return wrong.T @ inputs / len(logits)


def _unit(rows: Tensor) -> Tensor:
    """Rows of unit length; zero stays zero. Scaled first: squares of a confident network's gradients underflow."""
    largest = rows.detach().abs().amax(dim=1, keepdim=True)
    return F.normalize(rows / largest.clamp_min(torch.finfo(rows.dtype).tiny), dim=1)


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of the softened probabilities, times temperature squared.

    Args:
        student: logits, (B, C, ...): classes are dimension 1, further ones are averaged over.
        teacher: logits of the same shape. No gradient flows into them.
        temperature: > 0, dimensionless. 1 leaves the probabilities as they are.

    Returns:
        (B,), in nats, >= 0; 0 where the two agree up to a constant per position. Computed in float32 or wider: half
        precision overflows at a high temperature and surely wrong students.

    Raises:
        ValueError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student logits {tuple(student.shape)}, teacher logits {tuple(teacher.shape)}")
    log_p = F.log_softmax(widened(teacher.detach()) / temperature, dim=1)
    log_q = F.log_softmax(widened(student) / temperature, dim=1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    # Gradients of softened logits shrink as 1/T^2; the factor keeps this term's weight when T changes.
    return temperature**2 * divergence.flatten(1).mean(dim=1) if divergence.ndim > 1 else temperature**2 * divergence


def widened(values: Tensor) -> Tensor:
    """float32 of half precision, anything else as it is: sums over classes need its range and its digits."""
    return values if values.element_size() >= 4 else values.float()
