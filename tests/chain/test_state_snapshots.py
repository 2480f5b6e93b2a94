"""A state in chunks is written alike by all, proves itself, and is refused if anything differs."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chain.pruning import KEEP_BLOCKS_MIN
from chain.rejections import Rejection, RejectionReason
from chain.snapshot_anchor import Anchor, SnapshotInvalid, build_anchor, verify_anchor
from chain.snapshot_install import READY_NAME, REPLACED_NAME, install_snapshot, take_place
from chain.state_snapshots import (
    HEAD_BYTES,
    STATE_FILE_NAME,
    VERSION,
    Frame,
    FrameKind,
    Manifest,
    decode_manifest,
    read_chunk,
    read_frames,
    write_chunk,
    write_state,
)
from chain.store import STORE_NAME, Store
from consensus.values import VoteKind
from consensus.wire import encode
from ext.tables import ROWS_MAX
from tests.builders import certify, genesis
from tests.chain.executed_chain import ExecutedChain, state_root

HEIGHT = 6
ABOVE = 4


def open_store(path: Path) -> Store:
    return Store(path, genesis().chain_id, genesis().digest(), background=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose store went on above HEIGHT, and `state`, the snapshot of that height."""
    home = tmp_path_factory.mktemp("home")
    with open_store(home / STORE_NAME) as store:
        chain = ExecutedChain(store, proves=True)
        chain.commit(HEIGHT)
        (home / "state").mkdir()
        write_state(store, home / "state")
        chain.commit(ABOVE)
        chain.close()
    return home


@pytest.fixture(scope="module")
def anchor(home: Path) -> Anchor:
    with open_store(home / STORE_NAME) as store:
        return build_anchor(store, genesis(), HEIGHT)


def installed(home: Path, anchor: Anchor, data: Path) -> None:
    data.mkdir(exist_ok=True)
    anchored = verify_anchor(anchor, genesis(), HEIGHT)
    install_snapshot(home / "state", data, genesis(), anchored)


