"""Tables, accounts and lookups are what the journals say, however far checkpoints have come."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rocksdict import WriteBatch

from chain.leaves import PackedLeaves
from chain.records import TransactionReceipt
from chain.rocks import Rocks, StoreError
from chain.store import JobOrigin, LeafLocation, Store
from chain.store_checkpoint import CheckpointPolicy, Checkpoints
from chain.store_rows import ACCOUNTS, JOURNAL, LOOKUPS, RECORD, number
from tests.builders import genesis
from tests.chain import table_chain
from tests.chain.finished_job import Chain
from tests.chain.table_chain import TableChain, account_row, rows_of

SOON_S = 60.0


def open_store(path: Path, background: bool = False, **policy: int) -> Store:
    return Store(
        path,
        genesis().chain_id,
        genesis().digest(),
        background=background,
        checkpoints=CheckpointPolicy(**policy),
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "data") as store:
        yield store


def check_lookups(store: Store, heights: range) -> None:
    for height in heights:
        assert store.transaction_location(table_chain.transaction(height, 2)) == LeafLocation(
            height, 2
        )
        assert store.payload(table_chain.payload_digest(height)) == table_chain.payload(height)
        origin = JobOrigin(table_chain.job(height), table_chain.transaction(height), 0)
        assert store.job_origin(table_chain.job(height)) == origin
    unknown = table_chain.transaction(heights.stop)
    assert store.transaction_location(unknown) is None
    assert store.payload(unknown) is None


def test_a_transaction_repeated_in_a_block_costs_its_lookup_one_read_of_the_receipts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lane may repeat what expired as often as it likes."""
    chain = TableChain(store)
    chain.commit(1)
    identity = table_chain.transaction(0)
    included = TransactionReceipt(identity, True, "", 7).leaf()
    expired = TransactionReceipt(identity, False, "EXPIRED", 0).leaf()
    for leaves in ((included,), (expired,) * 500):
        commit = replace(chain._commit_of(chain.height + 1), receipt_leaves=leaves)
        store.commit_block(commit)
        chain._append(commit)
    read: list[int] = []
    receipts_at = store.receipts_at

    def counted(height: int) -> PackedLeaves:
        read.append(height)
        return receipts_at(height)

    monkeypatch.setattr(store, "receipts_at", counted)
    assert store.transaction_location(identity) == LeafLocation(2, 0)
    assert read == [3, 2]


def test_a_part_of_an_id_finds_nothing(store: Store) -> None:
    TableChain(store).commit(1)
    store.checkpoint()
    for identity in (table_chain.transaction(1), table_chain.job(1)):
        for other in (identity[:8], identity[:31], identity + b"\1", b""):
            assert store.transaction_location(other) is None
            assert store.job_origin(other) is None


STEPS = st.lists(st.sampled_from(["commit", "commit", "checkpoint", "reopen"]), max_size=14)


@settings(max_examples=25, deadline=None)
@given(STEPS, st.integers(0, 1 << 20))
def test_tables_are_the_journals_applied_whenever_checkpoints_come(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], seed: int
) -> None:
    path = tmp_path_factory.mktemp("tables")
    store = open_store(path)
    chain = TableChain(store, seed)
    for step in steps:
        if step == "commit":
            chain.commit(3)
        elif step == "checkpoint":
            store.checkpoint()
        else:
            store.close()
            store = chain.store = open_store(path)
        check_lookups(store, range(1, chain.height + 1))
    assert rows_of(store) == chain.tables.rows()
    store.close()


def test_a_commit_writes_no_row_for_an_account_or_a_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(tmp_path) as store:
        chain = TableChain(store)
        chain.commit(3)
        batches: list[int] = []
        write = Rocks.write

        def count(rocks: Rocks, changes: WriteBatch, sync: bool) -> None:
            batches.append(len(changes))
            write(rocks, changes, sync)

        monkeypatch.setattr(Rocks, "write", count)
        few = chain._commit_of(4)
        store.commit_block(few)
        assert len(batches) == 1
        chain._append(few)
        many = chain._commit_of(5)
        leaves = [
            TransactionReceipt(bytes(30) + index.to_bytes(2, "big"), True, "", 0).leaf()
            for index in range(2_000)
        ]
        rows = b"".join(account_row(index, 5) for index in range(2_000))
        store.commit_block(
            type(many)(
                **{name: getattr(many, name) for name in many.__slots__}
                | {"receipt_leaves": leaves, "events": leaves, "accounts": rows}
            )
        )
        assert len(batches) == 2
        assert batches[0] == batches[1]


