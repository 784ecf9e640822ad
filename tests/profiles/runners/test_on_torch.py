from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import profiles
from profiles.errors import ProfileError
from profiles.measure import Measurement, UnsteadyError
from profiles.runners import WrongDeviceError, gpu, on_torch, processor
from profiles.target import Target

torch = pytest.importorskip("torch")


@pytest.fixture
def anything(monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setattr(processor, "features", lambda *_: frozenset())
    return profiles.target("x86")


@pytest.fixture(scope="module")
def program() -> Any:
    class Doubled(torch.nn.Module):
        def forward(self, x: Any, shift: Any) -> tuple[Any, Any]:
            return 2 * x + shift, x.sum(dim=1)

    batch = torch.export.Dim("batch", min=1, max=64)
    example = (torch.zeros(4, 3), torch.zeros(3))
    return torch.export.export(Doubled(), example, dynamic_shapes=({0: batch}, None))


def steady(measure: Any) -> Measurement | None:
    """What was measured; None on a machine that is too busy."""
    try:
        found: Measurement = measure()
    except UnsteadyError:
        return None
    return found


def test_a_program_runs_by_name(program: Any) -> None:
    loaded = on_torch.load(program)
    assert [(spec.name, spec.shape, spec.dtype) for spec in loaded.inputs] == [
        ("x", (None, 3), np.float32),
        ("shift", (3,), np.float32),
    ]
    x = np.array([[1.0, 2.0, 3.0]], np.float32)
    first, second = loaded.run({"shift": np.ones(3, np.float32), "x": x}).values()
    assert first.tolist() == [[3.0, 5.0, 7.0]]
    assert second.tolist() == [6.0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"z": np.zeros((1, 3), np.float32)}, "inputs are x, shift"),
        ({"x": np.zeros((1, 4), np.float32), "shift": np.zeros(3, np.float32)}, "does not take these inputs"),
    ],
)
def test_wrong_inputs_are_refused(program: Any, given: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(ProfileError, match=said):
        on_torch.load(program).run(given)


def test_a_file_is_refused_before_it_is_read(program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.pt2"
    torch.export.save(program, path)
    monkeypatch.setattr(torch.export, "load", lambda *_, **__: pytest.fail("the file was opened"))
    for call in (on_torch.load, on_torch.measure):
        with pytest.raises(ProfileError, match="runs the code in them"):
            call(path)


def test_a_program_is_measured_at_the_batch_that_was_asked_for(program: Any, anything: Target) -> None:
    threads = torch.get_num_threads()
    found = steady(lambda: on_torch.measure(program, anything, batch=8, seconds=0.05))
    assert torch.get_num_threads() == threads
    if found is not None:
        assert (found.batch, found.threads) == (8, 1)
        assert "eager" in found.runtime
    with pytest.raises(ProfileError, match="does not take these inputs"):
        on_torch.measure(program, anything, batch=65, seconds=0.05)


def test_a_module_is_left_as_it_was(anything: Target) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout())
    module.train()
    found = steady(lambda: on_torch.measure_module(module, torch.randn(2, 4), anything, seconds=0.05))
    assert module.training
    assert next(module.parameters()).grad is None
    assert found is None or found.batch == 2


def test_a_gpu_that_is_not_the_targets(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WrongDeviceError, match="compute capability"):
        on_torch.measure(program, profiles.target("a100"))
    if torch.cuda.is_available():
        return
    monkeypatch.setattr(gpu, "misfit", lambda target: None)
    with pytest.raises(ProfileError, match="no GPU to run on"):
        on_torch.measure(program, profiles.target("a100"))


def test_another_processor_is_refused(program: Any) -> None:
    target = profiles.target("x86")
    other = replace(target, hardware=replace(target.hardware, core="x86-64 with AVX2, without AVX2"))
    if processor.misfit(other) is None:
        pytest.skip("this system does not tell its processor's features")
    with pytest.raises(WrongDeviceError):
        on_torch.measure(program, other)
