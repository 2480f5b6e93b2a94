"""What is forgotten is gone from the disk; what anybody still needs is whole."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chain import pruning
from chain.pruning import KEEP_BLOCKS_MIN, STEP_BLOCKS_MAX, PruningPolicy
from chain.receipts import build_receipt
from chain.rejections import Rejection, RejectionReason
from chain.store import Store
from chain.store_checkpoint import CheckpointPolicy
from chain.store_rows import BATCH, BY_HEIGHT, LANE, LOOKUPS, PLACE
from tests.builders import genesis
from tests.chain import table_chain
from tests.chain.finished_job import JOB, JOB_HEIGHT, Chain
from tests.chain.table_chain import TableChain, UnsyncedRocks, rows_of

HEIGHT = 700
OLDEST = HEIGHT - KEEP_BLOCKS_MIN
"""The last height that may go."""


def open_store(path: Path, pruning: PruningPolicy | None = None, background: bool = False) -> Store:
    return Store(
        path,
        genesis().chain_id,
        genesis().digest(),
        pruning=pruning or PruningPolicy(),
        background=background,
        open_rocks=UnsyncedRocks,
    )


@pytest.fixture(scope="module")
def long_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of HEIGHT blocks, to be copied."""
    path = tmp_path_factory.mktemp("long") / "store"
    with open_store(path) as store:
        TableChain(store).commit(HEIGHT)
    return path


@pytest.fixture
def home(long_home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(long_home, tmp_path / "store"))


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with open_store(home) as store:
        yield store


def chain_of(store: Store) -> TableChain:
    """The chain that wrote the store, model and all."""
    return TableChain(store)


