"""The example of a user's own task, outside the package."""

from pathlib import Path

import pytest
import torch
from torch import nn

from compress.contracts.task import Task
from compress.network import Model
from compress.teachers.fingerprints import of_module
from compress.teachers.loading import load_network
from compress.user_file import load_user_file

FOLDER = Path(__file__).parents[3] / "docs" / "examples" / "own_task"


@pytest.fixture(scope="module")
def task() -> Task:
    found = load_user_file(FOLDER / "task.py", "TASK")
    assert isinstance(found, Task)
    return found


def test_loads_by_its_path_with_the_same_data_every_time(task: Task) -> None:
    splits = task.load(None)
    assert [len(splits.train), len(splits.val), len(splits.test)] == [2000, 400, 800]
    assert task.load(None).test.fingerprint() == splits.test.fingerprint()


def test_its_front_end_centres_the_pixels(task: Task) -> None:
    features = task.frontend()(task.load(None).train.batch(torch.arange(2000)).inputs[0])
    assert abs(features.mean().item()) < 0.05
    assert abs(features.std().item() - 1.0) < 0.05


def test_its_teacher_file_builds_the_network_that_the_task_trains(task: Task) -> None:
    torch.manual_seed(0)
    by_file = load_network(FOLDER / "teacher.py", None)
    torch.manual_seed(0)
    by_task = task.teacher()
    assert isinstance(by_task, nn.Module)
    assert of_module(by_file) == of_module(by_task)
    batch = task.load(None).val.batch(torch.arange(3))
    assert Model(task.frontend(), by_file)(*batch.inputs).shape == (3, len(task.labels))
