"""From a snapshot's files to a store, and the store into its home: nothing is believed on the way.

The new store is made beside the old one. It counts only when its tables, as a ledger, hash to the
state root that the anchor proves, and the block's receipts and events to theirs. Then it takes the
old one's place by renames, so that a process killed anywhere finds one or the other, whole.
"""

import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chain.execution import Ledger, LedgerMeta
from chain.execution.jobs import request_digest, result_digest
from chain.genesis import Genesis
from chain.leaves import PackedLeaves
from chain.node.worker import genesis_ledger
from chain.records import ExecutionLink
from chain.rocks import StoreError
from chain.snapshot_anchor import Anchored, SnapshotInvalid
from chain.state import State, StateError
from chain.state_snapshots import Frame, FrameKind, needed_payloads, read_frames
from chain.store import STORE_NAME, Store
from chain.store_rows import BlockCommit, JobOrigin, StateBase, leaves_of_row
from chain.transactions import job_id
from consensus.beacon import genesis_beacon
from consensus.wire import DecodeError, decode
from ext.tables import ROW_NUMBER_BYTES

INCOMING_NAME: Final = "incoming"
"""Where a snapshot is gathered: a folder in it, named by the content it holds a part of."""
READY_NAME: Final = "store.incoming"
"""A checked store that takes the old one's place at the next start."""
UNFINISHED_NAME: Final = "store.unfinished"
REPLACED_NAME: Final = "store.replaced"
FREE_NUMBERS_MAX: Final = 1 << 22
"""Row numbers without a row, over all tables: each takes a table some 160 bytes, so a few rows
with high numbers would fill the memory of whoever loads them, before the roots tell what they are.
"""

logger = logging.getLogger(__name__)


def install_snapshot(folder: Path, data: Path, genesis: Genesis, anchored: Anchored) -> None:
    """Make a store of a snapshot's state, ready to take its place in a home's data folder.

    Raises SnapshotInvalid if the state is not the one that the anchor proves, OSError or StoreError
    if the disk does not do its part. What is left of an attempt goes with the next one.
    """
    unfinished, ready = data / UNFINISHED_NAME, data / READY_NAME
    _drop_ready(data)
    with Store(unfinished, genesis.chain_id, genesis.digest(), background=False) as store:
        try:
            _fill(store, folder, genesis, anchored)
        except (StateError, DecodeError, ValueError) as error:
            raise SnapshotInvalid(f"the state is none: {error}") from error
    unfinished.rename(ready)
    _sync(data)


def take_place(data: Path, genesis: Genesis, own_index: int) -> bool:
    """Put a ready store into place, if there is one; whether it was. For a stopped node.

    Own batches above the snapshot's cut come along: peers know them, and a lane that forgot them
    would fork. Raises StoreError.
    """
    ready, store, replaced = data / READY_NAME, data / STORE_NAME, data / REPLACED_NAME
    taken = False
    if ready.exists():
        taken = not store.exists() or _carry(store, ready, genesis, own_index)
        if taken:
            if store.exists():
                shutil.rmtree(replaced, ignore_errors=True)
                store.rename(replaced)
            ready.rename(store)
            _sync(data)
            shutil.rmtree(data / INCOMING_NAME, ignore_errors=True)
        else:
            logger.info("the fetched snapshot is older than the store by now and is dropped")
    elif replaced.exists() and not store.exists():
        replaced.rename(store)
    shutil.rmtree(replaced, ignore_errors=True)
    _drop_ready(data)
    return taken


def _drop_ready(data: Path) -> None:
    """Away with a ready store, in one step, as half of one would be taken for a whole one; and with
    what was not finished."""
    ready, unfinished = data / READY_NAME, data / UNFINISHED_NAME
    shutil.rmtree(unfinished, ignore_errors=True)
    if ready.exists():
        ready.rename(unfinished)
        shutil.rmtree(unfinished, ignore_errors=True)


def _carry(old_path: Path, new_path: Path, genesis: Genesis, own_index: int) -> bool:
    """Copy own batches above the new store's cut; False if the old store is no older."""
    identity = genesis.chain_id, genesis.digest()
    with (
        Store(old_path, *identity, background=False) as old,
        Store(new_path, *identity, background=False) as new,
    ):
        if old.final_height >= new.final_height:
            return False
        found = new.final_block(new.height or 0)
        epoch = 0 if found is None else found[0].epoch
        cut = {} if found is None else {tip.lane: tip.sequence for tip in found[0].cut}
        sequence = cut.get(own_index, 0) + 1
        while headers := old.batch_headers(own_index, sequence, 1, epoch):
            batch = old.batch_by_digest(headers[0].digest())
            if batch is None:
                raise StoreError(f"own batch {sequence} is missing from {old_path}")
            new.put_batch(batch)
            sequence = headers[0].sequence + 1
    return True


