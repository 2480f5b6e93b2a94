"""What was committed is there after any death; what was not, is not."""

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.records import ExecutionLink
from chain.store import PAYLOAD_ROW_BYTES, JobOrigin, LeafLocation, Store, StoreError
from chain.store_rows import (
    PAYLOADS,
    JournalEntry,
    JournalRow,
    journal_bytes,
    leaves_bytes,
    leaves_of_row,
    packed,
)
from consensus.values import Batch, BatchHeader, VoteKind
from consensus.wire import encode
from ext.hashing import sha256
from tests.builders import block, certify, genesis
from tests.chain.finished_job import (
    JOB,
    JOB_HEIGHT,
    OPERATION,
    TRANSACTION,
    Chain,
    transaction_leaf,
)


def batch(sequence: int, lane: int = 0, payload: bytes = b"payload") -> Batch:
    header = BatchHeader(0, lane, sequence, sha256(bytes([sequence % 256])), sha256(payload))
    return Batch(header, bytes(64), payload)


def open_store(path: Path) -> Store:
    return Store(path, genesis().chain_id, genesis().digest())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "data") as store:
        yield store


@pytest.fixture
def chain(store: Store) -> Chain:
    return Chain.start(store)


def test_a_new_store_is_empty(store: Store) -> None:
    assert (store.height, store.execution_root, store.final_height) == (None, None, 0)
    assert list(store.load_records()) == []
    assert store.block_by_height(1) is None
    assert store.certificate_at(0) is None
    assert store.lane_tip(0) is None
    assert store.final_blocks_from(0, 10) == []


def test_everything_of_a_block_is_read_back(chain: Chain) -> None:
    store = chain.store
    commits = [chain.commit() for _ in range(5)]
    assert (store.height, store.execution_root) == (5, chain.roots[5])
    for commit in commits:
        height = commit.block.height
        stored = store.block_by_height(height)
        assert stored is not None
        assert (stored.block, stored.beacon, stored.link, stored.execution_root) == (
            commit.block,
            commit.beacon,
            commit.link,
            commit.execution_root,
        )
        assert tuple(store.receipts_at(height)) == commit.receipt_leaves
        assert tuple(store.events_at(height)) == commit.events
        assert store.journal_at(height) == JournalRow(
            tuple(JournalEntry(*entry) for entry in commit.journal), commit.accounts
        )
        assert store.execution_root_at(height) == chain.roots[height]
        transaction = sha256(f"transaction-{height}-0".encode())
        assert store.transaction_location(transaction) == LeafLocation(height, 0)
    assert [stored.block.height for stored in store.blocks_from(2, 3)] == [2, 3, 4]
    assert [stored.block.height for stored in store.blocks_from(4, 100)] == [4, 5]
    assert store.execution_roots(2) == ((4, chain.roots[4]), (5, chain.roots[5]))
    assert store.execution_roots(100)[0] == (1, chain.roots[1])
    assert store.execution_root_at(0) == chain.roots[0]


def test_tables_are_current_and_in_order(chain: Chain) -> None:
    for _ in range(5):
        chain.commit()
    heights = [height.to_bytes(8, "big") for height in (3, 4, 5)]
    assert list(chain.store.load_records()) == [
        (1, b"counter", heights[-1]),
        *((2, height, sha256(height)) for height in heights),
        (3, b"early", b"1"),
    ]


def test_many_records_are_read_over_the_chunk_bound(store: Store) -> None:
    records = [(9, number.to_bytes(4, "big"), b"x") for number in range(10_000)]
    link = ExecutionLink(0, bytes(32), bytes(32), bytes(32))
    store.commit_genesis(link, bytes(32), bytes(32), records)
    assert list(store.load_records()) == records


def test_jobs_are_found(chain: Chain) -> None:
    chain.run_job()
    assert chain.store.job_location(JOB) == LeafLocation(JOB_HEIGHT, 4)
    assert chain.store.job_origin(JOB) == JobOrigin(JOB, TRANSACTION, OPERATION)
    assert chain.store.job_location(bytes(32)) is None
    assert chain.store.payload(bytes(32)) is None


