"""FF-G2M: every worked value of its losses, what mistakes would look like, a whole training on a small graph."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits
from compress.contracts.signals import Signals
from compress.contracts.task import Task, TrainingNumbers
from compress.errors import RecipeError
from compress.graphs import PRIVILEGED, Graph, Nodes, WholeGraph, induced
from compress.methods.ff_g2m import METHOD
from compress.objectives.known_labels import KnownLabels
from compress.objectives.neighbourhood import HighFrequency, LowFrequency, high_frequency, low_frequency
from compress.objectives.soft_targets import soft_target_loss
from compress.strategies.graph_edges import GraphEdges
from compress.teachers.frozen import FrozenTeacher
from compress.training.fit import fit

H = torch.tensor([[2.0, 0, -1], [1, 1, 0], [-1, 0, 2]], dtype=torch.float64)
Z = torch.eye(3, dtype=torch.float64)
PATH = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
LOOPS = torch.arange(3).expand(2, -1)
ALL = torch.cat([PATH, LOOPS], dim=1)
DIGIT = 5e-10  # half of the last digit given
CLOCK = Clock("distill", 0, 1, 0, 1)


def near(value: float) -> object:
    return pytest.approx(value, abs=DIGIT)


def low(z: Tensor, h: Tensor = H, pairs: Tensor = ALL) -> float:
    return low_frequency(z, h, pairs).mean().item()


def high(z: Tensor, h: Tensor = H, tau: float = 1.0) -> float:
    return high_frequency(z, h, PATH, tau).mean().item()


def test_values_of_the_low_frequencies() -> None:
    assert low(Z) == near(0.399285006)
    assert low(Z, pairs=LOOPS) == near(0.159511811)
    # Self loops alone are node-wise distillation at temperature 1.
    torch.testing.assert_close(low_frequency(Z, H, LOOPS), soft_target_loss(Z, H, 1.0))


def test_values_of_the_high_frequencies() -> None:
    assert high(Z) == near(0.181836122)
    assert high(Z, tau=1.5) == near(0.087157969)


def test_value_of_the_weighted_sum() -> None:
    supervised = nn.functional.cross_entropy(Z[:1], torch.tensor([0])).item()
    assert supervised == near(0.551444714)
    weights = METHOD.weights
    total = weights["labels"] * supervised + weights["low"] * low(Z) + weights["high"] * high(Z, tau=1.5)  # type: ignore[operator]
    assert total == near(0.512443670)


def test_high_frequencies_are_those_of_logits() -> None:
    assert high(Z + torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64)) == near(0.181836122)
    shifted = Z.clone()
    shifted[0] += 5.0  # the same probabilities
    assert high(shifted) == near(0.287975035)
    assert high(torch.zeros_like(Z)) == near(0.040627541)


def test_the_optimum_of_the_low_frequencies_is_the_neighbourhoods_mean() -> None:
    p = H.softmax(dim=1)
    mean = torch.stack([(p[0] + p[1]) / 2, p.mean(dim=0), (p[1] + p[2]) / 2])
    torch.testing.assert_close(mean[0], torch.tensor([0.633057, 0.268257, 0.098686]).double(), atol=5e-7, rtol=0)
    torch.testing.assert_close(mean[1], torch.tensor([0.436041, 0.216903, 0.347056]).double(), atol=5e-7, rtol=0)
    best = mean.log().requires_grad_()
    loss = low_frequency(best, H, ALL).mean()
    assert loss.item() == near(0.264607820)
    loss.backward()
    assert best.grad is not None
    assert best.grad.abs().max() < 1e-12


def test_a_student_that_copies_its_teacher_has_no_high_loss_and_some_low_loss() -> None:
    assert high(H.clone()) == 0.0
    assert low(H.clone()) > 0.05


def test_the_student_at_the_source_learns_from_the_teacher_at_the_target() -> None:
    one = torch.tensor([[0], [1]])
    expected = soft_target_loss(Z[:1], H[1:2], 1.0)
    torch.testing.assert_close(low_frequency(Z, H, one), expected)
    assert not torch.allclose(low_frequency(Z, H, one.flip(0)), expected, atol=0.1)


def test_renumbering_nodes_with_their_edges_changes_nothing() -> None:
    order = torch.tensor([2, 0, 1])  # new place -> old node
    place = order.argsort()
    assert low(Z[order], H[order], place[ALL]) == pytest.approx(low(Z), abs=1e-15)
    moved = high_frequency(Z[order], H[order], place[PATH], 1.5).mean().item()
    assert moved == pytest.approx(high(Z, tau=1.5), abs=1e-15)


def test_no_gradient_reaches_the_teacher() -> None:
    z, h = Z.clone().requires_grad_(), H.clone().requires_grad_()
    (low_frequency(z, h, ALL).mean() + high_frequency(z, h, PATH, 1.5).mean()).backward()
    assert h.grad is None
    assert z.grad is not None


def test_gradients_are_those_of_the_losses() -> None:
    z = (Z + torch.tensor([[0.3, -0.1, 0.2], [0.0, 0.5, 0.1], [-0.4, 0.2, 0.0]]).double()).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: low_frequency(v, H, ALL), [z])
    assert torch.autograd.gradcheck(lambda v: high_frequency(v, H, PATH, 1.5), [z])  # smooth away from equal logits


# -- on batches --------------------------------------------------------------------------------------------------------


def ring(count: int = 40) -> Graph:
    """Two classes; neighbours on the ring are of one class, and features hardly tell it."""
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    features = (torch.rand(count, 6, generator=source) + 0.3 * labels[:, None]).to_sparse_coo().coalesce()
    one = torch.stack([torch.arange(count), (torch.arange(count) + 2) % count])
    return Graph(features, features, labels, torch.cat([one, one.flip(0)], dim=1), "ring")


class Ring(Task):
    name = "ring"
    labels = ("even", "odd")
    input_shape = (6,)
    privileged = PRIVILEGED

    def load(self, data: object) -> Splits:
        raise NotImplementedError

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        return nn.Identity()


class Votes(nn.Module):
    """Knows every node's class: +-2, smoothed over the graph, by number."""

    def forward(self, x: Tensor, node: Tensor, features: Tensor, edges: Tensor) -> Tensor:
        own = torch.where(torch.arange(len(features)) % 2 == 0, 1.0, -1.0)
        sums = own + torch.zeros(len(features)).index_add_(0, edges[1], own[edges[0]])
        return torch.stack([sums, -sums], dim=1)[node]


