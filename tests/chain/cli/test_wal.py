"""`assay wal inspect`: what a log says, a torn tail, damage; and the file stays as it is."""

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from chain.cli.main import build_app
from consensus.certificates import nullify_body, sign_vote
from consensus.journal import encode_record
from consensus.sim.crypto import RealSigner
from consensus.wal import WAL_NAME, FileDirectory, Wal

SIGNER = RealSigner(b"wal")


def inspect(path: Path, *words: str) -> Result:
    return CliRunner().invoke(build_app(), ["wal", "inspect", str(path), *words])


def log(home: Path, *records: bytes) -> Path:
    directory = FileDirectory(home)
    wal, _ = Wal.open(directory, "chain", SIGNER.signing_key, create=True)
    for record in records:
        wal.append(record)
        wal.flush()
    directory.close()
    return home / WAL_NAME


def votes(count: int) -> list[bytes]:
    bodies = [nullify_body(0, view) for view in range(1, count + 1)]
    return [encode_record(sign_vote(SIGNER, "chain", 2, body)) for body in bodies]


def test_a_whole_log_is_told_record_by_record(tmp_path: Path) -> None:
    file = log(tmp_path, *votes(2), b"\x09odd")
    done = inspect(file, "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["chain_id"], report["signing_key"]) == ("chain", SIGNER.signing_key.hex())
    assert (report["records"], report["torn_tail_bytes"], report["may_vote"]) == (3, 0, True)
    first, second, odd = [record for group in report["groups"] for record in group["records"]]
    assert (first["record"], first["kind"], first["view"], first["signer"]) == (
        "vote",
        "nullify",
        1,
        2,
    )
    assert second["view"] == 2
    assert (odd["record"], "known are 1 to 5" in odd["why"]) == ("unreadable", True)
    assert "kind nullify" in inspect(tmp_path).stdout


def test_a_torn_tail_is_told_and_left_alone(tmp_path: Path) -> None:
    file = log(tmp_path, *votes(2))
    torn = file.read_bytes()[:-7]
    file.write_bytes(torn)
    done = inspect(file, "--json")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["records"], report["may_vote"]) == (0, 1, True)
    assert report["torn_tail_bytes"] == len(torn) - file.read_bytes().rindex(b"AWG1")
    assert file.read_bytes() == torn
    assert "never sent, cut off at the next start" in inspect(file).stdout


def test_damage_within_the_log_is_told_and_ends_with_1(tmp_path: Path) -> None:
    file = log(tmp_path, *votes(3))
    data = bytearray(file.read_bytes())
    second = data.index(b"AWG1", data.index(b"AWG1", 1) + 1)
    data[second + 30] ^= 1
    file.write_bytes(bytes(data))
    done = inspect(file, "--json")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["may_vote"], report["records"]) == (1, False, 1)
    assert f"broken at byte {second}" in report["damage"]
    empty = tmp_path / "empty.wal"
    empty.write_bytes(b"")
    assert "header is broken" in inspect(empty).stdout


def test_a_file_that_is_not_there_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    done = inspect(tmp_path / "none.wal")
    assert (done.exit_code, "FILE" in done.stderr) == (2, True)