def test_accounts_come_back_over_many_pages(store: Store) -> None:
    rows = [account_row(index, 1) for index in range(10_000)]
    chain = Chain.start(store)
    journal = b"".join(rows[:9_000])
    commit = chain.commit(accounts=journal)
    assert commit.accounts == journal
    store.checkpoint()
    changed = [
        account_row(index, 2) if index % 1_000 == 0 else rows[index] for index in range(10_000)
    ]
    chain.commit(accounts=b"".join(changed[0:9_000:1_000] + changed[9_000:]))
    assert b"".join(store.load_accounts()) == b"".join(changed)


def test_genesis_accounts_are_pages_at_once(tmp_path: Path) -> None:
    rows = b"".join(account_row(index, 1) for index in range(5_000))
    with open_store(tmp_path) as store:
        chain = Chain.start(store, accounts=rows)
        chain.commit(accounts=account_row(4_999, 2) + account_row(5_000, 2))
    with open_store(tmp_path) as store:
        expected = rows[:-68] + account_row(4_999, 2) + account_row(5_000, 2)
        assert b"".join(store.load_accounts()) == expected


def test_account_rows_with_a_gap_are_told(store: Store) -> None:
    Chain.start(store).commit(accounts=account_row(1, 1))
    with pytest.raises(StoreError, match="account rows of page 0 have gaps"):
        store.checkpoint()