def teacher() -> FrozenTeacher:
    return FrozenTeacher(Votes(), fingerprint="votes", privileged=PRIVILEGED)


def splits(graph: Graph) -> Splits:
    parts = [Nodes(graph, torch.arange(*span), f"{span}") for span in ((0, 4), (4, 20), (20, 40))]
    return Splits(parts[0], parts[1], parts[2], (("graph", WholeGraph(graph, torch.arange(4))),))


def student() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))


def numbers(**changes: object) -> TrainingNumbers:
    return replace(TrainingNumbers(60, 64, 2e-2, keep_best=True), **changes)  # type: ignore[arg-type]


def trained(
    weights: dict[str, float], graph: Graph, strategy: GraphEdges | None = None
) -> tuple[nn.Module, list[float]]:
    network = student()
    outcome = fit(
        method=METHOD,
        students={"student": network},
        teachers={"teacher": teacher()},
        objectives={"labels": KnownLabels(), "low": LowFrequency(), "high": HighFrequency()},
        weights=weights,
        splits=splits(graph),
        task=Ring(),
        numbers=numbers(),
        seed=0,
        precision="fp32",
        strategy=strategy,
    )
    assert outcome.steps == 60  # one full batch an epoch
    return network, [point.terms["low"] for point in outcome.curve]


def accuracy(network: nn.Module, graph: Graph) -> float:
    with torch.no_grad():
        return (network(graph.features.to_dense()).argmax(1) == graph.labels).float().mean().item()


def test_trains_on_the_whole_graph_and_needs_none_afterwards() -> None:
    graph = ring()
    network, curve = trained({}, graph)
    assert curve[-1] < 0.7 * curve[0]
    alone, _ = trained({"labels": 1.0, "low": 0.0, "high": 0.0}, graph)
    assert accuracy(network, graph) > 0.8  # half is chance
    assert accuracy(network, graph) > accuracy(alone, graph) + 0.1


def test_labels_alone_are_supervised_learning() -> None:
    """lambda = 1: the same weights, bit by bit, as a student that no teacher teaches."""
    graph = ring()
    network, _ = trained({"labels": 1.0, "low": 0.0, "high": 0.0}, graph)
    other = student()
    fit(
        method=replace(METHOD, objectives={"labels": KnownLabels}, weights={}),
        students={"student": other},
        teachers={"teacher": teacher()},
        objectives={"labels": KnownLabels()},
        weights={},
        splits=splits(graph),
        task=Ring(),
        numbers=numbers(),
        seed=0,
        precision="fp32",
    )
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5)


