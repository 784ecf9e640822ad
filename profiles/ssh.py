"""A machine that is reached by ssh: copy files there, run a command, copy files back.

Programs are started with lists of arguments; the only shell is the remote one that ssh itself starts, and every word
sent to it is quoted. Host keys and passwords are ssh's business: a host that asks for either fails, nothing is accepted
on the user's behalf.
"""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from profiles.errors import ProfileError

CONNECT_SECONDS = 15
SILENT_SECONDS, SILENCES = 5, 4  # a network that says nothing for their product is lost
LOOK_SECONDS = 0.5  # between looks at what a command says
SAID_BYTES = 1 << 20  # of a command's output that is kept
_HOST = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9_:][A-Za-z0-9_.:%-]*")
_SCRATCH = re.compile(r"/[A-Za-z0-9_./-]*compress-[A-Za-z0-9]+")


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

    def run(
        self,
        words: Sequence[str],
        *,
        seconds: float,
        stays_with_us: bool = False,
        told: Callable[[str], None] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there and wait for it.

        Args:
            stays_with_us: the command's standard input stays open as long as this process and the connection live, so
                that it can end itself when it finds the end of it. Else it is empty from the beginning.
            told: gets each line of its standard error as it comes; None waits for the end.

        Raises:
            ProfileError: ssh cannot connect, the connection is lost, or the command exceeds `seconds`.
        """
        done = self._local(self.command(words), seconds, f"{words[0]} on {self.host}", stays_with_us, told)
        if done.returncode < 0:  # ssh itself was ended from outside
            raise ProfileError(f"ssh to {self.host} was ended by signal {-done.returncode}", fix="try again")
        if done.returncode == 255 and stays_with_us:
            raise ProfileError(
                f"the connection to {self.host} was lost: {last_line(done.stderr)}", fix="check the network; try again"
            )
        if done.returncode == 255:  # ssh's own failures; remote commands of ours do not use this status
            raise ProfileError(
                f"ssh cannot reach {self.host}: {last_line(done.stderr)}",
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
        if made.returncode != 0 or not _SCRATCH.fullmatch(folder) or ".." in folder.split("/"):
            raise ProfileError(
                f"{self.host} gave no temporary folder: {last_line(made.stderr) or folder!r}",
                fix="check that /tmp (or $TMPDIR) can be written there",
            )
        try:
            yield folder
        except BaseException:
            with suppress(ProfileError):  # what went wrong first is what the user should read
                self._remove(folder)
            raise
        self._remove(folder)

    def _remove(self, folder: str) -> None:
        self.run(["rm", "-rf", "--", folder], seconds=60)

    def _flags(self) -> list[str]:
        flags = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}"]
        for option in (
            *self.options,  # ssh takes the first value that it is given
            f"ServerAliveInterval={SILENT_SECONDS}",
            f"ServerAliveCountMax={SILENCES}",
        ):
            flags += ["-o", option]
        return flags

    def _bracketed(self) -> str:
        user, at, host = self.host.rpartition("@")
        return f"{user}{at}[{host}]" if ":" in host else self.host

    def _copy(self, words: list[str], seconds: float) -> None:
        done = self._local(["scp", "-q", *self._flags(), "--", *words], seconds, f"copying to or from {self.host}")
        if done.returncode != 0:
            raise ProfileError(
                f"copying to or from {self.host} failed: {last_line(done.stderr)}",
                fix=f"check the space left there, and that `scp` to {self.host} works",
            )

    def _local(
        self,
        command: list[str],
        seconds: float,
        what: str,
        input_stays_open: bool = False,
        told: Callable[[str], None] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        missing = missing_tools()
        if missing is not None:
            raise ProfileError(missing, fix="install openssh-client")
        source = subprocess.PIPE if input_stays_open else subprocess.DEVNULL
        with (
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(command, stdin=source, stdout=output, stderr=errors) as process,
        ):
            try:
                status = process.wait(seconds) if told is None else _wait(process, seconds, Lines(errors, told))
            except subprocess.TimeoutExpired as error:
                raise ProfileError(f"{what} did not end within {seconds:.0f} s", fix="raise the time limit") from error
            finally:  # an interrupt from the keyboard, too
                if process.poll() is None:
                    process.kill()
            return subprocess.CompletedProcess(command, status, _end_of(output), _end_of(errors))


class Lines:
    """Hands on what another process writes into a file, whole lines at a time."""

    def __init__(self, file: IO[bytes], told: Callable[[str], None]) -> None:
        self._descriptor, self._told = file.fileno(), told
        self._position, self._rest = 0, b""

    def look(self) -> None:
        """Hand on the lines that have become whole since the last look. The writer's own position is not moved."""
        while block := os.pread(self._descriptor, 1 << 16, self._position):
            self._position += len(block)
            *whole, self._rest = (self._rest + block).split(b"\n")
            for line in whole:
                self._told(line.decode("utf-8", "replace"))


def _wait(process: "subprocess.Popen[bytes]", seconds: float, lines: Lines) -> int:
    end = time.monotonic() + seconds
    while True:
        left = end - time.monotonic()
        try:
            status = process.wait(min(LOOK_SECONDS, max(left, 0.0)))
        except subprocess.TimeoutExpired:
            lines.look()
            if left <= 0:
                raise
            continue
        lines.look()
        return status


def _end_of(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - SAID_BYTES, 0))
    return file.read().decode("utf-8", "replace")


def check_host(host: str) -> None:
    """Refuse what ssh could take for an option or a shell for a command.

    Raises:
        ProfileError: it is not "host" or "user@host".
    """
    if not _HOST.fullmatch(host):
        raise ProfileError(
            f"{host!r} is not a machine's name", fix="write user@host, host, or a name from ~/.ssh/config"
        )


def missing_tools() -> str | None:
    """None where ssh and scp are installed; else what is missing."""
    absent = [name for name in ("ssh", "scp") if shutil.which(name) is None]
    return f"reaching another machine needs {' and '.join(absent)}" if absent else None


def last_line(text: str) -> str:
    """The last line of what a command said that is not empty, at most 300 characters of it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no reason given"