def test_many_payloads_of_a_block_stand_in_rows_of_bounded_size(chain: Chain) -> None:
    sizes = [0, 1, 70_000, 200_000, 30_000, 30_000, 30_000, 5, 65_000]
    payloads = [(sha256(bytes([index])), bytes([index]) * size) for index, size in enumerate(sizes)]
    chain.commit(payloads=tuple(payloads))
    rows = list(chain.store._rocks.all_rows(PAYLOADS))
    assert len(rows) == 4
    assert all(len(row) < PAYLOAD_ROW_BYTES + max(sizes) for _, row in rows)
    for _ in range(2):
        for digest, data in payloads:
            assert chain.store.payload(digest) == data
        chain.store.checkpoint()


def test_ids_that_share_a_prefix_are_told_apart(chain: Chain) -> None:
    digests = [b"same pre" + bytes([index]) * 24 for index in range(5)]
    for digest in digests[:4]:
        chain.commit(payloads=((digest, digest[8:]),))
    for _ in range(2):
        for digest in digests[:4]:
            assert chain.store.payload(digest) == digest[8:]
        assert chain.store.payload(digests[4]) is None
        chain.store.checkpoint()


def test_a_certificate_serves_its_ancestors(chain: Chain) -> None:
    chain.commit(certified=False)
    chain.commit(certified=False)
    assert chain.store.certificate_at(1) is None
    third = chain.commit()
    for height in (1, 2, 3):
        assert chain.store.certificate_at(height) == (3, third.certificate)
    assert chain.store.certificate_at(4) is None


def test_a_certificate_of_another_block_is_refused(chain: Chain) -> None:
    first = chain.commit(certified=False).block
    second = chain.next_block()
    with pytest.raises(ValueError, match="does not finalize block 2"):
        chain.store.put_final_blocks([(second, bytes(32))], certify(genesis(), first))
    notarized = certify(genesis(), second, kind=VoteKind.NOTARIZE)
    with pytest.raises(ValueError, match="does not finalize block 2"):
        chain.store.put_final_blocks([(second, bytes(32))], notarized)
    assert chain.store.final_height == 1


def test_final_blocks_may_be_ahead_of_execution(chain: Chain) -> None:
    store = chain.store
    first = chain.next_block()
    second = block(2, first.digest(), (0, chain.roots[0]))
    beacons = [sha256(b"beacon-1"), sha256(b"beacon-2")]
    final = list(zip([first, second], beacons, strict=True))
    store.put_final_blocks(final, certify(genesis(), second))
    assert (store.height, store.final_height) == (0, 2)
    assert store.final_blocks_from(1, 10) == [first, second]
    assert store.final_block(2) == final[1]
    assert store.block_by_height(1) is None
    assert store.certificate_at(1) == (2, certify(genesis(), second))
    store.put_final_blocks(final, None)
    chain.commit()
    assert store.block_by_height(1) is not None
    assert store.final_height == 2


def test_two_final_blocks_at_one_height_stop_the_node(chain: Chain) -> None:
    first = chain.commit().block
    other = dataclasses.replace(first, timestamp_ms=first.timestamp_ms + 1)
    with pytest.raises(StoreError, match="two final blocks at height 1"):
        chain.store.put_final_blocks([(other, bytes(32))], None)


def test_heights_leave_no_gap(chain: Chain) -> None:
    commit = chain.commit()
    with pytest.raises(ValueError, match="cannot follow 1"):
        chain.store.commit_block(commit)
    far = block(5, bytes(32), (0, bytes(32)))
    with pytest.raises(StoreError, match="leaves a gap"):
        chain.store.put_final_blocks([(far, bytes(32))], None)
    with pytest.raises(StoreError, match="has a state already, at height 1"):
        Chain.start(chain.store)


def test_batches_are_found_by_place_and_by_digest(store: Store) -> None:
    batches = [batch(sequence) for sequence in (3, 1, 2, 300)]
    for one in batches:
        store.put_batch(one)
    other_lane = batch(9, lane=1)
    store.put_batch(other_lane)
    for one in batches:
        assert store.batch(0, one.header.sequence) == one
        assert store.batch_by_digest(one.header.digest()) == one
    assert store.batch(0, 4) is None
    assert [header.sequence for header in store.batch_headers(0, 2, 10)] == [2, 3, 300]
    assert [header.sequence for header in store.batch_headers(0, 1, 2)] == [1, 2]
    assert store.lane_tip(0) == batches[-1].header
    assert store.lane_tip(1) == other_lane.header
    assert store.lane_tip(2) is None


