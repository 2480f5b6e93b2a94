"""A store that died at any point comes back whole: the same tables, the same roots, no gap.

Deaths come in two kinds: the process is killed at a random moment, or the folder is copied between
two writes, which is what a disk holds when a process dies there.
"""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rocksdict import WriteBatch

from chain.genesis import Genesis, save
from chain.leaves import PackedLeaves
from chain.pruning import KEEP_BLOCKS_MIN, PruningPolicy
from chain.snapshots import create_snapshot, restore_snapshot
from chain.store import STORE_NAME, Store
from chain.store_checkpoint import CheckpointPolicy
from tests.builders import genesis
from tests.chain import table_chain
from tests.chain.executed_chain import ExecutedChain, state_root
from tests.chain.table_chain import TableChain, UnsyncedRocks, rows_of

LONG = KEEP_BLOCKS_MIN + 60
"""Blocks of a store that has something to prune."""
PRUNING = PruningPolicy(keep_blocks=KEEP_BLOCKS_MIN)


def open_store(path: Path, rocks: type[UnsyncedRocks] = UnsyncedRocks) -> Store:
    return Store(path, genesis().chain_id, genesis().digest(), background=False, open_rocks=rocks)


def check_whole(store: Store) -> TableChain:
    """All that a store must hold at its height is there; the chain that continues it."""
    chain = TableChain(store)
    height = store.height
    assert height is not None
    assert store.final_height == height
    assert store.execution_root == chain.roots[height]
    assert rows_of(store) == chain.tables.rows()
    first = store.pruned_through
    near = {*range(1, 4), *range(first - 3, first + 10), *range(height - 30, height + 1)}
    for at in sorted(near & set(range(1, height + 1))):
        stored = store.block_by_height(at)
        location = store.transaction_location(table_chain.transaction(at))
        if at <= store.pruned_through:
            assert (stored, location) == (None, None)
            assert store.receipts_at(at) == PackedLeaves()
            continue
        assert stored is not None
        assert (stored.block, stored.execution_root) == (chain.blocks[at - 1], chain.roots[at])
        assert location is not None
        assert location.height == at
        assert store.payload(table_chain.payload_digest(at)) == table_chain.payload(at)
        assert store.batch_by_digest(stored.block.cut[0].digest) == table_chain.batch(at)
    assert store.block_by_height(height + 1) is None
    return chain


class CopyingRocks(UnsyncedRocks):
    """Copies the database before each write: where a process could have died."""

    folder: Path | None = None
    copies = 0

    def write(self, changes: WriteBatch, sync: bool) -> None:
        """Copy, then write."""
        if self.folder is not None:
            CopyingRocks.copies += 1
            shutil.copytree(self._path, self.folder / str(self.copies) / "rocks")
        super().write(changes, sync)


@pytest.fixture
def kill_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "kills"
    folder.mkdir()
    monkeypatch.setattr(CopyingRocks, "copies", 0)
    monkeypatch.setattr(CopyingRocks, "folder", None)
    return folder


def check_kill_points(folder: Path, least: int) -> list[int]:
    """Each copy comes back whole and goes on; their heights, in order."""
    heights = []
    for number in range(1, CopyingRocks.copies + 1):
        with open_store(folder / str(number)) as store:
            chain = check_whole(store)
            heights.append(chain.height)
            chain.commit(2)
            assert rows_of(store) == chain.tables.rows()
        shutil.rmtree(folder / str(number))
    assert len(heights) >= least
    return heights