def test_a_joined_store_goes_on_as_the_one_it_came_from(
    home: Path, anchor: Anchor, tmp_path: Path
) -> None:
    installed(home, anchor, tmp_path)
    assert take_place(tmp_path, genesis(), 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [STORE_NAME]
    shutil.copytree(home / STORE_NAME, tmp_path / "other")
    with open_store(tmp_path / STORE_NAME) as joined, open_store(tmp_path / "other") as other:
        assert joined.height == HEIGHT
        assert joined.final_height == anchor.blocks[-1].height
        assert joined.execution_root == other.execution_root_at(HEIGHT)
        assert state_root(joined) == other.state_root_at(HEIGHT)
        stored, theirs = joined.block_by_height(HEIGHT), other.block_by_height(HEIGHT)
        assert stored == theirs
        assert joined.receipts_at(HEIGHT) == other.receipts_at(HEIGHT)
        for leaf in joined.receipts_at(HEIGHT):
            assert joined.transaction_location(leaf[1:33]) is not None
        with pytest.raises(Rejection) as caught:
            joined.check_kept(HEIGHT - 1)
        assert caught.value.reason is RejectionReason.PRUNED
        chain = ExecutedChain(joined, proves=True)
        chain.commit(ABOVE)
        chain.close()
        assert joined.execution_root == other.execution_root


def test_two_validators_write_the_same_bytes_though_one_of_them_joined(
    home: Path, anchor: Anchor, tmp_path: Path
) -> None:
    installed(home, anchor, tmp_path)
    take_place(tmp_path, genesis(), 0)
    written = []
    shutil.copytree(home / STORE_NAME, tmp_path / "other")
    for name in (STORE_NAME, "other"):
        with open_store(tmp_path / name) as store:
            chain = ExecutedChain(store, proves=True)
            chain.commit(HEIGHT + ABOVE + 2 - (store.height or 0))
            chain.close()
            (tmp_path / f"{name}-state").mkdir()
            written.append(write_state(store, tmp_path / f"{name}-state"))
    assert written[0] == written[1]


def test_a_joined_store_prunes_on(home: Path, anchor: Anchor, tmp_path: Path) -> None:
    installed(home, anchor, tmp_path)
    take_place(tmp_path, genesis(), 0)
    with open_store(tmp_path / STORE_NAME) as store:
        assert store.pruned_through == HEIGHT - 1
        head = store._head
        assert head is not None
        far = replace(head, height=HEIGHT + KEEP_BLOCKS_MIN + 3)
        store.keep_from(HEIGHT + 1)
        assert store._pruner.target(store._pruning, far) == HEIGHT - 1


def test_there_is_one_way_to_write_a_state(home: Path, anchor: Anchor, tmp_path: Path) -> None:
    state = (home / "state" / STATE_FILE_NAME).read_bytes()
    place, kinds = 0, set()
    for frame in read_frames(home / "state"):
        if frame.kind is not FrameKind.RECORD and frame.kind not in kinds:
            kinds.add(frame.kind)
            folder = tmp_path / frame.kind.name
            (folder / "state").mkdir(parents=True)
            changed = state[: place + 1] + bytes((frame.table + 1,)) + state[place + 2 :]
            (folder / "state" / STATE_FILE_NAME).write_bytes(changed)
            with pytest.raises(SnapshotInvalid, match="names a table or a key"):
                installed(folder, anchor, folder / "data")
        place += HEAD_BYTES + len(frame.key) + len(frame.value)
    assert len(kinds) >= 3


@given(data=st.data())
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_state_with_one_bit_changed_is_refused_and_leaves_nothing(
    home: Path, anchor: Anchor, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    state = bytearray((home / "state" / STATE_FILE_NAME).read_bytes())
    place = data.draw(st.integers(0, len(state) - 1))
    state[place] ^= 1 << data.draw(st.integers(0, 7))
    changed = tmp_path_factory.mktemp("changed")
    (changed / "state").mkdir()
    (changed / "state" / STATE_FILE_NAME).write_bytes(state)
    with pytest.raises(SnapshotInvalid):
        installed(changed, anchor, changed / "data")
    assert not (changed / "data" / READY_NAME).exists()
    assert not take_place(changed / "data", genesis(), 0)


def test_a_state_that_ends_early_is_refused(home: Path, anchor: Anchor, tmp_path: Path) -> None:
    state = (home / "state" / STATE_FILE_NAME).read_bytes()
    frames = list(read_frames(home / "state"))
    ends = {0, 5, len(state) // 2, len(state) - 1, len(state) - 8 - len(frames[-1].value)}
    for end in sorted(ends):
        folder = tmp_path / str(end)
        (folder / "state").mkdir(parents=True)
        (folder / "state" / STATE_FILE_NAME).write_bytes(state[:end])
        with pytest.raises(SnapshotInvalid):
            installed(folder, anchor, folder / "data")


def with_records(home: Path, folder: Path, records: list[tuple[int, bytes, bytes]]) -> None:
    """Write the home's state with other records in it."""
    folder.mkdir(parents=True)
    others = [frame for frame in read_frames(home / "state") if frame.kind is not FrameKind.RECORD]
    frames = [Frame(FrameKind.RECORD, *record) for record in records] + others
    with (folder / STATE_FILE_NAME).open("wb") as file:
        for frame in frames:
            sizes = len(frame.key).to_bytes(2, "little") + len(frame.value).to_bytes(4, "little")
            file.write(bytes((frame.kind, frame.table)) + sizes + frame.key + frame.value)


def records_of(home: Path) -> list[tuple[int, bytes, bytes]]:
    frames = read_frames(home / "state")
    return [(f.table, f.key, f.value) for f in frames if f.kind is FrameKind.RECORD]


def test_a_few_rows_with_high_numbers_are_refused_before_they_fill_the_memory(
    home: Path, anchor: Anchor, tmp_path: Path
) -> None:
    top = (ROWS_MAX - 1).to_bytes(4, "little")
    high = [(table, key, top + value[4:]) for table, key, value in records_of(home)]
    with_records(home, tmp_path / "state", high)
    with pytest.raises(SnapshotInvalid, match="may be free"):
        installed(tmp_path, anchor, tmp_path / "data")


def test_rows_out_of_order_or_twice_are_refused(home: Path, anchor: Anchor, tmp_path: Path) -> None:
    good = records_of(home)
    for name, records in (("turned", good[::-1]), ("twice", [good[0], *good])):
        with_records(home, tmp_path / name / "state", records)
        with pytest.raises(SnapshotInvalid, match="misplaced"):
            installed(tmp_path / name, anchor, tmp_path / name / "data")


def test_a_disk_that_takes_a_part_of_a_chunk_gets_the_rest_or_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / STATE_FILE_NAME).touch()
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: real(file, data[:1000], at))
    write_chunk(tmp_path, 1, bytes(range(256)) * 16)
    assert read_chunk(tmp_path, 1) == bytes(range(256)) * 16


# --- the anchor ---------------------------------------------------------------------------------


def forged(anchor: Anchor, **changes: Any) -> Anchor:
    return replace(anchor, **changes)


FORGERIES: dict[str, Callable[[Anchor], Anchor]] = {
    "is not good: signers hold": lambda a: forged(
        a, certificate=certify(genesis(), a.blocks[-1], signers=(0, 1))
    ),
    "does not finalize": lambda a: forged(
        a, certificate=certify(genesis(), a.blocks[-1], kind=VoteKind.NOTARIZE)
    ),
    "is not good: signature": lambda a: forged(
        a, certificate=replace(a.certificate, signatures=(bytes(64),) * 3)
    ),
    "does not follow": lambda a: forged(a, blocks=(a.blocks[0], *a.blocks[2:])),
    "do not begin at height": lambda a: forged(a, blocks=a.blocks[1:]),
    "no block vouches": lambda a: forged(
        a, links=(replace(a.links[0], state_root=bytes(32)), *a.links[1:])
    ),
    "or have gaps": lambda a: forged(a, links=()),
    "beacon before block": lambda a: forged(a, previous_beacon=bytes(32)),
    "no block vouches for": lambda a: forged(a, previous_root=bytes(32)),
}


@pytest.mark.parametrize("fault", FORGERIES)
def test_an_anchor_that_proves_something_else_is_refused(anchor: Anchor, fault: str) -> None:
    assert verify_anchor(anchor, genesis(), HEIGHT).link.height == HEIGHT
    with pytest.raises(SnapshotInvalid, match=fault):
        verify_anchor(FORGERIES[fault](anchor), genesis(), HEIGHT)


def test_an_anchor_of_another_height_is_refused(anchor: Anchor) -> None:
    for height in (HEIGHT - 1, HEIGHT + 1):
        with pytest.raises(SnapshotInvalid, match="do not begin at height"):
            verify_anchor(anchor, genesis(), height)


def test_the_newest_block_is_not_vouched_for_yet(home: Path) -> None:
    with open_store(home / STORE_NAME) as store, pytest.raises(Rejection) as caught:
        build_anchor(store, genesis(), HEIGHT + ABOVE)
    assert caught.value.reason is RejectionReason.NOT_READY


# --- the manifest -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"version": 2}, "of version 2"),
        ({"chain_id": "other"}, "of another chain"),
        ({"genesis": bytes(32)}, "of another chain"),
        ({"chunks": ()}, "are not 0 chunks"),
        ({"state_bytes": (1 << 20) + 1}, "are not 1 chunks"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(
    anchor: Anchor, changes: dict[str, Any], match: str
) -> None:
    chain = genesis()
    good = Manifest(VERSION, chain.chain_id, chain.digest(), HEIGHT, 9, (bytes(32),), anchor)
    assert decode_manifest(encode(good), chain) == good
    with pytest.raises(SnapshotInvalid, match=match):
        decode_manifest(encode(replace(good, **changes)), chain)
    with pytest.raises(SnapshotInvalid, match="cannot be read"):
        decode_manifest(encode(good) + b"x", chain)


# --- taking the old store's place ---------------------------------------------------------------


def test_own_batches_above_the_cut_come_along_and_an_older_snapshot_does_not(
    home: Path, anchor: Anchor, tmp_path: Path
) -> None:
    installed(home, anchor, tmp_path)
    with open_store(tmp_path / STORE_NAME) as old:
        chain = ExecutedChain(old, proves=True)
        chain.commit(2)
        chain.close()
        batch = old.batch(1, 1)
    assert batch is not None
    ahead = replace(batch, header=replace(batch.header, sequence=100))
    with open_store(tmp_path / STORE_NAME) as old:
        old.put_batch(ahead)
    assert take_place(tmp_path, genesis(), 1)
    with open_store(tmp_path / STORE_NAME) as joined:
        assert joined.height == HEIGHT
        assert joined.lane_tip(1) == ahead.header
        assert joined.batch_by_digest(ahead.header.digest()) == ahead
    installed(home, anchor, tmp_path)
    with open_store(tmp_path / STORE_NAME) as joined:
        chain = ExecutedChain(joined, proves=True)
        chain.commit(ABOVE + 2)
        chain.close()
        height = joined.height
    assert not take_place(tmp_path, genesis(), 1)
    with open_store(tmp_path / STORE_NAME) as joined:
        assert joined.height == height
    assert not (tmp_path / READY_NAME).exists()


def test_a_process_killed_while_it_drops_an_old_snapshot_starts_again(
    home: Path, anchor: Anchor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home / STORE_NAME, tmp_path / STORE_NAME)
    installed(home, anchor, tmp_path)

    def killed(path: Path, **_: bool) -> None:
        """Dies with a part of the files removed."""
        files = sorted(found for found in path.rglob("*") if found.is_file())
        for file in files:
            if file.name == "CURRENT":
                file.unlink()
        if files:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", killed)
        take_place(tmp_path, genesis(), 0)
    assert not take_place(tmp_path, genesis(), 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [STORE_NAME]
    with open_store(tmp_path / STORE_NAME) as store:
        assert store.height == HEIGHT + ABOVE


@pytest.mark.parametrize("killed_after", ["first rename", "second rename"])
def test_a_process_killed_between_the_renames_finds_a_whole_store(
    home: Path, anchor: Anchor, tmp_path: Path, killed_after: str
) -> None:
    installed(home, anchor, tmp_path)
    with open_store(tmp_path / STORE_NAME) as old:
        chain = ExecutedChain(old, proves=True)
        chain.commit(2)
        chain.close()
    (tmp_path / STORE_NAME).rename(tmp_path / REPLACED_NAME)
    if killed_after == "second rename":
        (tmp_path / READY_NAME).rename(tmp_path / STORE_NAME)
    take_place(tmp_path, genesis(), 0)
    with open_store(tmp_path / STORE_NAME) as store:
        assert store.height == HEIGHT
    assert sorted(path.name for path in tmp_path.iterdir()) == [STORE_NAME]
