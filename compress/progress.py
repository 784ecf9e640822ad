"""What a person sees while a run works, on stderr: bars on a terminal, plain lines elsewhere, nothing when quiet."""

import importlib.util
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol


class Bar(Protocol):
    """One piece of work whose length is known."""

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """`amount` more of the total is done; `note` is shown beside it."""
        ...


class Progress(Protocol):
    """Where stages report to."""

    def say(self, text: str) -> None:
        """One line that stays."""
        ...

    def bar(self, title: str, total: float) -> AbstractContextManager[Bar]:
        """Work of length `total`."""
        ...


@dataclass(frozen=True)
class Quiet:
    """Says nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    @contextmanager
    def bar(self, title: str, total: float) -> Iterator[Bar]:
        """A bar that shows nothing."""
        yield _SilentBar()


class _SilentBar:
    def advance(self, amount: float = 1.0, note: str = "") -> None:
        return


class Lines:
    """Plain lines with the time since the start; a bar prints at every tenth, with what is left."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        """One line."""
        print(f"[{time.monotonic() - self._start:7.1f} s] {text}", file=sys.stderr, flush=True)

    @contextmanager
    def bar(self, title: str, total: float) -> Iterator[Bar]:
        """A line at each tenth of the work."""
        yield _LineBar(self, title, total)


class _LineBar:
    def __init__(self, lines: Lines, title: str, total: float) -> None:
        self._lines, self._title, self._total = lines, title, max(total, 1e-9)
        self._done, self._shown, self._start = 0.0, 0, time.monotonic()

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        self._done += amount
        tenth = min(10, int(10 * self._done / self._total + 1e-6))
        if tenth > self._shown:
            self._shown = tenth
            passed = time.monotonic() - self._start
            left = passed * max(0.0, self._total - self._done) / max(self._done, 1e-9)
            tail = f", {left:.0f} s left" if tenth < 10 else ""
            self._lines.say(f"{self._title} {10 * tenth} %{' ' + note if note else ''}{tail}")


class Terminal:
    """Bars with the time that is left, by rich."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False)

    @contextmanager
    def bar(self, title: str, total: float) -> Iterator[Bar]:
        """A bar with the estimated time left; it disappears when the work is done."""
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            yield _RichBar(progress, progress.add_task(title, total=total, note=""))


class _RichBar:
    def __init__(self, progress: object, task: object) -> None:
        self._progress, self._task = progress, task

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        self._progress.update(self._task, advance=amount, note=note)  # type: ignore[attr-defined]


def choose(quiet: bool) -> Progress:
    """Bars where stderr is a terminal, lines elsewhere, nothing when quiet."""
    if quiet:
        return Quiet()
    pretty = sys.stderr.isatty() and importlib.util.find_spec("rich") is not None  # a device may lack it
    return Terminal() if pretty else Lines()
