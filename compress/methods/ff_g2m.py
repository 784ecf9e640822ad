"""A graph network teaches a perceptron that needs no graph: what neighbours share, and how they differ.

Source: Wu, Lin, Huang, Fan, Li, "Extracting Low-/High-Frequency Knowledge from Graph Neural Networks and Injecting it
into MLPs: An Effective GNN-to-MLP Distillation Framework" (FF-G2M), AAAI 2023, arXiv:2305.10758; equations as in the
official code (LirongWu/FF-G2M, src/train_and_eval.py), which was read, not the paper's text. With teacher logits H and
student logits Z, s(v) = softmax(v) and edges (i, j) in both directions:

    low  = mean over edges and loops of KL(s(H_j) || s(Z_i))
    high = mean over edges of KL(s(|H_i - H_j| / tau) || s(|Z_i - Z_j| / tau))
    L    = lambda CE(Z, y) on labelled nodes + (1 - lambda) (low + high) + 5e-4 |weights|^2 / 2

Defaults are those of Cora with a GCN teacher: lambda 0.4 (0.1 on CiteSeer), tau 1.5. The last term is Adam's weight
decay of the official configurations, which the loop's own does not replace (`compress/objectives/weight_penalty.py`):
recipes have weight_decay = 0. A recipe sets lambda by three weights, and `keep = "best"`: the official code reports the
epoch with the best validation score, and the weights of that epoch are what must ship. Where a step would see more than
100,000 edges they are drawn (proposed).

In an inductive setting the task leaves the unseen nodes out of the stream "graph" (`compress.graphs.induced`): teacher
outputs and both losses then know nothing of them.
"""

from compress.contracts.method import Method
from compress.objectives.known_labels import KnownLabels
from compress.objectives.neighbourhood import HighFrequency, LowFrequency
from compress.objectives.weight_penalty import WeightPenalty
from compress.strategies.graph_edges import GraphEdges

METHOD = Method(
    source="arXiv:2305.10758, LirongWu/FF-G2M",
    objectives={"labels": KnownLabels, "low": LowFrequency, "high": HighFrequency, "decay": WeightPenalty},
    weights={"labels": 0.4, "low": 0.6, "high": 0.6, "decay": 5e-4},
    strategy=GraphEdges,
    diagnostics=("fidelity", "graph_frequencies"),
    tasks=("classification",),
)