def _fill(store: Store, folder: Path, genesis: Genesis, anchored: Anchored) -> None:
    link = anchored.link
    frames = _Frames(read_frames(folder), link)
    first = genesis_ledger(genesis)
    base = StateBase(
        genesis_link=first.genesis_link(),
        genesis_root=first.execution_root,
        genesis_beacon=genesis_beacon(genesis.digest()),
        finalized=anchored.finalized,
        certificate=anchored.certificate,
    )
    for boundary in anchored.boundaries:
        store.put_boundary(boundary)
    store.begin_base(base, frames.records(), frames.accounts())
    block, beacon = anchored.finalized[0]
    meta = LedgerMeta(link.height, block.timestamp_ms, anchored.execution_root)
    state = State.from_rows(store.load_records(), store.load_accounts())
    if state.root() != link.state_root:  # before anything is concluded from its rows
        raise SnapshotInvalid(
            f"the state hashes to {state.root().hex()}, the chain's at height "
            f"{link.height} is {link.state_root.hex()}"
        )
    ledger = Ledger(genesis.chain_id, state, meta)
    opened = dict(ledger.open_jobs())
    payloads = dict(frames.payloads())
    if sorted(payloads) != needed_payloads(opened.values()):
        raise SnapshotInvalid("the requests and results are not those of the open jobs")
    origins = list(frames.origins())
    if [origin.job for origin in origins] != sorted(opened):
        raise SnapshotInvalid("the origins are not those of the open jobs")
    oldest = next(iter(opened.values()), None)
    store.commit_base(
        BlockCommit(
            block=block,
            beacon=beacon,
            certificate=None,
            link=link,
            execution_root=anchored.execution_root,
            receipt_leaves=frames.leaves(FrameKind.RECEIPTS),
            events=frames.leaves(FrameKind.EVENTS),
            journal=(),
            oldest_open_height=None if oldest is None else oldest.requested_height,
            payloads=sorted(payloads.items()),
            job_origins=origins,
        )
    )


class _Frames:
    """The frames of one state, taken in their order, each checked as far as it can be alone."""

    def __init__(self, frames: Iterator[Frame], link: ExecutionLink) -> None:
        self._frames = frames
        self._link = link
        self._next: Frame | None = next(frames, None)

    def _of(self, kind: FrameKind) -> Iterator[Frame]:
        while self._next is not None and self._next.kind is kind:
            yield self._next
            self._next = next(self._frames, None)

    def records(self) -> Iterator[tuple[int, bytes, bytes]]:
        ends: Counter[int] = Counter()
        rows = 0
        before = (0, b"")
        for frame in self._of(FrameKind.RECORD):
            if (frame.table, frame.key) <= before:
                raise SnapshotInvalid(f"row {frame.key.hex()} of table {frame.table} is misplaced")
            before = frame.table, frame.key
            number = int.from_bytes(frame.value[:ROW_NUMBER_BYTES], "little")
            ends[frame.table] = max(ends[frame.table], number + 1)
            rows += 1
            yield frame.table, frame.key, frame.value
        if ends.total() - rows > FREE_NUMBERS_MAX:
            raise SnapshotInvalid(
                f"{rows} rows of the tables stand among {ends.total()} numbers, at most "
                f"{FREE_NUMBERS_MAX} may be free"
            )

    def accounts(self) -> Iterator[bytes]:
        for frame in self._of(FrameKind.ACCOUNTS):
            yield frame.value

    def payloads(self) -> Iterator[tuple[bytes, bytes]]:
        for frame in self._of(FrameKind.PAYLOAD):
            if frame.key not in {request_digest(frame.value), result_digest(frame.value)}:
                raise SnapshotInvalid(f"a payload has not the digest {frame.key.hex()}")
            yield frame.key, frame.value

    def origins(self) -> Iterator[JobOrigin]:
        for frame in self._of(FrameKind.ORIGIN):
            origin = decode(JobOrigin, frame.value)
            if origin.job != frame.key or origin.job != job_id(
                origin.transaction, origin.operation
            ):
                raise SnapshotInvalid(f"the origin of job {frame.key.hex()} is another's")
            yield origin

    def leaves(self, kind: FrameKind) -> PackedLeaves:
        """The leaves of the snapshot's block, which hash to the root that the anchor proves."""
        found = [leaves_of_frame(frame) for frame in self._of(kind)]
        leaves = found[0] if len(found) == 1 else PackedLeaves()
        is_receipts = kind is FrameKind.RECEIPTS
        root = self._link.receipts_root if is_receipts else self._link.events_root
        if len(found) != 1 or leaves.root() != root:
            raise SnapshotInvalid(f"the {kind.name.lower()} are not those of the block")
        return leaves


def leaves_of_frame(frame: Frame) -> PackedLeaves:
    """Raises SnapshotInvalid."""
    try:
        return leaves_of_row(frame.value)
    except StoreError as error:
        raise SnapshotInvalid(f"the {frame.kind.name.lower()} cannot be read") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