def check_kept(store: Store, through: int) -> None:
    """Everything above `through` is there, nothing at or below it."""
    chain = chain_of(store)
    assert store.pruned_through == through
    assert rows_of(store) == chain.tables.rows()
    assert store.execution_root_at(0) == chain.roots[0]
    for height in (1, through // 2, through):
        assert store.block_by_height(height) is None
        assert store.final_block(height) is None
        assert store.receipts_at(height) == store.events_at(0)
        assert store.transaction_location(table_chain.transaction(height)) is None
        assert store.payload(table_chain.payload_digest(height)) is None
        assert store.job_origin(table_chain.job(height)) is None
        assert store.batch(0, height) is None or height == through
        assert store.final_blocks_from(height, 10) == []
        with pytest.raises(Rejection, match=f"this node keeps blocks from height {through + 1}"):
            store.check_kept(height)
    for height in range(through + 1, (store.height or 0) + 1):
        stored = store.block_by_height(height)
        assert stored is not None
        assert stored.block == chain.blocks[height - 1]
        assert stored.execution_root == chain.roots[height]
        assert store.batch_by_digest(stored.block.cut[0].digest) == table_chain.batch(height)
        location = store.transaction_location(table_chain.transaction(height))
        assert location is not None
        assert location.height == height
        assert store.payload(table_chain.payload_digest(height)) == table_chain.payload(height)
        assert store.job_origin(table_chain.job(height)) is not None
        store.check_kept(height)
    assert [one.height for one in store.final_blocks_from(through + 1, 3)] == [
        through + 1,
        through + 2,
        through + 3,
    ]


def test_pruning_by_height_keeps_the_newest_blocks_whole(store: Store) -> None:
    assert store.prune(PruningPolicy(keep_blocks=600)) == 100
    check_kept(store, 100)
    assert store.prune(PruningPolicy(keep_blocks=600)) == 0
    assert store.prune(PruningPolicy(keep_blocks=KEEP_BLOCKS_MIN)) == OLDEST - 100
    check_kept(store, OLDEST)


def test_nothing_is_pruned_unless_it_is_asked_for(store: Store) -> None:
    assert store.prune(PruningPolicy()) == 0
    assert store.block_by_height(1) is not None
    assert store.kept_note() == ""


def test_pruning_by_age_goes_by_block_time(store: Store) -> None:
    """The builder's blocks are a millisecond apart."""
    assert store.prune(PruningPolicy(keep_ms=650)) == 49
    check_kept(store, 49)
    assert store.prune(PruningPolicy(keep_ms=0)) == OLDEST - 49  # the least that a node needs


def test_a_chain_without_a_block_has_nothing_to_prune(tmp_path: Path) -> None:
    with open_store(tmp_path, PruningPolicy(keep_ms=0)) as store:
        TableChain(store)
        assert not store.maintain()
        assert store.pruned_through == 0


def test_a_block_stays_if_either_limit_keeps_it(store: Store) -> None:
    assert store.prune(PruningPolicy(keep_blocks=550, keep_ms=650)) == 49
    assert store.prune(PruningPolicy(keep_blocks=640, keep_ms=0)) == 11


def test_too_few_blocks_to_keep_are_refused() -> None:
    with pytest.raises(ValueError, match=f"a node needs its last {KEEP_BLOCKS_MIN} blocks"):
        PruningPolicy(keep_blocks=KEEP_BLOCKS_MIN - 1)
    with pytest.raises(ValueError, match="less than nothing"):
        PruningPolicy(keep_ms=-1)


def test_an_open_jobs_request_is_never_pruned(home: Path) -> None:
    with open_store(home) as store:
        chain = chain_of(store)
        chain.oldest_open_height = 60
        chain.commit()
        assert store.prune(PruningPolicy(keep_blocks=KEEP_BLOCKS_MIN)) == 59
    with open_store(home) as store:  # nor after a restart
        assert store.prune(PruningPolicy(keep_blocks=KEEP_BLOCKS_MIN)) == 0
        assert store.payload(table_chain.payload_digest(60)) == table_chain.payload(60)
        chain = TableChainFrom(store)
        chain.commit()
        assert store.prune(PruningPolicy(keep_blocks=KEEP_BLOCKS_MIN)) == OLDEST + 2 - 59


def TableChainFrom(store: Store) -> TableChain:  # noqa: N802
    """The same chain with no job open."""
    chain = TableChain(store)
    chain.oldest_open_height = None
    return chain


def test_a_lanes_newest_batch_stays_however_old(store: Store) -> None:
    idle = table_chain.batch(1)
    store.prune(PruningPolicy(keep_blocks=KEEP_BLOCKS_MIN))
    tip = store.lane_tip(0)
    assert tip is not None
    assert tip.sequence == HEIGHT
    assert store.batch(0, 1) is None
    assert store.batch_by_digest(idle.header.digest()) is None
    assert [header.sequence for header in store.batch_headers(0, 0, 2)] == [OLDEST, OLDEST + 1]


def test_lanes_of_epochs_that_are_forgotten_go_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "KEEP_BLOCKS_MIN", 4)
    with open_store(tmp_path / "store") as store:
        chain = TableChain(store, epoch_blocks=5)
        chain.commit(18)
        assert store.prune(PruningPolicy(keep_blocks=5)) == 13
        kept = [(batch.header.epoch, batch.header.sequence) for batch in store.batches()]
        assert kept == [(2, 3), (2, 4), (2, 5), (3, 1), (3, 2), (3, 3)]
        for kind in (LANE, PLACE):
            assert len(list(store._rocks.all_rows(kind))) == len(kept)
        for height in range(14, 19):
            held = store.batch_by_digest(chain.blocks[height - 1].cut[0].digest)
            assert held == table_chain.batch(*chain.place(height))


def test_lanes_of_two_epochs_are_kept_apart(tmp_path: Path) -> None:
    with open_store(tmp_path / "store") as store:
        batches = {epoch: table_chain.batch(1, epoch) for epoch in (0, 1)}
        for batch in batches.values():
            store.put_batch(batch)
        for epoch, batch in batches.items():
            assert store.batch(0, 1, epoch) == batch
            assert store.lane_tip(0, epoch) == batch.header
            assert store.batch_headers(0, 1, 9, epoch) == [batch.header]
            assert store.batch_by_digest(batch.header.digest()) == batch


def test_no_row_of_a_pruned_height_is_left(store: Store) -> None:
    store.prune(PruningPolicy(keep_blocks=KEEP_BLOCKS_MIN))
    for kind in BY_HEIGHT:
        heights = [int.from_bytes(key[1:9], "big") for key, _ in store._rocks.all_rows(kind)]
        assert all(height == 0 or height > OLDEST for height in heights)
    for kind in (BATCH, LANE, PLACE):
        assert len(list(store._rocks.all_rows(kind))) == KEEP_BLOCKS_MIN + 1


