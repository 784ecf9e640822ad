"""One flipped bit anywhere in a run is found, and the message says where and what to do."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from compress import signing
from compress.cli.main import main
from compress.errors import IntegrityError, RunError
from compress.integrity import examine
from compress.manifest import MANIFEST, RUN, write_manifest
from compress.records import RECORD, STAGES
from compress.store import open_store
from profiles.atomic import write_text


def made(run: Path, stages: tuple[str, ...] = STAGES) -> Path:
    """A run of all stages with small files, one set aside, and the report's copies."""
    with open_store(run) as store:
        write_text(run / RUN, json.dumps({"format": 1, "recipe": {"name": "default"}}))
        for seed in ("0", "1"):
            for stage in stages:
                store.once(stage, {"seed": seed if stage == "export" else "0"}, partial(work, stage, seed))
        write_manifest(run)
    if "report" in stages:
        shutil.copy(run / "7_report/report.html", run / "report.html")
    return run


def work(stage: str, seed: str, folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
    """A file and a folder with one."""
    name = "report.html" if stage == "report" else f"{stage}.bin"
    write_text(folder / name, f"what {stage} made from {seed}")
    write_text(folder / "deep" / "log", "told")
    return {"the artifact": folder / name, "the log": folder / "deep"}, {"found": [1, 2]}


def test_an_untouched_run_is_whole(tmp_path: Path) -> None:
    found = examine(made(tmp_path / "run"))
    assert (found.files, found.damages, found.unfinished) == (16, (), ())
    assert found.size == sum(len(f"what {stage} made from 0") + len("told") for stage in STAGES)


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    run = made(tmp_path / "run", ("prepare", "export"))
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path.name != ".lock"]
    names = {path.relative_to(run).as_posix() for path in files}
    assert {RUN, MANIFEST, f"0_prepare/{RECORD}", "4_export/export.bin", "previous/4_export-1/export.bin"} <= names
    missed = []
    for path in files:
        whole = path.read_bytes()
        aside = "previous" in path.parts and path.name == RECORD  # nothing lists it: only its own outputs do
        for place in range(0, 0 if aside else len(whole), 1 if len(whole) < 40 else 29):
            bit = place % 8
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            if not examine(run).damages:
                missed.append((path.relative_to(run).as_posix(), place, bit))
        path.write_bytes(whole)
    assert missed == []
    assert examine(run).damages == ()


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda run: (run / "4_export/export.bin").unlink(), "4_export/export.bin is missing"),
        (lambda run: (run / MANIFEST).unlink(), "manifest.json is missing"),
        (lambda run: (run / MANIFEST).write_text("[]"), "manifest.json is garbled"),
        (lambda run: (run / "2_distill" / RECORD).write_text("{"), "2_distill/stage.json is garbled"),
        (lambda run: (run / "2_distill" / RECORD).unlink(), "2_distill/stage.json is missing"),
        (lambda run: (run / "report.html").write_text("<h1>100 %</h1>"), "report.html is not the copy of"),
        (lambda run: (run / RUN).write_text("{}"), "run.json is not the file that manifest.json lists"),
        (lambda run: os.truncate(run / "0_prepare/prepare.bin", 3), "0_prepare/prepare.bin has the SHA-256"),
        (
            lambda run: (
                (run / "5_build/build.bin").rename(run / "kept"),
                (run / "5_build/build.bin").symlink_to(run / "kept"),
            ),
            "5_build/build.bin is a link",
        ),
        (lambda run: (run / "previous/4_export-1/export.bin").unlink(), "previous/4_export-1/export.bin is missing"),
    ],
)
def test_every_kind_of_damage_is_named(tmp_path: Path, harm: Any, told: str) -> None:
    run = made(tmp_path / "run")
    harm(run)
    with pytest.raises(IntegrityError) as caught:
        examine(run).require(run)
    assert told in caught.value.what
    assert "made anew" in caught.value.fix or "makes it anew" in caught.value.fix


