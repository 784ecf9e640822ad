"""A machine that is reached by ssh: copy files there, run one command, copy files back.

Programs are started with lists of arguments; the only shell is the remote one that ssh itself starts, and every word
sent to it is quoted. Host keys and passwords are ssh's business: a host that asks for either fails, nothing is accepted
on the user's behalf.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from exporters.errors import ExportError

CONNECT_SECONDS = 15
_HOST = re.compile(r"^(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9_:][A-Za-z0-9_.:%-]*$")
_SCRATCH = re.compile(r"^/[A-Za-z0-9_./-]*compress-[A-Za-z0-9]+$")


@dataclass(frozen=True)
class Machine:
    """A remote machine.

    Attributes:
        host: "host" or "user@host", as ssh takes it; names from ~/.ssh/config work.
        options: further ssh options, each "Name=value", such as "Port=2222".
    """

    host: str
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_host(self.host)

    def command(self, words: Sequence[str]) -> list[str]:
        """Local command line that runs `words` there."""
        return ["ssh", "-T", *self._flags(), "--", self.host, " ".join(shlex.quote(word) for word in words)]

    def run(self, words: Sequence[str], *, seconds: float) -> subprocess.CompletedProcess[str]:
        """Run a command there and wait for it.

        Raises:
            ExportError: ssh cannot connect, or the command exceeds `seconds`.
        """
        done = self._local(self.command(words), seconds, f"{words[0]} on {self.host}")
        if done.returncode == 255:  # ssh's own failures; remote commands of ours do not use this status
            raise ExportError(
                f"ssh cannot reach {self.host}: {_last_line(done.stderr)}",
                fix=f"make `ssh {self.host} true` work without a question (key, known host), then try again",
            )
        return done

    def send(self, files: Sequence[Path], folder: str, *, seconds: float) -> None:
        """Copy local files into a remote folder that exists."""
        self._copy([*[str(path.resolve()) for path in files], f"{self._bracketed()}:{folder}/"], seconds)

    def fetch(self, remote_file: str, local: Path, *, seconds: float) -> None:
        """Copy one remote file here."""
        self._copy([f"{self._bracketed()}:{remote_file}", str(local.resolve())], seconds)

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """A fresh folder there, removed at the end; gives its path."""
        made = self.run(["mktemp", "-d", "-t", "compress-XXXXXXXX"], seconds=60)
        folder = made.stdout.strip()
        if made.returncode != 0 or not _SCRATCH.match(folder) or ".." in folder.split("/"):
            raise ExportError(
                f"{self.host} gave no temporary folder: {_last_line(made.stderr) or folder!r}",
                fix="check that /tmp (or $TMPDIR) can be written there",
            )
        try:
            yield folder
        finally:
            self.run(["rm", "-rf", "--", folder], seconds=120)

    def _flags(self) -> list[str]:
        flags = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}"]
        for option in self.options:
            flags += ["-o", option]
        return flags

    def _bracketed(self) -> str:
        user, at, host = self.host.rpartition("@")
        return f"{user}{at}[{host}]" if ":" in host else self.host

    def _copy(self, words: list[str], seconds: float) -> None:
        done = self._local(["scp", "-q", *self._flags(), "--", *words], seconds, f"copying to or from {self.host}")
        if done.returncode != 0:
            raise ExportError(
                f"copying to or from {self.host} failed: {_last_line(done.stderr)}",
                fix=f"check the space left there, and that `scp` to {self.host} works",
            )

    def _local(self, command: list[str], seconds: float, what: str) -> subprocess.CompletedProcess[str]:
        missing = missing_tools()
        if missing is not None:
            raise ExportError(missing, fix="install openssh-client")
        try:
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ExportError(f"{what} did not end within {seconds:.0f} s", fix="raise the time limit") from error


def check_host(host: str) -> None:
    """Refuse what ssh could take for an option or a shell for a command.

    Raises:
        ExportError: it is not "host" or "user@host".
    """
    if not _HOST.match(host):
        raise ExportError(
            f"{host!r} is not a machine's name", fix="write user@host, host, or a name from ~/.ssh/config"
        )


def missing_tools() -> str | None:
    """None where ssh and scp are installed; else what is missing."""
    absent = [name for name in ("ssh", "scp") if shutil.which(name) is None]
    return f"building on another machine needs {' and '.join(absent)}" if absent else None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no reason given"
