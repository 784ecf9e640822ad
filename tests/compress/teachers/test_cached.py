"""Answers that are computed once."""

import json
import multiprocessing
import os
import time
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.examples import TensorExamples
from compress.contracts.signals import Signals
from compress.contracts.teacher import Teacher
from compress.errors import RunError, TeacherError
from compress.teachers.cached import CHUNK, CachedTeacher
from compress.teachers.ema import EMATeacher
from tests.forked import forked

COUNT = CHUNK + 44  # more than one chunk, the last one short


class Counting(Teacher):
    """Says twice its input, and counts how often it is asked."""

    def __init__(self, name: str = "one", factor: float = 2.0, calls: Path | None = None) -> None:
        self._name = name
        self._factor = factor
        self._calls = calls
        self.asked = 0

    @property
    def cacheable(self) -> bool:
        return True

    @property
    def fingerprint(self) -> str:
        return self._name

    def observe(self, batch: Batch) -> Signals:
        self.asked += 1
        if self._calls is not None:
            with open(self._calls, "a") as handle:
                handle.write(f"{os.getpid()}\n")
            time.sleep(0.2)  # long enough for another process to look for what is not there yet
        (x,) = batch.inputs
        return Signals(x * self._factor, {"box": x[:, :1] + 1}, {"layer": -x})


def examples(digest: str = "data", count: int = COUNT) -> TensorExamples:
    return TensorExamples(torch.arange(count * 3.0).view(count, 3), torch.zeros(count, dtype=torch.int64), digest)


def of_train(index: Tensor) -> Batch:
    return replace(examples().batch(index), stream="train")


def shuffled(count: int = 20) -> Tensor:
    return torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))[:count]


def test_answers_every_position_as_the_teacher_did(tmp_path: Path) -> None:
    inner = Counting()
    cached = CachedTeacher(inner, examples(), "train", tmp_path)
    asked = inner.asked
    for index in (torch.arange(COUNT), shuffled(), torch.tensor([5, 5, COUNT - 1])):
        batch = of_train(index)
        torch.testing.assert_close(cached.observe(batch).output, batch.inputs[0] * 2, rtol=0, atol=0)
        torch.testing.assert_close(cached.observe(batch).others["box"], batch.inputs[0][:, :1] + 1, rtol=0, atol=0)
    assert inner.asked == asked == 2  # chunks


@pytest.mark.parametrize("stream", ["", "val"])
def test_other_streams_and_augmented_batches_are_answered_by_the_teacher(tmp_path: Path, stream: str) -> None:
    inner = Counting()
    cached = CachedTeacher(inner, examples(), "train", tmp_path)
    batch = Batch((torch.full((1, 3), 7.0),), None, torch.tensor([0]), stream=stream)  # not what position 0 holds
    torch.testing.assert_close(cached.observe(batch).output, torch.full((1, 3), 14.0))
    assert inner.asked == 3  # two chunks and this one


def test_a_second_run_asks_nothing(tmp_path: Path) -> None:
    CachedTeacher(Counting(), examples(), "train", tmp_path)
    again = Counting()
    cached = CachedTeacher(again, examples(), "train", tmp_path)
    assert again.asked == 0
    batch = of_train(shuffled())
    torch.testing.assert_close(cached.observe(batch).output, batch.inputs[0] * 2)


def test_taps_are_kept_only_if_asked_for(tmp_path: Path) -> None:
    batch = of_train(shuffled())
    assert not CachedTeacher(Counting(), examples(), "train", tmp_path).observe(batch).taps
    with_taps = CachedTeacher(Counting(), examples(), "train", tmp_path, taps=True).observe(batch)
    torch.testing.assert_close(with_taps.taps["layer"], -batch.inputs[0])


@pytest.mark.parametrize(("name", "digest"), [("two", "data"), ("one", "other")])
def test_another_teacher_or_other_data_never_get_these_answers(tmp_path: Path, name: str, digest: str) -> None:
    CachedTeacher(Counting(), examples(), "train", tmp_path)
    other = Counting(name, factor=3.0)
    cached = CachedTeacher(other, examples(digest), "train", tmp_path)
    assert other.asked == 2
    batch = of_train(shuffled())
    torch.testing.assert_close(cached.observe(batch).output, batch.inputs[0] * 3)


