"""A machine that is reached by ssh, for exporters: as `profiles.ssh`, with errors of exporting."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from exporters.errors import ExportError
from profiles import ssh
from profiles.errors import ProfileError


@dataclass(frozen=True)
class Machine:
    """A remote machine; see `profiles.ssh.Machine`.

    Attributes:
        python: the Python to use there: a name that its PATH finds, or an absolute path.

    Raises:
        ExportError: `host` is not "host" or "user@host"; and in every method, where `profiles.ssh` refuses.
    """

    host: str
    options: tuple[str, ...] = ()
    python: str = "python3"

    def __post_init__(self) -> None:
        with _as_export_errors():
            ssh.check_host(self.host)
        if not self.python or self.python.startswith(("-", "~")) or not self.python.isprintable():
            raise ExportError(
                f"{self.python!r} is not a Python on {self.host}",
                fix="name one that its PATH finds, such as python3.8, or an absolute path",
            )

    def run(
        self, words: Sequence[str], *, seconds: float, told: Callable[[str], None] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there and wait for it; `told` gets each line of its standard error as it comes."""
        with _as_export_errors():
            return self._there().run(words, seconds=seconds, told=told)

    def send(self, files: Sequence[Path], folder: str, *, seconds: float) -> None:
        """Copy local files into a remote folder that exists."""
        with _as_export_errors():
            self._there().send(files, folder, seconds=seconds)

    def fetch(self, remote_file: str, local: Path, *, seconds: float) -> None:
        """Copy one remote file here."""
        with _as_export_errors():
            self._there().fetch(remote_file, local, seconds=seconds)

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """A fresh folder there, removed at the end; gives its path."""
        with _as_export_errors(), self._there().scratch() as folder:
            yield folder

    def _there(self) -> ssh.Machine:
        return ssh.Machine(self.host, self.options)


def machine_of(remote: "str | Machine") -> Machine:
    """The machine that a user named."""
    return remote if isinstance(remote, Machine) else Machine(remote)


def missing_tools() -> str | None:
    """None where ssh and scp are installed; else what is missing."""
    return ssh.missing_tools()


@contextmanager
def _as_export_errors() -> Iterator[None]:
    try:
        yield
    except ProfileError as error:
        raise ExportError(error.what, fix=error.fix) from error
