"""From what is on disk to a consensus replica that keeps every promise it made.

If the vote log is missing, a new one says so, and the replica stays silent until it knows from its
peers that it can contradict nothing (`consensus.memory`). If it is damaged or another's, this
validator follows the chain as an observer, signs nothing, and says so in its status.
"""

import logging
from dataclasses import dataclass

from chain.genesis import Genesis
from chain.node.config import NodeConfig
from chain.node.signer import NodeKeys
from chain.store import Store, StoreError
from consensus.events import FinalBlock, Recovered, ReplicaConfig, Timing
from consensus.journal import FORGOTTEN, encode_record
from consensus.replica import RecoveryConflict, Replica
from consensus.values import Block
from consensus.wal import FileDirectory, Wal, WalError, WalLocked

EXECUTED_ROOTS = 256
VOTES_FOLDER = "votes"
"""In a home's data folder."""
LANE_HEADERS_MAX = 8192

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """A replica, its log, and why it does not vote, if so."""

    replica: Replica
    log: Wal | None
    directory: FileDirectory
    detail: str


def open_replica(
    config: NodeConfig, genesis: Genesis, keys: NodeKeys, store: Store, now_ms: int
) -> Opened:
    """The replica as the disk has it. Raises WalLocked if another process votes with this home."""
    directory = FileDirectory(config.data / VOTES_FOLDER)
    log: Wal | None = None
    try:
        first = (encode_record(FORGOTTEN),)
        log, records = Wal.open(
            directory, genesis.chain_id, keys.signing.public_key, create=True, first=first
        )
        recovered = _recovered(config.validator, genesis, store, records)
        settings = replica_config(genesis, store, config.validator)
        return Opened(Replica.recover(settings, keys, recovered, now_ms), log, directory, "")
    except WalLocked:
        raise
    except (WalError, RecoveryConflict) as error:
        logger.error("not voting: %s", error)
        settings = replica_config(genesis, store, None)
        recovered = _recovered(config.validator, genesis, store, ())
        replica = Replica.recover(settings, None, recovered, now_ms)
        return Opened(replica, None, directory, str(error))


def replica_config(genesis: Genesis, store: Store, own_index: int | None) -> ReplicaConfig:
    """What the replica must know of its chain."""
    root = store.execution_root_at(0)
    if root is None:
        raise StoreError("the store has no genesis state; remove it and start again")
    return ReplicaConfig(
        chain_id=genesis.chain_id,
        genesis_digest=genesis.digest(),
        genesis_timestamp_ms=genesis.genesis_time_ms,
        genesis_execution_root=root,
        validators=genesis.validator_set(),
        own_index=own_index,
        timing=Timing(),
    )


def _recovered(
    own_index: int, genesis: Genesis, store: Store, records: tuple[bytes, ...]
) -> Recovered:
    height = store.height or 0
    finalized = []
    for number in range(max(height, 1), store.final_height + 1):
        found = store.final_block(number)
        if found is None:
            raise StoreError(f"final block {number} is missing; restore this home from a snapshot")
        finalized.append(FinalBlock(*found))
    certificate = None
    if finalized:
        certified = store.certificate_at(finalized[-1].block.height)
        if certified is None or certified[0] != finalized[-1].block.height:
            raise StoreError(
                f"the certificate of final block {finalized[-1].block.height} is missing; restore "
                "this home from a snapshot"
            )
        certificate = certified[1]
    cut = _executed_cut(store, height)
    headers = [
        header
        for lane in range(len(genesis.validators))
        for header in store.batch_headers(lane, cut.get(lane, 0) + 1, LANE_HEADERS_MAX)
    ]
    return Recovered(
        wal_records=records,
        finalized=tuple(finalized),
        certificate=certificate,
        executed=store.execution_roots(EXECUTED_ROOTS),
        own_tip=store.lane_tip(own_index),
        headers=tuple(headers),
    )


def _executed_cut(store: Store, height: int) -> dict[int, int]:
    found = store.final_block(height) if height else None
    block: Block | None = None if found is None else found[0]
    return {} if block is None else {tip.lane: tip.sequence for tip in block.cut}
