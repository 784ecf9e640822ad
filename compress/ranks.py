"""The processes that torchrun started: the first one owns the run's folder, all of them train."""

import atexit
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from compress.errors import RunError
from compress.records import Record, read_record
from compress.store import Store, open_store

TOGETHER = frozenset({"distill", "quantize"})
"""Stages whose work all processes do; the others are the first one's alone."""


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is."""

    rank: int = 0
    processes: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process owns the folder and speaks."""
        return self.rank == 0


class Leader(Store):
    """The first process's folder: it tells the others when a stage has work, and when the work is on disk."""

    def once(
        self,
        stage: str,
        inputs: Mapping[str, str],
        work: Callable[[Path], tuple[Mapping[str, Path], Mapping[str, Any]]],
    ) -> Record:
        """As `Store.once`; stages of `TOGETHER` start in all processes at the same time."""
        begun = False

        def announced(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
            nonlocal begun
            begun = True
            _tell(stage in TOGETHER)
            return work(folder)

        record = super().once(stage, inputs, announced)
        if not begun:
            _tell(False)
        _tell(True)  # the record is on disk
        return record


class Follower(Store):
    """Another process's view: it reads what the first one wrote, and joins in where all train."""

    def once(
        self,
        stage: str,
        inputs: Mapping[str, str],
        work: Callable[[Path], tuple[Mapping[str, Path], Mapping[str, Any]]],
    ) -> Record:
        """Join the work where there is some, then wait for the first process's record."""
        if _hear():
            work(self.path(stage))  # writes the same bytes as the first process does, whole or not at all
        _hear()
        record = read_record(self.path(stage))
        if record is None:
            raise RunError(f"the first process left no record of {stage}", fix="give the same command again")
        return record


def join() -> Ranks:
    """Join the other processes, where torchrun started several."""
    if not dist.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        return Ranks()
    leave_at_exit()
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return Ranks(dist.get_rank(), dist.get_world_size())


@cache
def leave_at_exit() -> None:
    """Close the process group before the interpreter goes: gloo's threads abort a process that leaves them running."""
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def open_folder(ranks: Ranks, folder: Path, redo: frozenset[str]) -> AbstractContextManager[Store]:
    """The run's folder as this process may use it. Only the first one locks it."""
    if ranks.processes == 1:
        return open_store(folder, redo)
    if ranks.leads:
        return open_store(folder, redo, Leader)
    return nullcontext(Follower(folder, redo))


def _tell(what: bool) -> None:
    dist.broadcast(torch.tensor([int(what)]), 0)


def _hear() -> bool:
    told = torch.zeros(1, dtype=torch.int64)
    dist.broadcast(told, 0)
    return bool(told.item())
