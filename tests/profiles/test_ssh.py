"""ssh: nothing that a user types becomes an option or a command; and a real server on this machine, if there is one."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from profiles import ssh
from profiles.errors import ProfileError
from profiles.ssh import Machine


@pytest.mark.parametrize(
    "host",
    [
        "-oProxyCommand=touch /tmp/x",
        "a b",
        "me@-x",
        "",
        "x;reboot",
        "$(reboot)",
        "me@",
        "@host",
        "a@b@c",
        "x\ny",
        "x\n",
        "a\x00b",
        "`id`",
        "a'b",
        'a"b',
        "[::1]",
        "-x",
        "~root",
        "ü",
    ],
)
def test_hosts_that_are_no_names(host: str) -> None:
    with pytest.raises(ProfileError, match="not a machine's name"):
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
    assert ssh.missing_tools() == "reaching another machine needs scp"
    with pytest.raises(ProfileError, match="needs scp"):
        Machine("host").run(["true"], seconds=1)


@pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh is not installed")
def test_a_machine_that_does_not_answer() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        machine = Machine("127.0.0.1", (f"Port={unused.getsockname()[1]}",))
        with pytest.raises(ProfileError, match=r"ssh cannot reach 127\.0\.0\.1"):
            machine.run(["true"], seconds=20)


@pytest.mark.parametrize("folder", ["/tmp/other", "relative/compress-abc", "/tmp/compress-a; rm", "/tmp/../compress-a"])
def test_a_scratch_folder_that_is_not_one_is_never_removed(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(
        self: Machine, words: list[str], *, seconds: float, stays_with_us: bool = False
    ) -> "subprocess.CompletedProcess[str]":
        ran.append(list(words))
        return subprocess.CompletedProcess(words, 0, stdout=folder + "\n", stderr="")

    monkeypatch.setattr(Machine, "run", run)
    with pytest.raises(ProfileError, match="gave no temporary folder"), Machine("host").scratch():
        pass
    assert [words[0] for words in ran] == ["mktemp"]


@pytest.fixture
def server(ssh_server: tuple[str, tuple[str, ...]]) -> Machine:
    return Machine(*ssh_server)


def test_words_arrive_as_they_were_sent(server: Machine) -> None:
    words = ["a b", "$(id)", "'", '"', "; ls", "*", ""]
    done = server.run(["printf", "<%s>", *words], seconds=30)
    assert done.stdout == "".join(f"<{word}>" for word in words)


def test_files_go_there_and_back_and_nothing_stays(server: Machine, tmp_path: Path) -> None:
    (tmp_path / "a b.bin").write_bytes(bytes(range(256)) * 100)
    with server.scratch() as folder:
        server.send([tmp_path / "a b.bin"], folder, seconds=30)
        server.run(["cp", f"{folder}/a b.bin", f"{folder}/back.bin"], seconds=30)
        server.fetch(f"{folder}/back.bin", tmp_path / "back.bin", seconds=30)
    assert (tmp_path / "back.bin").read_bytes() == (tmp_path / "a b.bin").read_bytes()
    assert server.run(["test", "-e", folder], seconds=30).returncode == 1


def test_a_missing_file_is_told(server: Machine, tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"copying to or from .* failed: .*absent"):
        server.fetch("/tmp/compress-absent", tmp_path / "x", seconds=30)


def test_a_command_that_takes_too_long_is_ended(server: Machine) -> None:
    with pytest.raises(ProfileError, match=r"sleep on .* did not end within 1 s"):
        server.run(["sleep", "30"], seconds=1)


def test_an_unknown_host_key_is_refused(server: Machine, tmp_path: Path) -> None:
    (tmp_path / "known").touch()
    options = [f"UserKnownHostsFile={tmp_path / 'known'}" if "KnownHosts" in o else o for o in server.options]
    with pytest.raises(ProfileError, match="Host key verification failed"):
        Machine(server.host, tuple(options)).run(["true"], seconds=30)


def test_an_error_inside_is_not_hidden_by_one_of_the_clean_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Machine, words: list[str], *, seconds: float) -> "subprocess.CompletedProcess[str]":
        if words[0] == "rm":
            raise ProfileError("the network is gone", fix="")
        return subprocess.CompletedProcess(words, 0, stdout="/tmp/compress-abc\n", stderr="")

    monkeypatch.setattr(Machine, "run", run)
    with pytest.raises(ZeroDivisionError), Machine("host").scratch():
        raise ZeroDivisionError


def test_keys_of_unknown_hosts_are_never_accepted() -> None:
    command = " ".join(Machine("host").command(["true"]))
    assert "StrictHostKeyChecking" not in command
    assert "UserKnownHostsFile" not in command
    assert "ServerAliveInterval" in command


def test_input_stays_open_only_where_asked(server: Machine) -> None:
    read = ["sh", "-c", "timeout 0.5 cat; echo $?"]
    assert server.run(read, seconds=30).stdout.strip() == "0"  # the end of its input came at once
    assert server.run(read, seconds=30, stays_with_us=True).stdout.strip() == "124"  # it waited for more


def test_lines_are_handed_on_as_they_come(ssh_server: tuple[str, tuple[str, ...]]) -> None:
    told: list[tuple[float, str]] = []
    command = ["sh", "-c", "echo first >&2; sleep 2; echo second >&2; printf third >&2; echo out"]
    done = Machine(*ssh_server).run(command, seconds=30, told=lambda line: told.append((time.monotonic(), line)))
    assert [line for _, line in told] == ["first", "second"]
    assert told[1][0] - told[0][0] > 1.0, "the first line did not wait for the end"
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "first\nsecond\nthird")


def test_the_time_limit_holds_while_lines_come(ssh_server: tuple[str, tuple[str, ...]]) -> None:
    told: list[str] = []
    command = ["sh", "-c", "echo begun >&2; sleep 30"]
    with pytest.raises(ProfileError, match="did not end within 2 s"):
        Machine(*ssh_server).run(command, seconds=2, told=told.append)
    assert told == ["begun"]
