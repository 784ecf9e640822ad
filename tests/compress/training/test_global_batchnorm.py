"""Two real processes train what one does."""

import json
import socket
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from compress.qat.prepare import prepare
from compress.training.global_batchnorm import GlobalBatchNorm, global_batchnorm
from tests.forked import forked, run_script

SCRIPT = """
import importlib.util, json, os, sys
from dataclasses import asdict, replace
spec = importlib.util.spec_from_file_location("toy", {toy!r})
toy = importlib.util.module_from_spec(spec); sys.modules["toy"] = toy; spec.loader.exec_module(toy)
import torch
from compress.methods.vanilla_kd import METHOD
from compress.objectives.labels import Labels
from compress.objectives.soft_targets import SoftTargets
from compress.training.fit import fit
from compress.training.global_batchnorm import GlobalBatchNorm
from compress.qat.prepare import calibrate, prepare
answers = []
examples = toy.splits(train=99).train.batch(torch.arange(99)).inputs
fake = prepare(toy.network(8).eval(), (examples[0][:2],), "tensorrt")
calibrate(fake, [examples])
for module in [*fake.activations(), *fake.weights()]:
    module.disable_observer()  # observed ranges are each process's own: with them fixed, only batch norm sees others
fit(
    method=METHOD, students={{"student": fake}}, teachers={{"teacher": toy.teacher()}},
    objectives={{"soft_targets": SoftTargets(2.0), "labels": Labels()}}, weights={{}}, splits=toy.splits(train=99),
    task=toy.ToyTask(), numbers=replace(toy.NUMBERS, epochs=2, learning_rate=2e-3), seed=3, precision="fp32",
    before_step=lambda clock: fake.freeze_batchnorm(clock.progress >= 0.5),
)
assert any(node.target is torch.ops.aten.batch_norm.default for node in fake.graph.graph.nodes)
norms = {{name: value.tolist() for name, value in fake.state_dict().items() if "running" in name}}
for task in (toy.NoisyTask(), toy.ToyTask()):  # batches that are cut after and before the strategy saw them
    student = toy.network(8)
    outcome = fit(
        method=METHOD, students={{"student": student}}, teachers={{"teacher": toy.teacher()}},
        objectives={{"soft_targets": SoftTargets(2.0), "labels": Labels()}}, weights={{}}, splits=toy.splits(train=99),
        task=task, numbers=replace(toy.NUMBERS, epochs=3, learning_rate=2e-3), seed=3, precision="fp32",
    )
    assert not any(isinstance(module, GlobalBatchNorm) for module in student.modules())
    weights = {{name: value.tolist() for name, value in student.state_dict().items()}}
    points = [{{"loss": p.loss, "validation": p.validation, **p.terms}} for p in outcome.curve]
    answers.append({{"curve": points, "weights": weights}})
sys.path.insert(0, {here!r})
from wide_terms import gradients, trained
wide = trained(toy)
if int(os.environ.get("RANK", "0")) == 0:  # the process group is open: training alone must not wait for the others
    student = toy.network(8)
    alone = fit(
        method=METHOD, students={{"student": student}}, teachers={{"teacher": toy.teacher()}},
        objectives={{"soft_targets": SoftTargets(2.0), "labels": Labels()}}, weights={{}}, splits=toy.splits(train=99),
        task=toy.ToyTask(), numbers=replace(toy.NUMBERS, epochs=1), seed=3, precision="fp32", together=False,
    )
exact = gradients()
if int(os.environ.get("RANK", "0")) == 0:
    print(json.dumps([*answers, {{"norms": norms, "wide": wide, "gradients": exact}}]))
"""


