"""From final blocks to execution: fetch what is missing, hand over in height order, each block
once.

What a block adds to a lane is the walk back from its tip to the sequence its predecessor's cut
reached. Batches are named by hash all the way, so everybody walks the same way and may fetch
from anyone: the owner first, then the others in turn.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from consensus.blocktree import Node
from consensus.context import Context
from consensus.events import Deliver, LaneIncrement
from consensus.evidence import SignedHeader
from consensus.lanes import Cut, Lanes
from consensus.messages import BATCHES_PER_REQUEST_MAX, BatchRequest
from consensus.values import Certificate, Tip

WALKING_BLOCKS_MAX: Final = 16
"""Undelivered blocks whose batches are fetched at the same time."""


@dataclass(slots=True)
class _Walk:
    """One lane's part of one block, from its tip downwards."""

    lane: int
    floor: int
    tip: Tip
    digests: list[bytes] = field(default_factory=list)
    missing: Tip | None = None
    asked_ms: int = 0
    attempt: int = 0
    outstanding: int = 0


@dataclass(slots=True)
class _Pending:
    """A final block that waits for delivery."""

    node: Node
    certificate: Certificate | None
    walks: list[_Walk] | None = None


class Delivery:
    """The queue between finality and execution."""

    def __init__(self, context: Context, lanes: Lanes, delivered: Node) -> None:
        self._context = context
        self._lanes = lanes
        self._queue: deque[_Pending] = deque()
        self._waiting: dict[bytes, list[_Walk]] = {}
        self._last_cut: Cut = delivered.block.cut
        """Cut of the newest block whose walks have begun."""
        self.height = delivered.block.height
        """Height of the newest delivered block."""

    def add(self, node: Node, certificate: Certificate | None) -> None:
        """Queue a final block; heights rise by one. `advance` follows the last of them."""
        self._queue.append(_Pending(node, certificate))

    def stored(self, digest: bytes) -> None:
        """A wanted batch has arrived."""
        self._lanes.wanted.discard(digest)
        for walk in self._waiting.pop(digest, []):
            walk.outstanding -= 1
            walk.asked_ms = self._context.now_ms
            self._continue(walk)
        self.advance()

    def advance(self) -> None:
        """Deliver what is complete."""
        self._begin_walks()
        while self._queue and self._complete(self._queue[0]):
            self._deliver(self._queue.popleft())
            self._begin_walks()
        lacking = {walk.lane for walks in self._waiting.values() for walk in walks}
        lacking |= self._unseen()
        healed = sorted(self._lanes.incomplete - lacking)
        self._lanes.incomplete |= lacking
        for lane in healed:
            self._lanes.completed(lane)

    def tick(self) -> None:
        """Ask the next peer for what has not come."""
        context = self._context
        for walks in list(self._waiting.values()):
            walk = walks[0]
            if context.now_ms >= walk.asked_ms + context.resend_ms:
                self._ask(walk)

    def wake_at_ms(self) -> int | None:
        """When `tick` has something to do."""
        if not self._waiting:
            return None
        return min(walks[0].asked_ms for walks in self._waiting.values()) + self._context.resend_ms

    def _begin_walks(self) -> None:
        for position, pending in enumerate(self._queue):
            if position >= WALKING_BLOCKS_MAX:
                return
            if pending.walks is None:
                floors = {tip.lane: tip.sequence for tip in self._last_cut}
                cut = pending.node.block.cut
                pending.walks = [
                    _Walk(tip.lane, floors.get(tip.lane, 0), tip)
                    for tip in cut
                    if tip.sequence > floors.get(tip.lane, 0)
                ]
                self._last_cut = cut
                for walk in pending.walks:
                    self._follow(walk, walk.tip)

    def _unseen(self) -> set[int]:
        """Lanes that blocks move whose walks have not begun: what they lack is not known yet."""
        if not self._queue or self._queue[-1].walks is not None:
            return set()
        seen = {tip.lane: tip.sequence for tip in self._last_cut}
        newest = self._queue[-1].node.block.cut
        return {tip.lane for tip in newest if tip.sequence > seen.get(tip.lane, 0)}

    def _continue(self, walk: _Walk) -> None:
        if walk.missing is not None:
            self._follow(walk, walk.missing)

    def _follow(self, walk: _Walk, tip: Tip) -> None:
        """Go down from `tip` as far as headers are held; then wait for the next one."""
        walk.missing = None
        while tip.sequence > walk.floor:
            known = self._lanes.headers.get(tip.digest)
            if known is None:
                known = self._lanes.take_offered(tip.digest)
                walk.outstanding -= 1 if known is not None else 0
            if known is None:
                self._await(walk, tip)
                return
            header = known.header if isinstance(known, SignedHeader) else known
            walk.digests.append(tip.digest)
            # Not the header's own sequence: what an owner wrote there must not lead us in circles.
            tip = Tip(walk.lane, tip.sequence - 1, header.parent)

    def _await(self, walk: _Walk, tip: Tip) -> None:
        walk.missing = tip
        self._lanes.wanted.add(tip.digest)
        self._waiting.setdefault(tip.digest, []).append(walk)
        if walk.outstanding <= 0:
            self._ask(walk)

    def _ask(self, walk: _Walk) -> None:
        context = self._context
        if walk.missing is None:
            return
        peers = context.validators.others(walk.lane, context.own_index)
        walk.asked_ms = context.now_ms
        if not peers:
            return
        walk.outstanding = min(walk.missing.sequence - walk.floor, BATCHES_PER_REQUEST_MAX)
        peer = peers[walk.attempt % len(peers)]
        walk.attempt += 1
        context.send(peer, BatchRequest(walk.missing, walk.outstanding))

    def _complete(self, pending: _Pending) -> bool:
        return pending.walks is not None and all(walk.missing is None for walk in pending.walks)

    def _deliver(self, pending: _Pending) -> None:
        node = pending.node
        increments = []
        for walk in pending.walks or []:
            digests = tuple(reversed(walk.digests))
            increments.append(LaneIncrement(walk.lane, walk.floor + 1, walk.tip.sequence, digests))
            self._lanes.forget(digests)
        self.height = node.block.height
        self._context.emit(Deliver(node.block, node.beacon, pending.certificate, tuple(increments)))
