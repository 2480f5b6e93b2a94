"""Takes a stopped node's ledger back to an earlier height by executing the chain anew from genesis.

Nothing that was agreed is undone: final blocks and batches stay, and so does the vote log. Only
what this machine made of them, which a bad disk or a bug may have spoilt, is made anew, into a new
store, which takes the old one's place when it is whole. The node then executes the rest by itself.
Each new execution root is compared with the old one, so this also finds where a store went wrong.

It needs every block from the first: of a pruned store a snapshot is the way back.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chain.execution import Ledger
from chain.genesis import Genesis
from chain.node.recovery import VOTES_FOLDER
from chain.node.worker import block_context, commit_outcome, open_ledger, read_lanes
from chain.rocks import HomeInUseError
from chain.store import STORE_NAME, Store, StoreError
from consensus.events import Deliver, LaneIncrement
from consensus.values import Block, Tip
from consensus.wal import FileDirectory, WalLocked

KEPT_NAME: Final = "store.before-rollback"
"""The old store's folder, beside the new one: for study, or to be deleted."""


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What was done."""

    from_height: int
    to_height: int
    final_height: int
    """The node executes up to it when it starts."""
    differs_at: int | None
    """The first height whose execution root was another one before; None if all are the same."""
    kept: Path
    """The old store."""


def roll_back(data: Path, genesis: Genesis, height: int) -> RolledBack:
    """Put a store at `height` in the place of the one in a data folder.

    Raises StoreError, and leaves the store as it was, if it is in use, has forgotten blocks, is not
    that high, or if an earlier rollback's old store is still there.
    """
    path, kept, unfinished = data / STORE_NAME, data / KEPT_NAME, data / f"{STORE_NAME}.unfinished"
    if kept.exists() and path.exists():
        raise StoreError(f"{kept} is there from an earlier rollback; move it away or delete it")
    try:
        votes = FileDirectory(data / VOTES_FOLDER)  # without it no node starts here meanwhile
    except WalLocked as error:
        raise HomeInUseError(f"{data} is in use by another process: stop that node") from error
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        put_back(data)
        with Store(path, genesis.chain_id, genesis.digest(), background=False) as source:
            from_height = source.height or 0
            _check(source, height)
            with Store(unfinished, genesis.chain_id, genesis.digest(), background=False) as target:
                ledger = open_ledger(genesis, target)
                _copy(source, target)
                differs_at = _replay(source, target, ledger, height)
                final_height = target.final_height
        path.rename(kept)
        unfinished.rename(path)
    finally:
        put_back(data)
        shutil.rmtree(unfinished, ignore_errors=True)
        votes.close()
    return RolledBack(from_height, height, final_height, differs_at, kept)


def put_back(data: Path) -> None:
    """Give a data folder its store again, if a rollback ended between taking it away and putting
    the new one there. For a stopped node."""
    path, kept = data / STORE_NAME, data / KEPT_NAME
    if kept.exists() and not path.exists():
        kept.rename(path)


def _check(source: Store, height: int) -> None:
    if source.pruned_through:
        raise StoreError(
            f"blocks up to {source.pruned_through} are forgotten here, and a ledger is made anew "
            "from the first; restore a snapshot into a new home instead"
        )
    if height > (source.height or 0):
        raise StoreError(f"the store is at height {source.height}; give one that is not above it")


def _copy(source: Store, target: Store) -> None:
    """Batches and final blocks, as ordering left them."""
    for batch in source.batches():
        target.put_batch(batch, sync=False)
    for at in range(1, source.final_height + 1):
        found, certified = source.final_block(at), source.certificate_at(at)
        if found is None:
            raise StoreError(f"final block {at} is missing; restore a snapshot into a new home")
        own = certified[1] if certified is not None and certified[0] == at else None
        target.put_final_blocks([found], own)


def _replay(source: Store, target: Store, ledger: Ledger, height: int) -> int | None:
    """Execute up to a height; the first one where the old store had another root."""
    differs_at: int | None = None
    epoch, cut = 0, tuple[Tip, ...]()
    for at in range(1, height + 1):
        found = source.final_block(at)
        if found is None:
            raise StoreError(f"final block {at} is missing; restore a snapshot into a new home")
        block, beacon = found
        certified = source.certificate_at(at)
        own = certified[1] if certified is not None and certified[0] == at else None
        if block.epoch != epoch:  # whose lanes begin anew
            epoch, cut = block.epoch, ()
        deliver = Deliver(block, beacon, own, tuple(_increments(target, block, cut)))
        outcome = ledger.execute(block_context(deliver), read_lanes(target, deliver))
        commit_outcome(target, ledger, deliver, outcome)
        if differs_at is None and outcome.execution_root != source.execution_root_at(at):
            differs_at = at
        cut = block.cut
    return differs_at


def _increments(store: Store, block: Block, before: tuple[Tip, ...]) -> Iterator[LaneIncrement]:
    """The batches that a block adds to its parent's cut, found from each tip backwards."""
    floors = {tip.lane: tip.sequence for tip in before}
    for tip in block.cut:
        floor, digest = floors.get(tip.lane, 0), tip.digest
        digests: list[bytes] = []
        for sequence in range(tip.sequence, floor, -1):
            batch = store.batch_by_digest(digest)
            if batch is None or batch.header.sequence != sequence:
                raise StoreError(f"batch {sequence} of lane {tip.lane} is missing")
            digests.append(digest)
            digest = batch.header.parent
        if digests:
            yield LaneIncrement(tip.lane, floor + 1, tip.sequence, tuple(reversed(digests)))
