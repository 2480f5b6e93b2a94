"""A snapshot brings a store back exactly, and a changed one is refused whole."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rocksdict import WriteBatch

from chain.rocks import Rocks, StoreError
from chain.snapshots import (
    MANIFEST_NAME,
    SnapshotError,
    create_snapshot,
    read_manifest,
    restore_snapshot,
)
from chain.store import DATABASE_NAME, STORE_NAME, Store
from chain.store_checkpoint import CheckpointPolicy
from chain.store_rows import ACCOUNTS, RECORD
from tests.builders import genesis
from tests.chain.executed_chain import ExecutedChain, state_root

HEIGHT = 12


def open_store(path: Path, **settings: Any) -> Store:
    return Store(path, genesis().chain_id, genesis().digest(), **settings)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store at HEIGHT, half of it in the tables."""
    with open_store(tmp_path / "home" / STORE_NAME, background=False) as store:
        chain = ExecutedChain(store)
        chain.commit(HEIGHT // 2)
        store.checkpoint()
        chain.commit(HEIGHT - HEIGHT // 2)
        chain.close()
        yield store


@pytest.fixture
def snapshot(store: Store, tmp_path: Path) -> Path:
    create_snapshot(store, genesis(), tmp_path / "snapshot")
    return tmp_path / "snapshot"


def edit_manifest(snapshot: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = snapshot / MANIFEST_NAME
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def refuse(snapshot: Path, data: Path, match: str) -> None:
    with pytest.raises(SnapshotError, match=match):
        restore_snapshot(snapshot, data, genesis())
    assert not data.exists() or list(data.iterdir()) == []


def test_a_restored_store_goes_on_as_the_one_it_came_from(
    store: Store, snapshot: Path, tmp_path: Path
) -> None:
    manifest = restore_snapshot(snapshot, tmp_path / "new", genesis())
    assert manifest == read_manifest(snapshot)
    assert (manifest.height, manifest.execution_root) == (
        HEIGHT,
        (store.execution_root or b"").hex(),
    )
    assert manifest.state_root == state_root(store).hex()
    with open_store(tmp_path / "new" / STORE_NAME) as restored:
        assert (restored.height, restored.execution_root) == (HEIGHT, store.execution_root)
        assert list(restored.load_records()) == list(store.load_records())
        assert list(restored.load_accounts()) == list(store.load_accounts())
        for height in range(1, HEIGHT + 1):
            assert restored.block_by_height(height) == store.block_by_height(height)
            assert restored.receipts_at(height) == store.receipts_at(height)
            for leaf in store.receipts_at(height):
                assert restored.transaction_location(leaf[1:33]) is not None
        for each in (restored, store):
            chain = ExecutedChain(each)
            chain.commit(3)
            chain.close()
        assert restored.execution_root == store.execution_root


def test_a_snapshot_made_while_the_node_runs_is_of_one_height(tmp_path: Path) -> None:
    path = tmp_path / "home" / STORE_NAME
    roots: list[bytes] = []
    with open_store(path, checkpoints=CheckpointPolicy(blocks=3)) as store:
        chain = ExecutedChain(store)
        stop = threading.Event()

        def run() -> None:
            while not stop.is_set():
                chain.commit()
                roots.append(store.execution_root or b"")

        writer = threading.Thread(target=run)
        writer.start()
        try:
            for number in range(4):
                height = store.height or 0
                while (store.height or 0) < height + 3:
                    assert writer.is_alive()
                create_snapshot(store, genesis(), tmp_path / f"snapshot-{number}")
        finally:
            stop.set()
            writer.join()
            chain.close()
    heights = []
    for number in range(4):
        manifest = restore_snapshot(
            tmp_path / f"snapshot-{number}", tmp_path / f"new-{number}", genesis()
        )
        assert manifest.execution_root == roots[manifest.height - 1].hex()
        heights.append(manifest.height)
    assert heights == sorted(set(heights))


def test_a_snapshot_shares_its_files_with_the_store(store: Store, snapshot: Path) -> None:
    tables = list((snapshot / DATABASE_NAME).glob("*.sst"))
    assert tables
    assert all(path.stat().st_nlink == 2 for path in tables)


def test_every_file_is_checked(snapshot: Path, tmp_path: Path) -> None:
    manifest = read_manifest(snapshot)
    assert len(manifest.files) >= 4
    for file in manifest.files:
        changed = Path(shutil.copytree(snapshot, tmp_path / f"changed-{file.name}"))
        path = changed / DATABASE_NAME / file.name
        data = bytearray(path.read_bytes())
        if data:
            data[len(data) // 2] ^= 1
        path.write_bytes(data or b"more")
        refuse(changed, tmp_path / "new", "is not the file of the manifest")
        path.unlink()
        refuse(changed, tmp_path / "new", "is missing; fetch the snapshot again")


def test_rows_that_were_changed_do_not_give_the_state_root(snapshot: Path, tmp_path: Path) -> None:
    """A forger makes the hashes of the files fit; the roots still don't."""
    rocks = Rocks(snapshot / DATABASE_NAME)
    for kind in (ACCOUNTS, RECORD + b"\x01"):
        found = rocks.rows(kind, kind, 1)
        if found:
            key, value = found[0]
            changes = WriteBatch(raw_mode=True)
            richer = bytearray(value)
            richer[len(value) - 30] ^= 1
            changes.put(key, bytes(richer))
            rocks.write(changes, sync=True)
    rocks.close()
    rewrite_hashes(snapshot)
    refuse(snapshot, tmp_path / "new", "does not hold what its manifest says|hash to state root")


def rewrite_hashes(snapshot: Path) -> None:
    import hashlib

    def edit(values: dict[str, Any]) -> None:
        values["files"] = [
            {
                "name": path.name,
                "size": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in (snapshot / DATABASE_NAME).iterdir()
            if path.name != "LOCK"
        ]

    edit_manifest(snapshot, edit)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("version", 2, "use the program that wrote it"),
        ("store_format", 1, "use the program that wrote it"),
        ("chain_id", "other", "of chain other"),
        ("genesis", "00" * 32, "take one of the same chain"),
        ("height", 3, f"the rows are of height {HEIGHT}"),
        ("height", -1, "is no manifest: height"),
        ("execution_root", "00" * 32, "with execution root"),
        ("state_root", "00" * 32, "the rows hash to state root"),
        ("state_root", "no hash", "is no manifest: state_root"),
        ("more", 1, "is no manifest: more"),
        (
            "files",
            [{"name": "../x", "size": 1, "sha256": "00" * 32}],
            "is no manifest: files.0.name",
        ),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(
    snapshot: Path, tmp_path: Path, field: str, value: object, match: str
) -> None:
    edit_manifest(snapshot, lambda values: values.update({field: value}))
    refuse(snapshot, tmp_path / "new", match)


def test_a_file_named_twice_is_refused(snapshot: Path, tmp_path: Path) -> None:
    edit_manifest(snapshot, lambda values: values["files"].append(values["files"][0]))
    refuse(snapshot, tmp_path / "new", "names a file twice")


def test_a_folder_without_a_manifest_is_no_snapshot(snapshot: Path, tmp_path: Path) -> None:
    (snapshot / MANIFEST_NAME).unlink()
    refuse(snapshot, tmp_path / "new", "not a snapshot, or one that was not finished")


def test_a_home_with_anything_in_it_is_left_alone(snapshot: Path, tmp_path: Path) -> None:
    data = tmp_path / "used"
    (data / "votes").mkdir(parents=True)
    with pytest.raises(SnapshotError, match="only into a home that has never run"):
        restore_snapshot(snapshot, data, genesis())
    assert [path.name for path in data.iterdir()] == ["votes"]


def test_a_folder_in_use_takes_no_snapshot(store: Store, snapshot: Path) -> None:
    with pytest.raises(SnapshotError, match="is not empty; give a new folder"):
        create_snapshot(store, genesis(), snapshot)


def test_a_store_without_a_state_has_no_snapshot(tmp_path: Path) -> None:
    with (
        open_store(tmp_path / "empty") as store,
        pytest.raises(StoreError, match="has no state yet; start the node once"),
    ):
        create_snapshot(store, genesis(), tmp_path / "snapshot")
