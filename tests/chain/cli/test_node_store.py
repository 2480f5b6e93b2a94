"""The verbs that mind a stopped node's store: snapshot, restore, prune."""

import errno
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chain import state_export
from chain.cli.main import build_app
from chain.genesis import save
from chain.node.config import NodeConfig, save_config
from chain.node.worker import open_ledger
from chain.pruning import KEEP_BLOCKS_MIN
from chain.state import State, TableNumber
from chain.store import Store
from ext.tables import RecordTable
from tests.builders import genesis
from tests.chain.executed_chain import ExecutedChain
from tests.chain.table_chain import TableChain, UnsyncedRocks

HEIGHT = 6


def make_home(home: Path) -> Path:
    home.mkdir()
    save(genesis(), home / "genesis.json")
    save_config(home, NodeConfig(validator=0))
    return home


def open_store(home: Path) -> Store:
    return Store(
        home / "data" / "store",
        genesis().chain_id,
        genesis().digest(),
        background=False,
        open_rocks=UnsyncedRocks,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A validator's home at HEIGHT, its node stopped."""
    home = make_home(tmp_path / "home")
    with open_store(home) as store:
        chain = ExecutedChain(store)
        chain.commit(HEIGHT)
        chain.close()
    return home


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(build_app(), ["node", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*arguments: object) -> tuple[str, str]:
    result = CliRunner().invoke(build_app(), ["node", *map(str, arguments), "--json"])
    assert result.exit_code != 0
    report = json.loads(result.stderr)
    return report["reason"], report["detail"]


def test_a_snapshot_restores_into_another_home(home: Path, tmp_path: Path) -> None:
    made = run("snapshot", "--home", home, "--output", tmp_path / "snapshot")
    other = make_home(tmp_path / "other")
    restored = run("restore", "--home", other, "--from", tmp_path / "snapshot")
    assert restored == made
    with open_store(home) as store:
        assert made["height"] == store.height == HEIGHT
        assert made["execution_root"] == (store.execution_root or b"").hex()
        assert made["state_root"] == (store.state_root_at(HEIGHT) or b"").hex()
    with open_store(other) as store:
        assert store.height == HEIGHT


def test_pruning_says_what_is_left(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with open_store(home) as store:
        TableChain(store).commit(KEEP_BLOCKS_MIN + 7)
    value = run("prune", "--home", home, "--keep-blocks", KEEP_BLOCKS_MIN)
    assert value == {"pruned_blocks": 7, "height": KEEP_BLOCKS_MIN + 7, "kept_from": 8}
    with open_store(home) as store:
        assert store.pruned_through == 7


def test_a_running_node_is_left_alone(home: Path, tmp_path: Path) -> None:
    with open_store(home):
        for arguments in (
            ("snapshot", "--home", home, "--output", tmp_path / "snapshot"),
            ("prune", "--home", home, "--keep-blocks", KEEP_BLOCKS_MIN),
        ):
            reason, detail = refused(*arguments)
            assert reason == "NODE_RUNS"
            assert "is in use by another process: stop that node" in detail
            assert "catches up when it starts again" in detail
        run_and_restore = refused("restore", "--home", home, "--from", tmp_path / "snapshot")
    assert run_and_restore[0] == "BAD_SNAPSHOT"
    assert not (tmp_path / "snapshot").exists()


def test_restoring_over_a_store_is_refused(home: Path, tmp_path: Path) -> None:
    run("snapshot", "--home", home, "--output", tmp_path / "snapshot")
    reason, detail = refused("restore", "--home", home, "--from", tmp_path / "snapshot")
    assert reason == "BAD_SNAPSHOT"
    assert "only into a home that has never run" in detail


def test_a_home_without_a_store_is_told(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    reason, detail = refused("prune", "--home", home, "--keep-blocks", KEEP_BLOCKS_MIN)
    assert reason == "BAD_STORE"
    assert "start the node once, or restore a snapshot" in detail
    assert not (home / "data").exists()
    assert refused("prune", "--home", tmp_path, "--keep-blocks", 1_000)[0] == "BAD_CONFIG"


def test_keeping_too_little_is_a_wrong_use(home: Path) -> None:
    result = CliRunner().invoke(
        build_app(), ["node", "prune", "--home", str(home), "--keep-blocks", "511"]
    )
    assert result.exit_code == 2


def test_an_export_holds_every_row_of_the_state_and_its_root(home: Path, tmp_path: Path) -> None:
    output = tmp_path / "state.jsonl"
    told = run("export", "--home", home, "--output", output)
    head, *rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert head["table"] == "head"
    assert (head["height"], head["chain_id"]) == (HEIGHT, genesis().chain_id)
    assert head["state_root"] == told["state_root"]
    assert len(rows) == told["rows"]
    with open_store(home) as store:
        assert head["execution_root"] == (store.execution_root or b"").hex()
        ledger = open_ledger(genesis(), store)
        balances = [account.balance for _, account in ledger.accounts()]
    accounts = [row for row in rows if row["table"] == "accounts"]
    assert [row["balance"] for row in accounts] == balances
    assert len([row for row in rows if row["table"] == "supply"]) == 1


def test_an_export_names_what_the_key_of_every_table_is_made_of() -> None:
    state = State()
    lengths = {table.number: table.key_bytes for table in vars(state).values() if is_table(table)}
    named = {
        number: sum(length for _, length, _ in parts) for number, parts in state_export.KEYS.items()
    }
    assert named == lengths
    assert set(named) == set(TableNumber) - {TableNumber.ACCOUNTS}


def is_table(value: object) -> bool:
    return isinstance(value, RecordTable)


def test_an_export_has_a_row_for_each_row_of_each_table(home: Path, tmp_path: Path) -> None:
    output = tmp_path / "state.jsonl"
    run("export", "--home", home, "--output", output)
    told = Counter(json.loads(line)["table"].upper() for line in output.read_text().splitlines())
    with open_store(home) as store:
        ledger = open_ledger(genesis(), store)
        held = Counter(TableNumber(number).name for number, _, _ in ledger.to_records())
        held["ACCOUNTS"] = len(list(ledger.accounts()))
    assert {"VALIDATORS", "PARAMETERS", "INCLUDED"} <= set(held)
    assert told - Counter(HEAD=1) == held


def test_an_export_that_finds_the_disk_full_leaves_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = tmp_path / "exports"
    folder.mkdir()
    monkeypatch.setattr("chain.state_export.os.fsync", full)
    reason, detail = refused("export", "--home", home, "--output", folder / "state.jsonl")
    assert reason == "FILE"
    assert "state.jsonl.part: No space left on device" in detail
    assert list(folder.iterdir()) == []


def test_an_export_overwrites_nothing(home: Path, tmp_path: Path) -> None:
    output = tmp_path / "state.jsonl"
    output.write_text("mine")
    reason, _ = refused("export", "--home", home, "--output", output)
    assert reason == "FILE"
    assert output.read_text() == "mine"


def test_status_of_a_home_asks_the_node_that_its_settings_name(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    save_config(home, NodeConfig(validator=0, public_listen="127.0.0.1:1"))
    reason, detail = refused("status", "--home", home)
    assert (reason, detail[:16]) == ("NODE_UNAVAILABLE", "node 127.0.0.1:1")
    assert refused("status", "--home", tmp_path / "nowhere")[0] == "BAD_CONFIG"


def test_rows_that_another_version_wrote_are_told_as_such(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "load_records", lambda store: [(TableNumber.JOBS, bytes(32), b"?")])
    reason, detail = refused("export", "--home", home, "--output", tmp_path / "state.jsonl")
    assert reason == "BAD_STORE"
    assert "use the version that wrote them" in detail
