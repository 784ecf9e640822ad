"""Match the probabilities that several teachers agreed on by voting.

Source: Zhu, Li, Liu, Wang, "Improving Differentiable Architecture Search via Self-Distillation", arXiv:2302.05629
(abstract; the divergence and its direction, teacher before student, are those of Hinton et al., arXiv:1503.02531).
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def vote_divergence(student: Tensor, vote: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(vote || softmax(student / temperature)), times temperature squared.

    Its gradient in the student's logits is temperature * (softmax(student / temperature) - vote).

    Args:
        student: logits, (B, C).
        vote: probabilities, (B, C), made at the same temperature; zeros are allowed. No gradient flows into them.
        temperature: > 0, dimensionless.

    Returns:
        (B,), in nats, >= 0.

    Raises:
        ValueError: the shapes differ.
    """
    if student.shape != vote.shape:
        raise ValueError(f"student logits {tuple(student.shape)}, vote {tuple(vote.shape)}")
    p = vote.detach()
    log_q = F.log_softmax(student / temperature, dim=1)
    return temperature**2 * (torch.xlogy(p, p) - p * log_q).sum(dim=1)
