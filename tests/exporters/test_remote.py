"""ssh: nothing that a user types becomes an option or a command; and a real server on this machine, if there is one."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporters import remote
from exporters.errors import ExportError
from exporters.remote import Machine


@pytest.mark.parametrize(
    "host",
    ["-oProxyCommand=touch /tmp/x", "a b", "me@-x", "", "x;reboot", "$(reboot)", "me@", "@host", "a@b@c", "x\ny"],
)
def test_hosts_that_are_no_names(host: str) -> None:
    with pytest.raises(ExportError, match="not a machine's name"):
        Machine(host)


@pytest.mark.parametrize("host", ["orin", "me@orin", "me@192.168.1.5", "lab-orin_2.local", "me@fe80::1%eth0", "::1"])
def test_hosts_that_are(host: str) -> None:
    assert Machine(host).host == host


def test_every_word_is_quoted_and_options_end_before_the_host() -> None:
    command = Machine("me@orin", ("Port=2222",)).command(["python3", "/tmp/a b/x.py", "$(reboot)", "; rm"])
    assert command[command.index("--") + 1] == "me@orin"
    assert command[-1] == "python3 '/tmp/a b/x.py' '$(reboot)' '; rm'"
    assert "BatchMode=yes" in command
    assert command[command.index("Port=2222") - 1] == "-o"


def test_addresses_with_colons_are_bracketed_for_scp() -> None:
    assert Machine("me@fe80::1")._bracketed() == "me@[fe80::1]"
    assert Machine("me@orin")._bracketed() == "me@orin"


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "scp" else name)
    assert remote.missing_tools() == "building on another machine needs scp"
    with pytest.raises(ExportError, match="needs scp"):
        Machine("host").run(["true"], seconds=1)


@pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh is not installed")
def test_a_machine_that_does_not_answer() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        machine = Machine("127.0.0.1", (f"Port={unused.getsockname()[1]}",))
        with pytest.raises(ExportError, match=r"ssh cannot reach 127\.0\.0\.1"):
            machine.run(["true"], seconds=20)


@pytest.mark.parametrize("folder", ["/tmp/other", "relative/compress-abc", "/tmp/compress-a; rm", "/tmp/../compress-a"])
def test_a_scratch_folder_that_is_not_one_is_never_removed(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(self: Machine, words: list[str], *, seconds: float) -> "subprocess.CompletedProcess[str]":
        ran.append(list(words))
        return subprocess.CompletedProcess(words, 0, stdout=folder + "\n", stderr="")

    monkeypatch.setattr(Machine, "run", run)
    with pytest.raises(ExportError, match="gave no temporary folder"), Machine("host").scratch():
        pass
    assert [words[0] for words in ran] == ["mktemp"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """An ssh server of this user on the loopback address, with a key made for it."""
    daemon = shutil.which("sshd", path="/usr/sbin:/usr/bin:" + os.environ["PATH"])
    if daemon is None or shutil.which("ssh-keygen") is None or remote.missing_tools() is not None:
        pytest.skip("no ssh server is installed (openssh-server)")
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    public = (folder / "host.pub").read_text().split()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {public[0]} {public[1]}\n")
    settings = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {folder / 'host'}",
        f"AuthorizedKeysFile {folder / 'authorized'}",
        f"PidFile {folder / 'pid'}",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "Subsystem sftp internal-sftp",
    ]
    (folder / "config").write_text("\n".join(settings) + "\n")
    Path("/run/sshd").mkdir(exist_ok=True) if os.geteuid() == 0 else None
    process = subprocess.Popen([daemon, "-D", "-f", str(folder / "config"), "-E", str(folder / "log")])
    machine = Machine(
        f"{getpass.getuser()}@127.0.0.1",
        (
            f"Port={port}",
            f"IdentityFile={folder / 'user'}",
            "IdentitiesOnly=yes",
            f"UserKnownHostsFile={folder / 'known'}",
        ),
    )
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        try:
            usable = machine.run(["true"], seconds=30).returncode == 0
        except ExportError as error:
            pytest.skip(f"the ssh server cannot be used here: {error.what}")
        if not usable:
            pytest.skip("the ssh server runs no commands here")
        yield machine
    finally:
        process.terminate()
        process.wait()


def test_words_arrive_as_they_were_sent(server: Machine) -> None:
    words = ["a b", "$(id)", "'", '"', "; ls", "*", ""]
    done = server.run(["printf", "<%s>", *words], seconds=30)
    assert done.stdout == "".join(f"<{word}>" for word in words)


def test_files_go_there_and_back_and_nothing_stays(server: Machine, tmp_path: Path) -> None:
    (tmp_path / "a b.bin").write_bytes(bytes(range(256)) * 100)
    with server.scratch() as folder:
        server.send([tmp_path / "a b.bin"], folder, seconds=30)
        assert server.run(["test", "-f", f"{folder}/a b.bin"], seconds=30).returncode == 0
        server.run(["cp", f"{folder}/a b.bin", f"{folder}/back.bin"], seconds=30)
        server.fetch(f"{folder}/back.bin", tmp_path / "back.bin", seconds=30)
    assert (tmp_path / "back.bin").read_bytes() == (tmp_path / "a b.bin").read_bytes()
    assert server.run(["test", "-e", folder], seconds=30).returncode == 1


def test_a_scratch_folder_goes_also_after_an_error(server: Machine) -> None:
    with pytest.raises(ZeroDivisionError), server.scratch() as folder:
        raise ZeroDivisionError
    assert server.run(["test", "-e", folder], seconds=30).returncode == 1


def test_a_missing_file_is_told(server: Machine, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"copying to or from .* failed: .*absent"):
        server.fetch("/tmp/compress-absent", tmp_path / "x", seconds=30)


def test_a_command_that_takes_too_long_is_ended(server: Machine) -> None:
    with pytest.raises(ExportError, match=r"sleep on .* did not end within 1 s"):
        server.run(["sleep", "30"], seconds=1)


def test_an_unknown_host_key_is_refused(server: Machine, tmp_path: Path) -> None:
    (tmp_path / "known").touch()
    options = [f"UserKnownHostsFile={tmp_path / 'known'}" if "KnownHosts" in o else o for o in server.options]
    with pytest.raises(ExportError, match="Host key verification failed"):
        Machine(server.host, tuple(options)).run(["true"], seconds=30)