def _arrays(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.npy"))


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "index", "foreign", "leftover"])
def test_a_damaged_cache_is_computed_again(tmp_path: Path, damage: str) -> None:
    CachedTeacher(Counting(), examples(), "train", tmp_path)
    array = _arrays(tmp_path)[0]
    index = next(tmp_path.rglob("answers.json"))
    if damage == "truncate":
        array.write_bytes(array.read_bytes()[:-7])
    elif damage == "flip":
        content = bytearray(array.read_bytes())
        content[-1] ^= 0x40
        array.write_bytes(content)
    elif damage == "remove":
        array.unlink()
    elif damage == "index":
        index.write_text(index.read_text()[:-20])
    elif damage == "foreign":
        content = json.loads(index.read_text())
        content["key"]["teacher"] = "someone else"
        index.write_text(json.dumps(content))
    else:
        index.unlink()  # as if killed before the end
        array.with_name(f".{array.name}.part-1").write_bytes(b"x")
    again = Counting()
    cached = CachedTeacher(again, examples(), "train", tmp_path)
    assert again.asked == 2
    batch = of_train(torch.arange(COUNT))
    torch.testing.assert_close(cached.observe(batch).output, batch.inputs[0] * 2, rtol=0, atol=0)
    assert not list(tmp_path.rglob(".*part-*"))


def test_an_answer_that_is_not_finite_is_placed_and_not_kept(tmp_path: Path) -> None:
    made = examples()
    made.inputs[CHUNK + 3, 0] = float("nan")
    with pytest.raises(TeacherError, match=f"output for the example at position {CHUNK + 3} of 'train' is NaN"):
        CachedTeacher(Counting(), made, "train", tmp_path)
    assert not list(tmp_path.rglob("answers.json"))


def test_positions_outside_the_stream_are_refused(tmp_path: Path) -> None:
    cached = CachedTeacher(Counting(), examples(), "train", tmp_path)
    for wrong in (COUNT, -1):
        with pytest.raises(IndexError, match="stream 'train'"):
            cached.observe(Batch((torch.zeros(1, 3),), None, torch.tensor([wrong]), stream="train"))


def test_a_teacher_that_changes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be cached"):
        CachedTeacher(EMATeacher(nn.Linear(3, 3), decay=0.9), examples(), "train", tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be kept in"):
        CachedTeacher(Counting(), examples(), "train", tmp_path / "file")


def test_what_is_read_may_be_changed_without_changing_the_cache(tmp_path: Path) -> None:
    cached = CachedTeacher(Counting(), examples(), "train", tmp_path)
    batch = of_train(torch.arange(4))
    cached.observe(batch).output.fill_(0.0)
    torch.testing.assert_close(cached.observe(batch).output, batch.inputs[0] * 2)


def _rank(folder: Path, calls: Path, answers: "multiprocessing.Queue[list[float]]", together: Barrier) -> None:
    together.wait(60)
    cached = CachedTeacher(Counting(calls=calls), examples(), "train", folder)
    answers.put(cached.observe(of_train(torch.tensor([7]))).output[0].tolist())


def test_of_several_processes_one_computes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    answers: multiprocessing.Queue[list[float]] = context.Queue()
    together = context.Barrier(2)
    ranks = [forked(_rank, tmp_path / "cache", tmp_path / "calls", answers, together) for _ in range(2)]
    said = [answers.get(timeout=120) for _ in ranks]
    for rank in ranks:
        rank.join(timeout=60)
    assert said == [[42.0, 44.0, 46.0]] * 2
    asking = (tmp_path / "calls").read_text().split()
    assert len(asking) == 2  # chunks
    assert len(set(asking)) == 1


def test_files_are_plain_arrays(tmp_path: Path) -> None:
    CachedTeacher(Counting(), examples(), "train", tmp_path)
    shapes = {np.load(path, allow_pickle=False).shape for path in _arrays(tmp_path)}
    assert shapes == {(COUNT, 3), (COUNT, 1)}