def train(tmp_path: Path, toy: ModuleType, count: int) -> list[dict[str, Any]]:
    """In that many processes, with what torchrun would tell them; what the first one says."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(toy=toy.__file__, here=str(Path(__file__).parent)))
    group = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "TORCHELASTIC_RUN_ID": "tests"}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    said, processes = [], []
    for rank in range(count):
        said.append(tmp_path / f"rank {rank} of {count}")
        environment = {**group, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}
        processes.append(forked(run_script, script, environment=environment, said=said[-1]))
    for process, words in zip(processes, said, strict=True):
        process.join(200)
        assert process.exitcode == 0, words.read_text()
    lines = said[0].read_text().splitlines()
    answer: list[dict[str, Any]] = json.loads(next(line for line in lines if line.startswith("[{")))
    return answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def both_see_the_whole_batch(together: dict[str, Any], alone: dict[str, Any]) -> None:
    """Terms over a batch: the same values and gradients from two parts of it, in float64."""
    EXACT = 1e-12
    assert together["gradients"].keys() == alone["gradients"].keys()
    for name, expected in alone["gradients"].items():
        found = together["gradients"][name]
        assert found["loss"] == pytest.approx(expected["loss"], rel=EXACT, abs=EXACT), name
        assert max(map(abs, expected["gradient"])) > 1e-6, name
        assert found["gradient"] == pytest.approx(expected["gradient"], rel=EXACT, abs=EXACT), name
    found, expected = together["wide"], alone["wide"]
    assert found["learned"] == expected["learned"]  # both processes were told of all examples
    for ours, theirs in zip(found["curve"], expected["curve"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)  # three steps of Adam on sums that are rounded differently


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this torch was built without gloo")
def test_two_processes_follow_the_curve_of_one(toy: ModuleType, tmp_path: Path) -> None:
    alone, together = train(tmp_path, toy, 1), train(tmp_path, toy, 2)
    # Sums over a batch are rounded differently when they are taken in two halves: 2^-24 relative each, growing over
    # the 12 steps through Adam's division by small second moments.
    ROUNDING = 1e-5
    others = [answer.pop() for answer in (together, alone)]
    norms = [other["norms"] for other in others]
    both_see_the_whole_batch(*others)
    assert norms[0].keys() == norms[1].keys() != set()
    for name, value in norms[1].items():  # a code that rounds the other way moves a mean a little
        torch.testing.assert_close(torch.tensor(norms[0][name]), torch.tensor(value), rtol=5e-3, atol=2e-3)
    for two, one in zip(together, alone, strict=True):
        for ours, theirs in zip(two["curve"], one["curve"], strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=ROUNDING)
            assert ours["soft_targets"] == pytest.approx(theirs["soft_targets"], rel=ROUNDING, abs=ROUNDING)
        for name, value in one["weights"].items():
            torch.testing.assert_close(
                torch.tensor(two["weights"][name]),
                torch.tensor(value),
                rtol=1e-3,
                atol=1e-4,  # one Adam step is 2e-3 long; what rounding does to its direction is a small part of that
            )


@pytest.fixture
def _one_process(tmp_path: Path) -> object:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5), (6, 3, 4, 4)])
def test_equals_torchs_own_batch_norm(shape: tuple[int, ...]) -> None:
    kinds = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}
    own, twin = kinds[len(shape)](3), kinds[len(shape)](3)
    with torch.no_grad():
        own.weight.copy_(torch.tensor([1.0, 2.0, -1.0]))
        twin.weight.copy_(own.weight)
    whole = GlobalBatchNorm(twin)
    values = torch.randn(shape) * 3 + 100  # a mean that E[x^2] - mean^2 would not survive
    inputs = [values.clone().requires_grad_() for _ in range(2)]
    results = [own(inputs[0]), whole(inputs[1])]
    weights = torch.randn(shape)
    for result in results:
        (result * weights).sum().backward()
    ROUNDING = 1e-4  # 2^-24 of a value of 100, divided by a standard deviation of 3, over up to 96 terms
    torch.testing.assert_close(results[1], results[0], rtol=ROUNDING, atol=ROUNDING)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=ROUNDING, atol=ROUNDING)
    torch.testing.assert_close(twin.weight.grad, own.weight.grad, rtol=ROUNDING, atol=10 * ROUNDING)
    torch.testing.assert_close(twin.running_var, own.running_var, rtol=ROUNDING, atol=ROUNDING)
    assert twin.num_batches_tracked == 1
    own.eval(), whole.eval()
    torch.testing.assert_close(whole(values), own(values))


@pytest.mark.usefixtures("_one_process")
def test_gradients_of_gradients_flow() -> None:
    whole = GlobalBatchNorm(nn.BatchNorm1d(2).double())
    values = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    exact = nn.BatchNorm1d(2).double()

    def penalty(layer: nn.Module) -> torch.Tensor:
        (slope,) = torch.autograd.grad(layer(values).pow(3).sum(), values, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), values)[0]

    # Statistics are float32 in both directions of the one, float64 in the other.
    torch.testing.assert_close(penalty(whole), penalty(exact), rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("_one_process")
def test_an_exported_graph_computes_the_same_inside_and_is_put_back() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, momentum=0.3), nn.ReLU())
    values = torch.randn(4, 1, 6, 6)
    whole, own = (prepare(net, (values[:2],), "tensorrt", float_modules=("0", "1", "2")) for _ in range(2))
    with global_batchnorm([whole]):
        assert not any(node.target is torch.ops.aten.batch_norm.default for node in whole.graph.graph.nodes)
        results = []
        for frozen in (False, True):
            for model in (whole.train(), own.train()):
                model.freeze_batchnorm(frozen)
                results.append(model(values))
        for model in (whole.eval(), own.eval()):
            results.append(model(values))
    assert any(node.target is torch.ops.aten.batch_norm.default for node in whole.graph.graph.nodes)
    for ours, theirs in zip(results[::2], results[1::2], strict=True):
        torch.testing.assert_close(ours, theirs)
    for name, value in own.state_dict().items():
        torch.testing.assert_close(whole.state_dict()[name], value)
    assert not torch.equal(results[0], results[4])


def test_modules_are_put_back_with_their_statistics() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.BatchNorm2d(2)))
    inner, names = net[1][0], list(net.state_dict())
    with global_batchnorm([net]):
        assert isinstance(net[1][0], GlobalBatchNorm)
        assert list(net.state_dict()) == names
        assert net[1][0].weight is inner.weight
        net[1][0].running_mean.fill_(3.0)
    assert net[1][0] is inner
    assert torch.equal(inner.running_mean, torch.full((2,), 3.0))
