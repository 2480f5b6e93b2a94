"""`assay node doctor`: each thing that can be wrong with a home is found, named, and advised on."""

import fcntl
import json
import os
import socket
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chain import genesis as genesis_file
from chain.cli.main import build_app
from chain.doctor import Diagnosis, Level, examine, worst
from chain.node.config import NodeConfig, load_config
from chain.store import LOCK_FILE_NAME, STORE_NAME
from consensus.wal import WAL_NAME, FileDirectory, Wal
from tests.chain.ran_home import make_home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A validator that has run: a store at genesis, an empty vote log, nothing running."""
    return make_home(tmp_path / "net")


def config_of(home: Path) -> NodeConfig:
    return load_config(home)


def bad(found: list[Diagnosis]) -> dict[str, Diagnosis]:
    """By reason, without what the test machine's own disk may bring in."""
    return {
        item.reason: item for item in found if item.level is not Level.FINE and item.check != "disk"
    }


def test_a_good_home_has_nothing_to_mend(home: Path) -> None:
    found = examine(home)
    assert bad(found) == {}
    assert {item.check for item in found} >= {
        "config",
        "genesis",
        "keys",
        "votes",
        "store",
        "ports",
    }


def test_a_home_that_never_ran_is_good_too(tmp_path: Path) -> None:
    assert bad(examine(make_home(tmp_path / "net", runs=False))) == {}


def test_a_lost_vote_log_is_an_error_beside_a_store(home: Path) -> None:
    (config_of(home).data / "votes" / WAL_NAME).unlink()
    found = bad(examine(home))
    assert list(found) == ["VOTES_MISSING"]
    assert "never an older copy" in found["VOTES_MISSING"].advice


def test_a_damaged_vote_log_is_found_and_left_as_it_is(home: Path) -> None:
    path = config_of(home).data / "votes" / WAL_NAME
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    assert list(bad(examine(home))) == ["VOTES_DAMAGED"]
    assert path.read_bytes() == bytes(data)


def test_another_validators_vote_log_is_found(home: Path, tmp_path: Path) -> None:
    path = config_of(home).data / "votes"
    (path / WAL_NAME).unlink()
    directory = FileDirectory(path)
    genesis = genesis_file.load(config_of(home).genesis)
    Wal.open(directory, genesis.chain_id, bytes(32), create=True)
    directory.close()
    assert list(bad(examine(home))) == ["VOTES_FOREIGN"]


def test_keys_that_others_can_read_are_a_warning(home: Path) -> None:
    config_of(home).keys.signing.chmod(0o644)
    found = examine(home)
    assert list(bad(found)) == ["KEY_READABLE"]
    assert "chmod 600" in bad(found)["KEY_READABLE"].advice


def test_a_store_of_another_chain_is_an_error(home: Path, tmp_path: Path) -> None:
    other = make_home(tmp_path / "other", name="other", runs=False)
    config = config_of(other)
    config.data.mkdir()
    (config_of(home).data / STORE_NAME).rename(config.data / STORE_NAME)
    found = bad(examine(other))
    assert "another chain" in found["BAD_STORE"].detail


def test_a_port_that_somebody_has_is_named(home: Path) -> None:
    host, _, port = config_of(home).http.listen.rpartition(":")
    with socket.create_server((host, int(port))):
        found = bad(examine(home))
    assert f"http.listen {host}:{port}" in found["PORT_TAKEN"].detail


def test_a_clock_behind_the_chain_is_an_error(home: Path) -> None:
    hour_ago_ms = time.time_ns() // 1_000_000 - 3_600_000
    assert list(bad(examine(home, hour_ago_ms))) == ["BEFORE_GENESIS"]


def test_a_runtime_that_does_not_answer_is_a_warning(home: Path) -> None:
    file = home / "node.toml"
    file.write_text(file.read_text().replace("runtimes = []", 'runtimes = ["127.0.0.1:1"]'))
    found = examine(home)
    assert list(bad(found)) == ["RUNTIME_OUT"]
    assert worst(found) in (Level.WARNING, Level.ERROR)  # an error only of the machine's own disk


def test_beside_a_process_that_has_the_store_it_is_left_alone(home: Path) -> None:
    lock = os.open(config_of(home).data / STORE_NAME / LOCK_FILE_NAME, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        found = examine(home)
    finally:
        os.close(lock)
    assert "store" not in {item.check for item in found}
    assert set(bad(found)) == {"NO_ANSWER", "PORT_SILENT"}


@pytest.mark.parametrize(
    ("text", "reason"), [("validator = 'x'\n", "BAD_CONFIG"), ("validator = 0\n", "BAD_GENESIS")]
)
def test_what_keeps_it_from_looking_further_is_the_last_thing_said(
    tmp_path: Path, text: str, reason: str
) -> None:
    (tmp_path / "node.toml").write_text(text)
    found = examine(tmp_path)
    assert found[-1].reason == reason


def test_the_command_prints_findings_and_ends_by_severity(home: Path) -> None:
    config_of(home).keys.signing.chmod(0o644)
    arguments = ["node", "doctor", "--home", str(home)]
    told = CliRunner().invoke(build_app(), [*arguments, "--json"])
    report = json.loads(told.stdout)
    assert "KEY_READABLE" in [item["reason"] for item in report["findings"]]
    assert told.exit_code == {"warning": 3, "error": 1}[report["level"]]
    assert "KEY_READABLE: chmod 600" in CliRunner().invoke(build_app(), arguments).stdout