def test_a_forked_lane_keeps_both_batches(store: Store) -> None:
    one, other = batch(1, payload=b"one"), batch(1, payload=b"other")
    store.put_batch(one)
    store.put_batch(other)
    assert {header.digest() for header in store.batch_headers(0, 1, 10)} == {
        one.header.digest(),
        other.header.digest(),
    }
    assert store.batch_by_digest(one.header.digest()) == one
    assert store.batch_by_digest(other.header.digest()) == other


def test_reopening_finds_the_same_state(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        chain = Chain.start(store)
        for _ in range(3):
            chain.commit()
        records = list(store.load_records())
    with open_store(tmp_path) as again:
        assert (again.height, again.execution_root) == (3, chain.roots[3])
        assert again.final_height == 3
        assert list(again.load_records()) == records
        Chain(again, genesis(), chain.roots, chain.blocks).commit()
        assert again.height == 4


def test_a_home_in_use_is_refused(tmp_path: Path) -> None:
    with open_store(tmp_path), pytest.raises(StoreError, match="is in use by another process"):
        open_store(tmp_path)
    open_store(tmp_path).close()


def test_a_home_of_another_chain_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    other = genesis("other")
    for _ in range(2):
        with pytest.raises(
            StoreError, match=r"home directory of another chain: .* belongs to test"
        ):
            Store(tmp_path, other.chain_id, other.digest())
    open_store(tmp_path).close()


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.payload(bytes(32))
    with pytest.raises(StoreError, match="is closed"):
        store.put_batch(batch(1))


def test_a_damaged_database_is_told_and_releases_the_lock(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    (tmp_path / "rocks" / "CURRENT").write_text("nonsense\n")
    for _ in range(2):
        with pytest.raises(StoreError, match="restore this home from a snapshot"):
            open_store(tmp_path)


def test_a_home_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Not a directory"):
        open_store(tmp_path / "file" / "data")


def test_readers_and_the_writer_do_not_disturb_each_other(chain: Chain) -> None:
    store = chain.store
    wrong: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            height = store.height or 0
            stored = store.block_by_height(height)
            previous = store.execution_root_at(height - 1) if height else None
            if previous is not None and (
                stored is None or stored.link.extend(previous) != stored.execution_root
            ):
                wrong.append(f"block {height}")
            for seen in store.blocks_from(1, 5):
                if not store.receipts_at(seen.block.height):
                    wrong.append(f"receipts {seen.block.height}")
            store.lane_tip(0)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for sequence in range(60):
            store.put_batch(batch(sequence + 1), sync=False)
            chain.commit()
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert wrong == []


ENTRIES = st.lists(
    st.tuples(st.integers(0, 255), st.binary(max_size=40), st.none() | st.binary(max_size=80)),
    max_size=20,
)


@given(ENTRIES, st.binary(max_size=200))
def test_a_journal_laid_out_by_hand_is_the_canonical_encoding(
    entries: list[tuple[int, bytes, bytes | None]], accounts: bytes
) -> None:
    row = JournalRow(tuple(JournalEntry(*entry) for entry in entries), accounts)
    assert journal_bytes(entries, accounts) == encode(row)


@given(st.lists(st.binary(max_size=80), max_size=20))
def test_leaves_come_back_as_they_were_packed(leaves: list[bytes]) -> None:
    row = leaves_bytes(packed(leaves))
    assert tuple(leaves_of_row(row)) == tuple(leaves)
    with pytest.raises(StoreError, match="a row of leaves cannot be read"):
        leaves_of_row(row + b"x")


def test_an_unknown_kind_of_leaf_is_refused_whole(chain: Chain) -> None:
    with pytest.raises(ValueError, match="leaf 1 of block 1 is of no known kind: tag 90"):
        chain.commit((transaction_leaf(1, 0), b"Z" * 40))
    with pytest.raises(ValueError, match="leaf 1 of block 1 is of no known kind: too short"):
        chain.commit((transaction_leaf(1, 0), b"T"))
    assert (chain.store.height, chain.store.final_height) == (0, 0)