def test_segments_stay_few(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        chain = TableChain(store)
        for _ in range(80):
            chain.commit()
            store.checkpoint()
        assert len(store._segments()) <= 8
        check_lookups(store, range(1, 81))
        serials = {segment.serial for segment in store._segments()}
        stored = {int.from_bytes(key[1:9], "big") for key, _ in store._rocks.all_rows(LOOKUPS)}
        assert stored == serials


def test_segments_are_merged_up_to_a_bound(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chain.store_checkpoint.SEGMENT_ENTRIES_MAX", 40)
    chain = TableChain(store)
    for _ in range(30):
        chain.commit()
        store.checkpoint()
    segments = store._segments()
    assert sum(segment.entries for segment in segments) == 30 * 5
    assert max(segment.entries for segment in segments) <= 40
    check_lookups(store, range(1, 31))


def test_a_segment_that_lost_entries_is_told(store: Store) -> None:
    chain = TableChain(store)
    chain.commit()
    store.checkpoint()
    changes = WriteBatch(raw_mode=True)
    for key, _ in store._rocks.all_rows(LOOKUPS):
        changes.delete(key)
    store._rocks.write(changes, sync=True)
    chain.commit()
    with pytest.raises(StoreError, match="lookups of heights 1 to 1 have 0 entries, 5 were writ"):
        store.checkpoint()


def test_a_later_refusal_does_not_hide_that_a_transaction_was_included(store: Store) -> None:
    chain = Chain.start(store)
    identity = bytes(range(32))
    included = TransactionReceipt(identity, False, "INSUFFICIENT_BALANCE", 10).leaf()
    refused = TransactionReceipt(identity, False, "EXPIRED", 0).leaf()
    chain.commit((refused,))
    assert store.transaction_location(identity) == LeafLocation(1, 0)
    chain.commit((included,))
    assert store.transaction_location(identity) == LeafLocation(2, 0)
    for _ in range(2):
        chain.commit((refused, refused))
        assert store.transaction_location(identity) == LeafLocation(2, 0)
        store.checkpoint()


# --- the background ---------------------------------------------------------------------------


def test_a_checkpoint_comes_by_itself_when_it_is_due(tmp_path: Path) -> None:
    with open_store(tmp_path, background=True, blocks=4) as store:
        chain = TableChain(store)
        chain.commit(9)
        until = time.monotonic() + SOON_S
        while store._checkpoints.row.height < 8 and time.monotonic() < until:
            time.sleep(0.01)
        assert store._checkpoints.row.height >= 8
        assert rows_of(store) == chain.tables.rows()


class GatedRocks(Rocks):
    """Lets account pages and records through only while the gate is open."""

    gate = threading.Event()
    failing = False

    def write(self, changes: WriteBatch, sync: bool) -> None:
        if threading.current_thread().name == "store-upkeep":
            assert self.gate.wait(SOON_S)
            if self.failing:
                raise StoreError("the disk is full")
        super().write(changes, sync)


def gated_store(path: Path, **policy: int) -> Store:
    GatedRocks.gate.clear()
    GatedRocks.failing = False
    return Store(
        path,
        genesis().chain_id,
        genesis().digest(),
        checkpoints=CheckpointPolicy(**policy),
        open_rocks=GatedRocks,
    )


def test_commits_wait_when_the_tables_are_too_far_behind(tmp_path: Path) -> None:
    with gated_store(tmp_path, blocks=2, patience=3) as store:
        chain = TableChain(store)
        writer = threading.Thread(target=chain.commit, args=(40,))
        writer.start()
        until = time.monotonic() + SOON_S
        while store.height != 6 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.2)
        assert store.height == 6  # 2 blocks are due, 3 times as many are the limit
        GatedRocks.gate.set()
        writer.join(SOON_S)
        assert store.height == 40
        assert store.height - store._checkpoints.row.height <= 6
        assert rows_of(store) == chain.tables.rows()


def test_without_a_background_commits_make_the_checkpoint_they_wait_for(tmp_path: Path) -> None:
    with open_store(tmp_path, blocks=2, patience=2) as store:
        chain = TableChain(store)
        chain.commit(11)
        assert store._checkpoints.row.height >= 8
        assert rows_of(store) == chain.tables.rows()


def test_large_journals_are_folded_in_slices(tmp_path: Path) -> None:
    with open_store(tmp_path, journal_bytes=200, patience=1_000) as store:
        chain = TableChain(store)
        chain.commit(30)
        heights = []
        while store.maintain():
            heights.append(store._checkpoints.row.height)
        assert len(heights) > 3
        assert heights == sorted(set(heights))
        assert rows_of(store) == chain.tables.rows()


def test_a_failed_checkpoint_stops_the_next_commit(tmp_path: Path) -> None:
    store = gated_store(tmp_path, blocks=2, patience=2)
    chain = TableChain(store)
    GatedRocks.failing = True
    GatedRocks.gate.set()
    with pytest.raises(StoreError, match="the store's upkeep failed: the disk is full"):
        chain.commit(50)
    height = store.height
    store.close()
    with open_store(tmp_path) as again:
        assert again.height == height
        expected = TableChain(open_store(tmp_path / "twin"))
        expected.commit(height or 0)
        assert rows_of(again) == expected.tables.rows()
        expected.store.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_the_background_stops_the_next_commit_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fold(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Checkpoints, "_fold", fold)
    with open_store(tmp_path, background=True, blocks=2, patience=2) as store:
        with pytest.raises(StoreError, match="the store's upkeep failed: its traceback"):
            TableChain(store).commit(50)
        assert (store.height or 0) <= 4


class WatchedRocks(Rocks):
    """Lets somebody look in right behind a durable write."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.look: Callable[[], None] | None = None

    def write(self, changes: WriteBatch, sync: bool) -> None:
        super().write(changes, sync)
        if sync and self.look is not None:
            self.look()


def test_lookups_are_found_while_a_checkpoint_replaces_their_segment(tmp_path: Path) -> None:
    """The rows of the old segments go with the new height; who looks for them just then waits."""
    looked: list[threading.Thread] = []
    found: list[bytes | None] = []

    def look() -> None:
        reader = threading.Thread(
            target=lambda: found.append(watched.payload(table_chain.payload_digest(1)))
        )
        looked.append(reader)
        reader.start()
        reader.join(0.2)

    with Store(
        tmp_path,
        genesis().chain_id,
        genesis().digest(),
        background=False,
        open_rocks=WatchedRocks,
    ) as watched:
        chain = TableChain(watched)
        chain.commit(2)
        watched.checkpoint()
        chain.commit(2)
        assert isinstance(watched._rocks, WatchedRocks)
        watched._rocks.look = look
        watched.checkpoint()
        watched._rocks.look = None
        for reader in looked:
            reader.join(SOON_S)
    assert found == [table_chain.payload(1)]


# --- damage -----------------------------------------------------------------------------------


def test_a_missing_journal_is_told_when_opening(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        TableChain(store).commit(3)
        changes = WriteBatch(raw_mode=True)
        changes.delete(JOURNAL + number(2))
        store._rocks.write(changes, sync=True)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"the journal of block 2 is missing; restore"):
            open_store(tmp_path)


def test_rows_are_only_in_the_tables_after_a_checkpoint(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        TableChain(store).commit(5)
        kinds = (RECORD, ACCOUNTS, LOOKUPS)
        assert [list(store._rocks.all_rows(kind)) for kind in kinds] == [[], [], []]
        store.checkpoint()
        assert all(list(store._rocks.all_rows(kind)) for kind in kinds)
