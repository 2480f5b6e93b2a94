"""The command line as a person or a script meets it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from chain import receipt_files
from chain.cli import bench
from chain.cli import main as cli
from chain.genesis import load, save
from chain.keys import Role
from chain.keystore import load_key
from chain.receipts import Receipt, build_receipt
from chain.store import Store
from tests.builders import genesis, key
from tests.chain.finished_job import JOB, Chain

runner = CliRunner()


def assay(*arguments: str | Path) -> Result:
    return runner.invoke(cli.build_app(), [str(argument) for argument in arguments])


def output_of(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def error_of(result: Result, code: int = 1) -> dict[str, str]:
    assert result.exit_code == code
    assert result.stdout == ""
    report: dict[str, str] = json.loads(result.stderr)
    assert set(report) == {"reason", "detail"}
    return report


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text("secret\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def receipt(tmp_path_factory: pytest.TempPathFactory) -> Receipt:
    path = tmp_path_factory.mktemp("store") / "data"
    with Store(path, genesis().chain_id, genesis().digest()) as store:
        chain = Chain.start(store)
        chain.run_job()
        chain.commit()
        chain.commit()
        return build_receipt(store, genesis(), JOB)


@pytest.fixture
def files(tmp_path: Path, receipt: Receipt) -> Iterator[tuple[Path, Path]]:
    """A receipt file and a genesis file."""
    file, trusted = tmp_path / "receipt.json", tmp_path / "genesis.json"
    file.write_bytes(receipt_files.dump_json(receipt))
    save(genesis(), trusted)
    yield file, trusted


def test_a_key_is_made_listed_and_shown(tmp_path: Path, passphrase: Path) -> None:
    words = tmp_path / "words"
    made = output_of(
        assay(
            *("keys", "new", "alice", "--home", tmp_path, "--passphrase-file", passphrase),
            *("--mnemonic-file", words, "--json"),
        )
    )
    assert made["address"].startswith("assay1")
    assert output_of(assay("keys", "list", "--home", tmp_path, "--json")) == [made]
    assert output_of(assay("keys", "show", "alice", "--home", tmp_path, "--json")) == made
    assert made["address"] in assay("keys", "list", "--home", tmp_path).stdout
    assert words.stat().st_mode & 0o777 == 0o600
    restored = output_of(
        assay(
            *("keys", "new", "again", "--home", tmp_path, "--passphrase-file", passphrase),
            *("--from-mnemonic", words, "--json"),
        )
    )
    assert restored["public_key"] == made["public_key"]
    assert (
        load_key(Path(made["file"]), b"secret", Role.ACCOUNT).public_key.hex()
        == (made["public_key"])
    )


def test_new_words_are_shown_once_and_not_on_standard_output(
    tmp_path: Path, passphrase: Path
) -> None:
    result = assay(
        *("keys", "new", "alice", "--home", tmp_path, "--passphrase-file", passphrase, "--json")
    )
    output_of(result)
    assert len(result.stderr.strip().splitlines()[-1].split()) == 24


def test_a_key_can_take_its_passphrase_from_a_descriptor(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"secret\n")
    os.close(writer)
    made = output_of(
        assay(
            *("keys", "new", "vrf", "--role", "vrf", "--home", tmp_path),
            *("--passphrase-fd", str(reader), "--mnemonic-file", tmp_path / "words", "--json"),
        )
    )
    os.close(reader)
    assert made["address"] is None
    assert load_key(Path(made["file"]), b"secret").public_key.hex() == made["public_key"]


def test_without_a_terminal_a_passphrase_must_be_given(tmp_path: Path) -> None:
    report = error_of(assay("keys", "new", "alice", "--home", tmp_path, "--json"), code=2)
    assert report == {
        "reason": "NO_PASSPHRASE",
        "detail": "give --passphrase-file or --passphrase-fd",
    }
    assert not (tmp_path / "keys").exists()


def test_an_error_for_people_is_one_line(tmp_path: Path) -> None:
    result = assay("keys", "show", "nobody", "--home", tmp_path)
    assert result.exit_code == 1
    path = tmp_path / "keys" / "nobody.json"
    assert result.stderr == f"error: BAD_KEY: {path}: No such file or directory\n"


def test_a_genesis_is_put_together_from_declarations(tmp_path: Path, passphrase: Path) -> None:
    declarations: list[str | Path] = []
    for index in range(2):
        file = tmp_path / f"declaration-{index}.json"
        output_of(
            assay(
                *("genesis", "declare", "--home", tmp_path / str(index), "--index", str(index)),
                *("--address", f"127.0.0.1:{7_000 + index}", "--output", file, "--json"),
                *("--passphrase-file", passphrase),
            )
        )
        declarations += ["--declaration", file]
    output = tmp_path / "genesis.json"
    alice = key("alice").public_key.hex()
    made = output_of(
        assay(
            *("genesis", "create", "--name", "mine", "--output", output, "--treasury", alice),
            *("--account", f"{alice}=1000", "--time-ms", "5", "--json"),
            *reversed(declarations[:2][::-1]),
            *declarations[2:],
        )
    )
    assert made["validators"] == 2
    assert load(output).chain_id == made["chain_id"]
    assert output_of(assay("genesis", "show", output, "--json"))["digest"] == made["digest"]
    signing = load_key(tmp_path / "1" / "keys" / "signing.json", b"secret", Role.SIGNING)
    assert load(output).validators[1].signing_key == signing.public_key
    names = {path.name for path in (tmp_path / "0" / "keys").iterdir()}
    assert names == {
        *("account.json", "signing.json", "vrf.json", "mnemonic"),
        *("tls.key.pem", "tls.cert.pem"),
    }


def test_a_genesis_with_a_missing_validator_is_refused(tmp_path: Path, passphrase: Path) -> None:
    file = tmp_path / "declaration.json"
    output_of(
        assay(
            *("genesis", "declare", "--home", tmp_path / "0", "--index", "1", "--json"),
            *("--address", "127.0.0.1:7000", "--output", file, "--passphrase-file", passphrase),
        )
    )
    report = error_of(
        assay(
            *("genesis", "create", "--name", "mine", "--output", tmp_path / "g.json", "--json"),
            *("--treasury", key("alice").public_key.hex(), "--declaration", file),
        )
    )
    assert report["reason"] == "BAD_GENESIS"
    assert "list them in order, from 0" in report["detail"]
    assert not (tmp_path / "g.json").exists()


def test_a_receipt_is_verified_offline(files: tuple[Path, Path]) -> None:
    file, trusted = files
    shown = output_of(assay("receipt", "verify", file, "--genesis", trusted, "--json"))
    assert (shown["valid"], shown["verdict"]) == (True, "VERIFIED")
    assert [word["verdict"] for word in shown["verifiers"]] == ["PASS"] * 3
    assert shown["text"] == 'Because "why" not'
    text = assay("receipt", "verify", file, "--genesis", trusted)
    assert text.exit_code == 0
    assert f"verified receipt: {file}" in text.stdout


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"PASS"', b'"FAIL"', "NOT_IN_BLOCK"),
        (b"7000", b"7001", "UNREADABLE"),
        (b"Because", b"because", "UNREADABLE"),
        (b'"version": 1', b'"version": 2', "UNREADABLE"),
        (b"FINALIZE", b"NOTARIZE", "NOT_FINAL"),
    ],
)
def test_an_altered_receipt_is_refused_with_exit_code_1(
    files: tuple[Path, Path], old: bytes, new: bytes, reason: str
) -> None:
    file, trusted = files
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, new, 1))
    report = error_of(assay("receipt", "verify", file, "--genesis", trusted, "--json"))
    assert report["reason"] == reason
    text = assay("receipt", "verify", file, "--genesis", trusted)
    assert (text.exit_code, text.stdout) == (1, "")
    assert text.stderr.startswith(f"error: {reason}: ")
    assert text.stderr.count("\n") == 1


def test_a_receipt_against_another_genesis_is_refused(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    save(genesis("other"), tmp_path / "other.json")
    report = error_of(
        assay("receipt", "verify", files[0], "--genesis", tmp_path / "other.json", "--json")
    )
    assert report["reason"] == "WRONG_CHAIN"


def test_a_missing_receipt_is_a_wrong_call(files: tuple[Path, Path], tmp_path: Path) -> None:
    report = error_of(
        assay("receipt", "verify", tmp_path / "none", "--genesis", files[1], "--json"), code=2
    )
    assert report == {
        "reason": "FILE",
        "detail": f"{tmp_path / 'none'}: No such file or directory",
    }


def test_a_receipt_is_converted_and_still_verified(
    files: tuple[Path, Path], tmp_path: Path, receipt: Receipt
) -> None:
    short = tmp_path / "receipt.bin"
    output_of(
        assay("receipt", "convert", files[0], "--format", "protobuf", "--output", short, "--json")
    )
    assert short.read_bytes() == receipt_files.dump_protobuf(receipt)
    output_of(assay("receipt", "verify", short, "--genesis", files[1], "--json"))
    again = error_of(assay("receipt", "convert", short, "--output", files[0], "--json"), code=2)
    assert "exists and is not overwritten" in again["detail"]


def plug_in(monkeypatch: pytest.MonkeyPatch, group: str, **values: str) -> None:
    """Have only these entry points, all of one group."""
    entries = [metadata.EntryPoint(name, value, group) for name, value in values.items()]
    found = {group: entries}
    monkeypatch.setattr(metadata, "entry_points", lambda group: found.get(group, []))


def test_a_plugin_is_mounted_and_a_broken_one_is_only_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plug_in(
        monkeypatch,
        cli.PLUGIN_GROUP,
        good="tests.chain.cli.plugin:app",
        gone="no.such.module:app",
        empty="tests.chain.cli.plugin:nothing",
        odd="tests.chain.cli.plugin:odd",
    )
    result = assay("good", "greet")
    assert (result.exit_code, result.stdout) == (0, "hello\n")
    told = capsys.readouterr().err
    for name in ("gone", "empty", "odd"):
        assert f"assay {name} is not available: " in told
        assert assay(name).exit_code == 2


def test_another_package_adds_a_verb_to_bench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plug_in(
        monkeypatch,
        bench.PLUGIN_GROUP,
        good="tests.chain.cli.plugin:greet",
        gone="no.such.module:command",
    )
    result = assay("bench", "good")
    assert (result.exit_code, result.stdout) == (0, "hello\n")
    assert "assay bench gone is not available: " in capsys.readouterr().err


def test_the_command_runs_as_a_process(files: tuple[Path, Path]) -> None:
    program = "from chain.cli.main import main; main()"
    run = [sys.executable, "-c", program, "receipt", "verify", str(files[0])]
    good = subprocess.run(
        [*run, "--genesis", str(files[1])], capture_output=True, text=True, check=False
    )
    assert (good.returncode, good.stdout.startswith("verified receipt: ")) == (0, True)
    wrong_call = subprocess.run(run, capture_output=True, text=True, check=False)
    assert wrong_call.returncode == 2
    assert "--genesis" in wrong_call.stderr


def test_every_verb_has_help_and_speaks_json() -> None:
    command = typer.main.get_command(cli.build_app())
    for noun in ("keys", "genesis", "receipt"):
        verbs = command.commands[noun].commands  # type: ignore[attr-defined]
        for name, verb in verbs.items():
            assert verb.help, f"{noun} {name}"
            assert any("--json" in option.opts for option in verb.params), f"{noun} {name}"
