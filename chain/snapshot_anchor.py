"""The proof that the chain agreed on a state: from genesis' validators to the state root of a
height.

    certificate of the newest block --parents--> the snapshot's block
    a block among them --executed root--> links --> state, receipts and events root of the height

The beacon is in no header. What stands before the snapshot's block is given and checked by that
block's VRF proof, which holds for one beacon only; those after it follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Final

from chain.genesis import Genesis
from chain.receipts import attestation
from chain.records import ExecutionLink
from chain.store import Store
from consensus import vrf
from consensus.beacon import genesis_beacon, next_beacon
from consensus.certificates import certificate_fault
from consensus.epochs import BoundaryInvalid, EpochBoundary
from consensus.values import Block, Certificate, ValidatorSet, VoteKind
from consensus.wire import Count, Hash

ANCHOR_BLOCKS_MAX: Final = 1_024
"""From a snapshot's block to the certified one that vouches for it: seldom more than a handful."""


class SnapshotInvalid(Exception):
    """What somebody gave as a snapshot is none, or not of this chain. The message says why."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """Nothing in it is believed before `verify_anchor`."""

    previous_root: Hash
    """Execution root before the snapshot's block."""
    previous_beacon: Hash
    links: Annotated[tuple[ExecutionLink, ...], Count(ANCHOR_BLOCKS_MAX)]
    """From the snapshot's block to the height that a block below vouches for."""
    blocks: Annotated[tuple[Block, ...], Count(ANCHOR_BLOCKS_MAX)]
    """From the snapshot's block to the certified one, of consecutive heights."""
    certificate: Certificate
    boundaries: Annotated[tuple[EpochBoundary, ...], Count(ANCHOR_BLOCKS_MAX)] = ()
    """Of the epochs that end among these blocks."""


@dataclass(frozen=True, slots=True)
class Anchored:
    """What an anchor proves."""

    link: ExecutionLink
    execution_root: bytes
    """After the snapshot's block."""
    finalized: tuple[tuple[Block, bytes], ...]
    """(block, beacon), from the snapshot's block on."""
    certificate: Certificate
    """Finalizes the last of them."""
    boundaries: tuple[EpochBoundary, ...] = ()
    """Of epochs that are over, as far as they were needed."""


def build_anchor(store: Store, genesis: Genesis, height: int) -> Anchor:
    """The anchor of an executed height. Raises Rejection (NOT_READY) while no certified block
    vouches for it, ValueError if the blocks are pruned or too many."""
    header, links = attestation(store, height)
    certified = store.certificate_at(header.height)
    previous_root = store.execution_root_at(height - 1)
    before = store.final_block(height - 1)
    previous_beacon = before[1] if before is not None else None
    if height == 1:
        previous_beacon = genesis_beacon(genesis.digest())
    if certified is None or previous_root is None or previous_beacon is None:
        raise ValueError(f"what precedes or certifies block {height} is not stored")
    count = certified[0] - height + 1
    blocks = store.final_blocks_from(height, min(count, ANCHOR_BLOCKS_MAX + 1))
    if count > ANCHOR_BLOCKS_MAX or len(blocks) != count or len(links) > ANCHOR_BLOCKS_MAX:
        raise ValueError(f"{count} blocks prove height {height}, allowed are {ANCHOR_BLOCKS_MAX}")
    ended = store.boundaries(blocks[0].epoch, blocks[-1].epoch - blocks[0].epoch)
    return Anchor(previous_root, previous_beacon, links, tuple(blocks), certified[1], tuple(ended))


def verify_anchor(
    anchor: Anchor, genesis: Genesis, height: int, trusted: ValidatorSet | None = None
) -> Anchored:
    """What the anchor proves of a height, to who trusts the validators of its epoch; by default
    genesis'. Raises SnapshotInvalid."""
    _check_chain(anchor.blocks, height)
    sets = _sets(anchor, genesis, trusted or genesis.validator_set())
    _check_certificate(anchor, genesis, sets)
    root = execution_root = anchor.links[0].extend(anchor.previous_root) if anchor.links else b""
    for link in anchor.links[1:]:
        root = link.extend(root)
    heights = [link.height for link in anchor.links]
    if heights != list(range(height, height + len(heights))) or not heights:
        raise SnapshotInvalid(f"the links do not begin at height {height}, or have gaps")
    claim = heights[-1], root
    if claim not in {(block.executed_height, block.executed_root) for block in anchor.blocks}:
        raise SnapshotInvalid(f"no block vouches for execution root {root.hex()} of {heights[-1]}")
    beacons = _beacons(anchor, sets)
    return Anchored(
        anchor.links[0],
        execution_root,
        tuple(zip(anchor.blocks, beacons, strict=True)),
        anchor.certificate,
        anchor.boundaries,
    )


def _sets(anchor: Anchor, genesis: Genesis, trusted: ValidatorSet) -> dict[int, ValidatorSet]:
    """The validators of each epoch that the blocks are of."""
    sets = {trusted.epoch: trusted}
    try:
        for boundary in anchor.boundaries:
            trusted = boundary.follow(trusted, genesis.chain_id)
            sets[trusted.epoch] = trusted
    except BoundaryInvalid as error:
        raise SnapshotInvalid(str(error)) from error
    for block in anchor.blocks:
        if block.epoch not in sets or block.epoch != genesis.parameters.epoch_of(block.height):
            raise SnapshotInvalid(f"block {block.height} is of epoch {block.epoch}, unknown")
    return sets


def _check_chain(blocks: Sequence[Block], height: int) -> None:
    if not blocks or blocks[0].height != height or height < 1:
        raise SnapshotInvalid(f"the blocks do not begin at height {height}")
    for below, block in pairwise(blocks):
        follows = block.height == below.height + 1 and block.view > below.view
        if not follows or block.parent != below.digest() or block.parent_view != below.view:
            raise SnapshotInvalid(f"block {block.height} does not follow {below.height}")


def _check_certificate(anchor: Anchor, genesis: Genesis, sets: dict[int, ValidatorSet]) -> None:
    body, last = anchor.certificate.body, anchor.blocks[-1]
    if body.kind is not VoteKind.FINALIZE or body.digest != last.digest() or body.view != last.view:
        raise SnapshotInvalid(f"the certificate does not finalize block {last.height}")
    fault = certificate_fault(anchor.certificate, sets[last.epoch], genesis.chain_id)
    if fault is not None:
        raise SnapshotInvalid(f"the certificate of block {last.height} is not good: {fault}")


def _beacons(anchor: Anchor, sets: dict[int, ValidatorSet]) -> list[bytes]:
    beacon = anchor.previous_beacon
    beacons = []
    for block in anchor.blocks:
        proposer = sets[block.epoch].by_index.get(block.proposer)
        key = b"" if proposer is None else proposer.vrf_key
        output = vrf.verify(key, beacon, block.vrf_proof)
        if output is None:
            raise SnapshotInvalid(f"the beacon before block {block.height} is not the chain's")
        beacon = next_beacon(beacon, output)
        beacons.append(beacon)
    return beacons