def test_a_large_graph_is_trained_on_drawn_edges() -> None:
    graph = ring()
    network, curve = trained({}, graph, GraphEdges(edges=20))
    assert len(set(curve)) == 60  # other edges at every step
    assert accuracy(network, graph) > 0.8


def test_unknown_labels_are_not_learned_from() -> None:
    graph = ring()
    lying = replace(graph, labels=torch.where(torch.arange(40) < 4, graph.labels, 1 - graph.labels))
    whole = WholeGraph(lying, torch.arange(4)).batch(torch.arange(40))
    assert whole.labels is None
    objective = KnownLabels()
    objective._loss = lambda output, labels: nn.functional.cross_entropy(output, labels, reduction="none")
    output = torch.randn(40, 2)
    told = objective(Signals(output), Signals(output), whole, CLOCK)
    torch.testing.assert_close(told, nn.functional.cross_entropy(output[:4], graph.labels[:4], reduction="none"))


def test_an_inductive_graph_has_no_trace_of_the_hidden_nodes() -> None:
    """Neither the teacher's answers nor the losses may depend on them."""
    graph, kept = ring(), torch.arange(30)
    changed = graph.features.to_dense()
    changed[30:] = 9.0
    other = replace(graph, features=changed.to_sparse_coo().coalesce(), labels=1 - graph.labels)
    other = replace(other, labels=torch.cat([graph.labels[:30], other.labels[30:]]), scaled=other.features)
    seen = [WholeGraph(induced(one, kept), torch.arange(4)).batch(kept) for one in (graph, other)]
    answers = [teacher().observe(batch).output for batch in seen]
    assert torch.equal(*answers)
    assert torch.equal(seen[0].inputs[0], seen[1].inputs[0])
    for batch in seen:
        assert int(batch.common["edges"].max()) < 30
        assert int(batch.common["graph_edges"].max()) < 30
        assert len(batch.common["graph_features"]) == 30
    # The ring is cut open: the answers at its ends are not those that the whole ring gives.
    whole = teacher().observe(WholeGraph(graph, torch.arange(4)).batch(torch.arange(40))).output
    assert not torch.equal(whole[:30], answers[0])


def test_a_step_of_the_method_is_the_specifications_total() -> None:
    """The path of three nodes, labelled at its first: objectives, their means and weights together."""
    assert METHOD.diagnostics == ("fidelity", "graph_frequencies")
    graph = Graph(
        torch.eye(3).to_sparse_coo().coalesce(),
        torch.eye(3).to_sparse_coo().coalesce(),
        torch.zeros(3).long(),
        PATH,
        "p",
    )
    batch = WholeGraph(graph, torch.tensor([0])).batch(torch.arange(3))
    objectives = {name: make() for name, make in METHOD.objectives.items()}
    assert isinstance(objectives["labels"], KnownLabels)
    objectives["labels"]._loss = lambda output, labels: nn.functional.cross_entropy(output, labels, reduction="none")
    terms = {name: one(Signals(Z), Signals(H), batch, CLOCK).mean().item() for name, one in objectives.items()}
    published = {"labels": near(0.551444714), "low": near(0.399285006), "high": near(0.087157969)}
    assert terms == {**published, "decay": 0.0}  # no student has been shown to it
    assert METHOD.weights["decay"] == 5e-4
    assert sum(METHOD.weights[name] * term for name, term in terms.items()) == near(0.512443670)  # type: ignore[operator]


def test_a_loss_over_edges_refuses_a_batch_without_them() -> None:
    batch = Batch((torch.zeros(2, 6),), None, torch.arange(2))
    said = Signals(torch.zeros(2, 2))
    for objective in (LowFrequency(), HighFrequency()):
        with pytest.raises(RecipeError, match="batch without"):
            objective(said, said, batch, CLOCK)
    with pytest.raises(RecipeError, match="known_label"):
        KnownLabels()(said, said, batch, CLOCK)
    with pytest.raises(RecipeError, match="temperature"):
        HighFrequency(temperature=0.0)


def test_a_batch_without_connected_nodes_still_has_a_loss() -> None:
    batch = WholeGraph(ring(), torch.arange(4)).batch(torch.tensor([10, 21]))
    z = torch.randn(2, 2, requires_grad=True)
    assert HighFrequency()(Signals(z), Signals(z), batch, CLOCK).tolist() == [0.0]
    assert LowFrequency()(Signals(z), Signals(z), batch, CLOCK).shape == (2,)
    assert KnownLabels()(Signals(z), Signals(z), batch, CLOCK).tolist() == [0.0]
