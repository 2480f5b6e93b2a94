"""Space is given back in slices, between which the tables get their turn."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chain import pruning
from chain.pruning import PLACE_SLICES, PruningPolicy
from chain.rocks import Rocks
from chain.store import Store
from chain.store_checkpoint import CheckpointPolicy
from chain.store_rows import BATCH, BY_HEIGHT, LANE, PLACE, PRUNED_KEY
from tests.builders import genesis
from tests.chain.table_chain import TableChain, UnsyncedRocks, rows_of

KEPT = 4
SLICES = len(BY_HEIGHT) + 2 + PLACE_SLICES
"""With one lane."""


@pytest.fixture
def compacted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """The ranges of keys that were compacted. A few blocks are enough to forget, and to compact."""
    ranges: list[tuple[bytes, bytes]] = []
    compact = Rocks.compact

    def noted(rocks: Rocks, start: bytes, end: bytes) -> None:
        ranges.append((start, end))
        compact(rocks, start, end)

    monkeypatch.setattr(Rocks, "compact", noted)
    monkeypatch.setattr(pruning, "KEEP_BLOCKS_MIN", KEPT)
    monkeypatch.setattr(pruning.Pruner.compact, "__defaults__", (1,))
    return ranges


@pytest.fixture
def store(tmp_path: Path, compacted: list[tuple[bytes, bytes]]) -> Iterator[Store]:
    with Store(
        tmp_path / "store",
        genesis().chain_id,
        genesis().digest(),
        pruning=PruningPolicy(keep_blocks=KEPT),
        checkpoints=CheckpointPolicy(blocks=8),
        background=False,
        open_rocks=UnsyncedRocks,
    ) as opened:
        yield opened


def until_pruned(store: Store, compacted: list[tuple[bytes, bytes]]) -> None:
    """Steps of upkeep up to the first slice."""
    while not compacted:
        assert store.maintain()


def test_a_step_of_upkeep_compacts_one_slice_and_all_together_everything(
    store: Store, compacted: list[tuple[bytes, bytes]]
) -> None:
    TableChain(store).commit(16)
    until_pruned(store, compacted)
    through = store.pruned_through
    assert through >= 8
    for count in range(2, SLICES + 1):
        assert store.maintain()
        assert len(compacted) == count
    assert not store.maintain()
    assert len(compacted) == SLICES
    deleted = [kind + height.to_bytes(8, "big") for kind in BY_HEIGHT for height in (1, through)]
    deleted += [PLACE + bytes((first,)) * 32 for first in range(256)]
    deleted += [kind + bytes(8 + 4 + 8) for kind in (BATCH, LANE)]
    for key in deleted:
        assert any(start <= key <= end for start, end in compacted), key


def test_a_checkpoint_that_is_due_does_not_wait_for_the_other_slices(
    store: Store, compacted: list[tuple[bytes, bytes]]
) -> None:
    chain = TableChain(store)
    chain.commit(16)
    until_pruned(store, compacted)
    chain.commit(8)
    before = store._checkpoints.row.height
    assert store.maintain()
    assert store._checkpoints.row.height > before
    assert len(compacted) == 1
    while store.maintain():
        pass
    assert len(compacted) >= SLICES
    assert rows_of(store) == chain.tables.rows()


def test_the_next_time_heights_that_were_compacted_are_left_alone(
    store: Store, compacted: list[tuple[bytes, bytes]]
) -> None:
    chain = TableChain(store)
    chain.commit(16)
    while store.maintain():
        pass
    through = store.pruned_through
    compacted.clear()
    chain.commit(16)
    while store.maintain():
        pass
    assert store.pruned_through > through
    starts = {start for start, _ in compacted}
    assert {kind + through.to_bytes(8, "big") for kind in BY_HEIGHT} < starts


def test_a_tool_that_prunes_gives_all_space_back_at_once(
    store: Store, compacted: list[tuple[bytes, bytes]]
) -> None:
    TableChain(store).commit(16)
    assert store.prune(PruningPolicy(keep_blocks=KEPT)) == 12
    assert len(compacted) == SLICES
    assert store._rocks.get(PRUNED_KEY) is not None