def test_the_disk_shrinks(home: Path) -> None:
    def size() -> int:
        return sum(path.stat().st_size for path in (home / "rocks").iterdir())

    with open_store(home) as store:
        store._rocks.flush()
        before = size()
        store.prune(PruningPolicy(keep_blocks=KEEP_BLOCKS_MIN))
    with open_store(home) as store:
        assert size() < before * 0.8 + (64 << 10)
        check_kept(store, OLDEST)


def test_lookups_of_pruned_blocks_go_with_them(store: Store) -> None:
    chain = chain_of(store)
    store.checkpoint()
    per_block = sum(segment.entries for segment in store._segments()) // HEIGHT
    for _ in range(5):
        chain.commit(100)
        store.prune(PruningPolicy(keep_blocks=KEEP_BLOCKS_MIN))
        kept = store._segments()
        # Merging drops what is pruned; only the longest segment waits for its turn.
        assert sum(segment.entries for segment in kept) <= 3 * per_block * KEEP_BLOCKS_MIN
        assert all(segment.last > store.pruned_through for segment in kept)
        serials = {int.from_bytes(key[1:9], "big") for key, _ in store._rocks.all_rows(LOOKUPS)}
        assert serials == {segment.serial for segment in kept}


def test_pruning_goes_in_bounded_steps(store: Store) -> None:
    store._pruning = PruningPolicy(keep_blocks=600)
    store.checkpoint()
    reached = []
    while store.maintain():
        reached.append(store.pruned_through)
    assert reached == [STEP_BLOCKS_MAX, 100]


def test_a_node_prunes_in_the_background(home: Path) -> None:
    policy = PruningPolicy(keep_blocks=KEEP_BLOCKS_MIN)
    with Store(
        home,
        genesis().chain_id,
        genesis().digest(),
        pruning=policy,
        checkpoints=CheckpointPolicy(blocks=50),
    ) as store:
        until = time.monotonic() + 60
        while store.pruned_through < OLDEST and time.monotonic() < until:
            time.sleep(0.05)
        check_kept(store, OLDEST)


def test_pruning_does_not_wait_for_a_checkpoint_that_is_far_off(tmp_path: Path) -> None:
    with open_store(tmp_path, PruningPolicy(keep_blocks=KEEP_BLOCKS_MIN)) as store:
        TableChain(store).commit(KEEP_BLOCKS_MIN + 1_100)
        while store.maintain():
            pass
        assert store.pruned_through >= 1_024


def test_blocks_that_come_again_after_pruning_do_no_harm(store: Store) -> None:
    chain = chain_of(store)
    store.prune(PruningPolicy(keep_blocks=KEEP_BLOCKS_MIN))
    store.put_final_blocks([(chain.blocks[0], bytes(32))], None)
    assert store.final_block(1) is None


@pytest.fixture
def pruned_job(tmp_path: Path) -> Iterator[Callable[[int], Store]]:
    stores: list[Store] = []

    def make(blocks: int) -> Store:
        stores.append(open_store(tmp_path))
        chain = Chain.start(stores[0])
        chain.run_job()
        while chain.height < blocks:
            chain.commit(certified=chain.height % 50 == 0)
        stores[0].prune(PruningPolicy(keep_blocks=KEEP_BLOCKS_MIN))
        return stores[0]

    yield make
    for store in stores:
        store.close()


def test_a_receipt_whose_request_is_pruned_says_so(pruned_job: Callable[[int], Store]) -> None:
    store = pruned_job(KEEP_BLOCKS_MIN + JOB_HEIGHT - 1)
    with pytest.raises(Rejection) as caught:
        build_receipt(store, genesis(), JOB)
    assert caught.value.reason is RejectionReason.PRUNED
    assert caught.value.detail == (
        f"job {JOB.hex()} is pruned: this node keeps blocks from height {JOB_HEIGHT}; ask a node "
        "that keeps the archive"
    )


def test_a_job_that_is_wholly_pruned_is_unknown_with_a_hint(
    pruned_job: Callable[[int], Store],
) -> None:
    store = pruned_job(KEEP_BLOCKS_MIN + JOB_HEIGHT)
    with pytest.raises(Rejection) as caught:
        build_receipt(store, genesis(), JOB)
    assert caught.value.reason is RejectionReason.UNKNOWN_JOB
    assert f"(pruned: this node keeps blocks from height {JOB_HEIGHT + 1})" in caught.value.detail