def test_many_damages_are_counted_and_the_first_stage_is_named(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    for stage in STAGES[2:]:
        shutil.rmtree(run / f"{STAGES.index(stage)}_{stage}")
    with pytest.raises(IntegrityError, match=r"2_distill/stage\.json is missing.*and \d+ more") as caught:
        examine(run).require(run)
    assert caught.value.fix.startswith(f"`compress distill {run}` makes it anew")


def test_the_command_checks_hashes_and_signature_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, private, public = made(tmp_path / "run"), tmp_path / "key.pem", tmp_path / "public.pem"
    make_keys(private, public)
    assert main(["verify", str(run), "--only-hashes"]) == 0
    assert "16 artifacts" in capsys.readouterr().out
    assert main(["verify", str(run), "--only-hashes", "--key", str(public)]) == 2
    assert "is not signed" in capsys.readouterr().err
    told = signing.sign(run, signing.read_private_key(private))
    assert main(["verify", str(run), "--key", str(public)]) == 0
    said = capsys.readouterr().out
    assert f"signed by {told}" in said
    assert "nothing was run" in said
    with open_store(run) as store:  # the list changes, so what was signed is no more
        store.once("report", {"seed": "2"}, lambda folder: ({}, {}))
    (run / "report.html").unlink()
    assert main(["verify", str(run), "--key", str(public)]) == 2
    assert "does not hold" in capsys.readouterr().err


def make_keys(private: Path, public: Path, *, passphrase: str | None = None) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    how: Any = serialization.NoEncryption()
    if passphrase is not None:
        how = serialization.BestAvailableEncryption(passphrase.encode())
    form = serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, how))
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def test_openssl_reads_our_keys_and_our_signature(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    run, private, public = made(tmp_path / "run"), tmp_path / "key.pem", tmp_path / "public.pem"
    made_key = subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], capture_output=True)
    assert made_key.returncode == 0
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    told = signing.sign(run, signing.read_private_key(private))
    assert signing.check(run, signing.read_public_key(public)) == told
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin", "-in", str(run / MANIFEST)]
    found = subprocess.run([*command, "-sigfile", str(run / signing.SIGNATURE)], capture_output=True, text=True)
    assert (found.returncode, found.stdout.strip()) == (0, "Signature Verified Successfully")


def test_another_key_a_shortened_and_an_empty_signature_do_not_hold(tmp_path: Path) -> None:
    run, private, public = made(tmp_path / "run"), tmp_path / "key.pem", tmp_path / "public.pem"
    make_keys(private, public)
    make_keys(tmp_path / "other.pem", tmp_path / "other_public.pem")
    signing.sign(run, signing.read_private_key(private))
    with pytest.raises(IntegrityError, match="another key signed it"):
        signing.check(run, signing.read_public_key(tmp_path / "other_public.pem"))
    whole = (run / signing.SIGNATURE).read_bytes()
    for changed in (b"", whole[:63], bytes([whole[0] ^ 1]) + whole[1:], whole + b"\n"):
        (run / signing.SIGNATURE).write_bytes(changed)
        with pytest.raises(IntegrityError, match="does not hold"):
            signing.check(run, signing.read_public_key(public))


def test_wrong_keys_are_refused_without_telling_what_is_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    locked, public = tmp_path / "locked.pem", tmp_path / "public.pem"
    make_keys(locked, public, passphrase="of a test")
    with pytest.raises(RunError, match="is encrypted"):
        signing.read_private_key(locked)
    monkeypatch.setenv(signing.PASSPHRASE, "wrong")
    with pytest.raises(RunError, match="passphrase is wrong") as caught:
        signing.read_private_key(locked)
    assert "of a test" not in str(caught.value)
    monkeypatch.setenv(signing.PASSPHRASE, "of a test")
    signing.read_private_key(locked)
    secret = b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
    (tmp_path / "garbled.pem").write_bytes(secret)
    with pytest.raises(RunError, match="cannot be read as a private key") as caught:
        signing.read_private_key(tmp_path / "garbled.pem")
    assert "c2VjcmV0" not in str(caught.value)
    curve = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "curve.pem").write_bytes(curve)
    with pytest.raises(RunError, match="no Ed25519 key"):
        signing.read_private_key(tmp_path / "curve.pem")
    for path in (tmp_path / "none.pem", tmp_path):
        with pytest.raises(RunError, match="cannot be read"):
            signing.read_public_key(path)
    with pytest.raises(RunError, match="cannot be read as a public key"):
        signing.read_public_key(locked)
    (tmp_path / "long.pem").write_bytes(bytes(1 << 17))
    with pytest.raises(RunError, match="too long"):
        signing.read_public_key(tmp_path / "long.pem")
