"""From what is on disk to a consensus replica that keeps every promise it made.

If the vote log is missing, a new one says so, and the replica stays silent until it knows from its
peers that it can contradict nothing (`consensus.memory`). If it is damaged or another's, this
validator follows the chain as an observer, signs nothing, and says so in its status.
"""

import logging
from dataclasses import dataclass

from chain.genesis import Genesis
from chain.node.config import NodeConfig
from chain.node.epochs import EpochMembers, last_height
from chain.node.signer import NodeKeys, UnknownKeys
from chain.store import Store, StoreError
from consensus.events import FinalBlock, Recovered, ReplicaConfig, Timing
from consensus.journal import FORGOTTEN, carried, encode_record
from consensus.replica import RecoveryConflict, Replica
from consensus.values import Block
from consensus.wal import FileDirectory, Wal, WalError

EXECUTED_ROOTS = 256
VOTES_FOLDER = "votes"
"""In a home's data folder."""
LANE_HEADERS_MAX = 8192
NO_BEACON = bytes(32)
"""Of a block on which nothing is built any more."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """The replica of an epoch, its log, and why it does not vote, if so."""

    epoch: int
    replica: Replica
    log: Wal | None
    detail: str
    unfinal: tuple[bytes, ...] = ()
    """Own payloads that the epoch before did not make final."""


def open_replica(
    config: NodeConfig,
    genesis: Genesis,
    keys: NodeKeys,
    store: Store,
    directory: FileDirectory,
    members: EpochMembers,
    now_ms: int,
) -> Opened:
    """The replica of an epoch as the disk has it; `directory` is that of the vote log."""
    index, epoch = config.validator, members.epoch
    member = members.member(index)
    try:
        signer = None if member is None else keys.signer(member)
        log, records = Wal.open(
            directory,
            genesis.chain_id,
            keys.signing.public_key if signer is None else signer.signing.public_key,
            create=True,
            first=(encode_record(FORGOTTEN),),
            epoch=epoch,
            carry=carried,
        )
        own_index = None if signer is None else index
        settings = replica_config(genesis, store, members, own_index)
        recovered = _recovered(index, genesis, store, members, records if signer else ())
        replica = Replica.recover(settings, signer, recovered, now_ms)
        detail = "" if signer is not None else _why_not_member(members, index)
        return Opened(epoch, replica, log, detail, _unfinal(store, index, epoch))
    except (WalError, RecoveryConflict, UnknownKeys) as error:
        logger.error("not voting: %s", error)
        settings = replica_config(genesis, store, members, None)
        recovered = _recovered(index, genesis, store, members, ())
        replica = Replica.recover(settings, None, recovered, now_ms)
        return Opened(epoch, replica, None, str(error))


def _why_not_member(members: EpochMembers, index: int) -> str:
    following = members.following
    if following is not None and any(item.index == index for item in following.members):
        return f"validator {index} is not a member until epoch {following.epoch}"
    return f"validator {index} is not a member of epoch {members.epoch}"


def _unfinal(store: Store, index: int, epoch: int) -> tuple[bytes, ...]:
    """Payloads of own batches that the epoch before left, unless sealing them again has begun."""
    if epoch == 0 or store.lane_tip(index, epoch) is not None:
        return ()
    boundary = store.final_block(store.height or 0)
    if boundary is None or boundary[0].epoch != epoch - 1:
        return ()
    final = {tip.lane: tip.sequence for tip in boundary[0].cut}
    headers = store.batch_headers(index, final.get(index, 0) + 1, LANE_HEADERS_MAX, epoch - 1)
    batches = (store.batch_by_digest(header.digest()) for header in headers)
    return tuple(batch.payload for batch in batches if batch is not None)


def replica_config(
    genesis: Genesis, store: Store, members: EpochMembers, own_index: int | None
) -> ReplicaConfig:
    """What the replica must know of its chain."""
    root = store.execution_root_at(0)
    if root is None:
        raise StoreError("the store has no genesis state; remove it and start again")
    return ReplicaConfig(
        chain_id=genesis.chain_id,
        genesis_digest=genesis.digest(),
        genesis_timestamp_ms=genesis.genesis_time_ms,
        genesis_execution_root=root,
        validators=members.validators,
        own_index=own_index,
        timing=Timing(),
        epoch_blocks=genesis.parameters.epoch_blocks,
        root=_root(genesis, store, members.epoch),
        next_validators=members.following,
    )


def _root(genesis: Genesis, store: Store, epoch: int) -> FinalBlock | None:
    """The last block of the epoch before."""
    height = last_height(genesis, epoch - 1) if epoch else None
    if height is None:
        return None
    found = store.final_block(height)
    if found is not None:
        return FinalBlock(*found)
    boundary = store.boundary(epoch - 1)  # the block is pruned, or lies below a snapshot
    if boundary is None:
        raise StoreError(f"the end of epoch {epoch - 1} is missing; restore from a snapshot")
    return FinalBlock(boundary.block, NO_BEACON)


def _recovered(
    own_index: int,
    genesis: Genesis,
    store: Store,
    members: EpochMembers,
    records: tuple[bytes, ...],
) -> Recovered:
    """What is stored of an epoch: a ledger that was taken back may have blocks of later ones."""
    height, epoch = store.height or 0, members.epoch
    end = min(store.final_height, last_height(genesis, epoch) or store.final_height)
    begins = epoch > 0 and height == last_height(genesis, epoch - 1)
    finalized = []
    for number in range(max(height + begins, 1), end + 1):
        found = store.final_block(number)
        if found is None:
            raise StoreError(f"final block {number} is missing; restore this home from a snapshot")
        finalized.append(FinalBlock(*found))
    certificate = None
    if finalized and finalized[-1].block.height != last_height(genesis, epoch):
        certified = store.certificate_at(finalized[-1].block.height)
        if certified is None or certified[0] != finalized[-1].block.height:
            raise StoreError(
                f"the certificate of final block {finalized[-1].block.height} is missing; restore "
                "this home from a snapshot"
            )
        certificate = certified[1]
    cut = {} if begins else _executed_cut(store, height)
    headers = [
        header
        for lane in (member.index for member in members.validators.members)
        for header in store.batch_headers(lane, cut.get(lane, 0) + 1, LANE_HEADERS_MAX, epoch)
    ]
    return Recovered(
        wal_records=records,
        finalized=tuple(finalized),
        certificate=certificate,
        executed=store.execution_roots(EXECUTED_ROOTS),
        own_tip=store.lane_tip(own_index, epoch),
        headers=tuple(headers),
    )


def _executed_cut(store: Store, height: int) -> dict[int, int]:
    found = store.final_block(height) if height else None
    block: Block | None = None if found is None else found[0]
    return {} if block is None else {tip.lane: tip.sequence for tip in block.cut}
