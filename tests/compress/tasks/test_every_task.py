"""What holds for every file of the folder, with no edit here for a new one."""

import pytest
import torch

from compress import catalog
from compress.contracts.batch import Batch
from compress.contracts.task import Task
from compress.errors import TaskError
from compress.network import Model
from compress.teachers import minilm

NAMES = catalog.names("compress.tasks")


@pytest.fixture(params=NAMES)
def task(request: pytest.FixtureRequest) -> Task:
    found = catalog.load("compress.tasks", request.param).TASK
    assert isinstance(found, Task)
    if found.kind == "embedding":
        pytest.importorskip(minilm.PACKAGE, reason="its teacher comes with compress[text]")
    assert found.name == request.param
    return found


def batch(task: Task, size: int) -> Batch:
    generator = torch.Generator().manual_seed(3)
    inputs = tuple(
        torch.randint(one.values, (size, *one.shape), generator=generator)
        if one.values
        else torch.rand(size, *one.shape, generator=generator)
        for one in task.inputs
    )
    positions = task.input_shape[1:] if task.kind == "segmentation" else ()
    labels = torch.zeros(size, *positions, dtype=torch.int64)
    if task.kind == "regression":
        labels = torch.rand(size, len(task.labels), generator=generator)
    return Batch(inputs, labels, torch.arange(size))


def test_names_its_labels_once_each(task: Task) -> None:
    assert len(set(task.labels)) == len(task.labels) > 1


def reference(task: Task) -> Model:
    """Its teacher, untrained, with its preprocessing."""
    if task.privileged:
        pytest.skip(f"its teacher also takes {', '.join(task.privileged)}: the task's own test asks it")
    return Model(task.frontend(), task.teacher()).eval()


def test_the_teacher_takes_what_the_front_end_gives(task: Task) -> None:
    model = reference(task)
    output = model(*batch(task, 3).inputs)
    positions = task.input_shape[1:] if task.kind == "segmentation" else ()
    assert output.shape == (3, len(task.labels), *positions)
    assert torch.isfinite(output).all()
    if task.kind == "embedding":
        with pytest.raises(TaskError, match="no labels to learn from"):
            task.loss(output, batch(task, 3).labels)
    else:
        assert task.loss(output, batch(task, 3).labels).shape == (3,)


def test_examples_do_not_depend_on_their_batch(task: Task) -> None:
    model = reference(task)
    inputs = batch(task, 4).inputs
    alone = [tensor[2:3] for tensor in inputs]
    with torch.no_grad():
        # float32 sums in another order
        torch.testing.assert_close(model(*inputs)[2:3], model(*alone), atol=1e-4, rtol=1e-4)


def test_the_front_end_has_nothing_to_train_or_save(task: Task) -> None:
    assert not list(task.frontend().parameters())
    assert not task.frontend().state_dict()
    assert task.preprocessing


def test_augmentation_keeps_shape_range_and_labels_and_follows_its_generator(task: Task) -> None:
    if not task.augments:
        pytest.skip("the task does not augment")
    before = batch(task, 16)

    def changed(seed: int) -> Batch:
        return task.augment(before, torch.Generator().manual_seed(seed))

    after = changed(1)
    assert after.inputs[0].shape == before.inputs[0].shape
    assert after.inputs[0].dtype == torch.float32
    assert after.inputs[0].abs().max() <= 1.0
    assert torch.equal(after.index, before.index)
    assert torch.equal(after.inputs[0], changed(1).inputs[0])
    assert not torch.equal(after.inputs[0], changed(2).inputs[0])
    assert torch.equal(before.inputs[0], batch(task, 16).inputs[0])  # not in place