def test_a_death_between_any_two_writes_of_commits_and_checkpoints(
    tmp_path: Path, kill_points: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chain.rocks.STEP_BYTES_MAX", 1)  # a step for each row
    with open_store(tmp_path / "home", CopyingRocks) as store:
        chain = TableChain(store)
        chain.commit(2)
        monkeypatch.setattr(CopyingRocks, "folder", kill_points)
        chain.commit(3)
        store.checkpoint()
        chain.commit(1)
        store.checkpoint()
        chain.commit(4)
        store.checkpoint()
    heights = check_kill_points(kill_points, least=30)
    assert heights == sorted(heights)
    assert {2, 3, 4, 5, 6, 7, 8, 9, 10} == set(heights)


@pytest.fixture(scope="module")
def long_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "home"
    with open_store(path) as store:
        TableChain(store).commit(LONG)
    return path


def test_a_death_between_any_two_writes_of_pruning(
    long_home: Path, tmp_path: Path, kill_points: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chain.pruning.STEP_BLOCKS_MAX", 10)
    shutil.copytree(long_home, tmp_path / "home")
    with open_store(tmp_path / "home", CopyingRocks) as store:
        store.checkpoint()
        monkeypatch.setattr(CopyingRocks, "folder", kill_points)
        assert store.prune(PRUNING) == 60
        TableChain(store).commit()
        assert store.prune(PRUNING) == 1
    check_kill_points(kill_points, least=8)


# --- real deaths ------------------------------------------------------------------------------


def killed_writer(path: Path, folder: Path, random: Random, *options: str) -> int:
    """Run a writer and kill it at some moment; the last height it told."""
    genesis_file = folder / "genesis.json"
    save(genesis(), genesis_file)
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.chain.store_writer", str(path), str(genesis_file), *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    for _ in range(random.randrange(1, 40)):
        told = int(writer.stdout.readline())
    time.sleep(random.random() / 50)
    writer.send_signal(signal.SIGKILL)
    told = max([told, *map(int, writer.stdout.read().split())])
    writer.wait()
    return told


def test_a_process_killed_again_and_again_leaves_whole_blocks(tmp_path: Path) -> None:
    random = Random(1)
    for _ in range(3):
        told = killed_writer(tmp_path / "home", tmp_path, random)
        with open_store(tmp_path / "home") as store:
            assert store.height in {told, told + 1}
            check_whole(store).commit()


def test_a_process_killed_while_it_prunes(long_home: Path, tmp_path: Path) -> None:
    random = Random(2)
    home = Path(shutil.copytree(long_home, tmp_path / "home"))
    for _ in range(3):
        told = killed_writer(home, tmp_path, random, "prune")
        with open_store(home) as store:
            assert store.height in {told, told + 1}
            check_whole(store)
            assert store.pruned_through <= told - KEEP_BLOCKS_MIN + 1
    assert store.pruned_through > 0


# --- prune x snapshot x restart, with a real ledger ---------------------------------------------


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, bytes]]:
    """A store of LONG executed blocks, and every root up to some blocks more."""
    folder = tmp_path_factory.mktemp("executed")
    with open_store(folder / "home") as store:
        chain = ExecutedChain(store)
        chain.commit(LONG)
        chain.close()
    shutil.copytree(folder / "home", folder / "twin")
    with open_store(folder / "twin") as store:
        chain = ExecutedChain(store)
        chain.commit(40)
        chain.close()
        roots = dict(store.execution_roots(LONG + 40))
    return folder / "home", roots


STEPS = ("commit", "checkpoint", "prune", "snapshot", "restart", "death")


@settings(max_examples=8, deadline=None)
@given(st.lists(st.sampled_from(STEPS), min_size=3, max_size=8))
def test_pruning_snapshots_and_restarts_in_any_order(
    executed: tuple[Path, dict[int, bytes]],
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[str],
) -> None:
    home, roots = executed
    folder = tmp_path_factory.mktemp("matrix")
    path = Path(shutil.copytree(home, folder / "0" / STORE_NAME))
    store = open_store(path)
    for number, step in enumerate(steps, 1):
        if step == "commit":
            chain = ExecutedChain(store)
            chain.commit(3)
            chain.close()
        elif step == "checkpoint":
            store.checkpoint()
        elif step == "prune":
            store.prune(PRUNING)
        elif step == "snapshot":
            create_snapshot(store, genesis(), folder / f"snapshot-{number}")
            store.close()
            restore_snapshot(folder / f"snapshot-{number}", folder / str(number), genesis())
            path = folder / str(number) / STORE_NAME
            store = open_store(path)
        else:
            if step == "death":
                shutil.copytree(path, folder / str(number) / STORE_NAME)
                path = folder / str(number) / STORE_NAME
            store.close()
            store = open_store(path)
        check_executed(store, roots)
    store.close()
    shutil.rmtree(folder)


def check_executed(store: Store, roots: dict[int, bytes]) -> None:
    height = store.height
    assert height is not None
    assert store.execution_root == roots[height]
    state_root(store)
    kept = range(store.pruned_through + 1, height + 1)
    assert dict(store.execution_roots(len(kept))) == {at: roots[at] for at in kept}
    for at in (*kept[:3], *kept[-3:]):
        stored = store.block_by_height(at)
        assert stored is not None
        assert store.batch_by_digest(
            stored.block.cut[at % 4 if len(stored.block.cut) == 4 else 0].digest
        )
        assert len(store.receipts_at(at)) > 0
        for slot, leaf in enumerate(store.receipts_at(at)):
            location = store.transaction_location(leaf[1:33])
            assert location is not None
            assert (location.height, location.index) == (at, slot)


def test_a_background_that_is_killed_is_caught_up_by_the_next_process(tmp_path: Path) -> None:
    """The policy of the next process may be another one."""
    killed_writer(tmp_path / "home", tmp_path, Random(3))
    chain_genesis: Genesis = genesis()
    with Store(
        tmp_path / "home",
        chain_genesis.chain_id,
        chain_genesis.digest(),
        checkpoints=CheckpointPolicy(blocks=1_000),
    ) as store:
        check_whole(store).commit(3)
    with open_store(tmp_path / "home") as store:
        check_whole(store)
