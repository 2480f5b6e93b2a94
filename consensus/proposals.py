"""Proposals by view, and the conditions under which one deserves a vote.

`judge` is the rule book: it says yes, no, or what is still missing. A "no" gives up the view at
once; "not yet" asks for what is missing and leaves the rest to the view's clock.
"""

import enum
from dataclasses import dataclass
from typing import Final

from consensus.ballots import Ballots
from consensus.beacon import next_beacon
from consensus.blocktree import BlockTree, Node
from consensus.context import Context
from consensus.epochs import filler_fault
from consensus.events import Misbehaviour, ReplicaConfig
from consensus.evidence import Fault, conflict
from consensus.executions import Executions, executed_height_max
from consensus.lanes import CUT_BATCHES_MAX, LANE_AHEAD_MAX, Cut, Lanes
from consensus.messages import (
    CertificatesRequest,
    Message,
    ProofRequest,
    Proposal,
    ProposalRequest,
    proposal_message,
)
from consensus.values import ZERO_HASH, Block, Tip

TIMESTAMP_AHEAD_MS_MAX: Final = 2_000
"""How far a block's time may lie before a voter's clock."""
PROPOSALS_PER_VIEW_MAX: Final = 4
"""More than one is an equivocation already; certified ones are taken on top."""


class Opinion(enum.Enum):
    """What to do about a proposal."""

    ACCEPT = enum.auto()
    WAIT = enum.auto()
    REFUSE = enum.auto()


@dataclass(frozen=True, slots=True)
class Judgement:
    """An opinion, its reason, and what would help."""

    opinion: Opinion
    reason: str = ""
    requests: tuple[Message, ...] = ()
    retry_at_ms: int | None = None


ACCEPTED: Final = Judgement(Opinion.ACCEPT)


def _refuse(reason: str) -> Judgement:
    return Judgement(Opinion.REFUSE, reason)


def _wait(reason: str, *requests: Message, retry_at_ms: int | None = None) -> Judgement:
    return Judgement(Opinion.WAIT, reason, requests, retry_at_ms)


class Proposals:
    """Signed proposals above the final view."""

    def __init__(self, context: Context, tree: BlockTree) -> None:
        self._context = context
        self._tree = tree
        self._views: dict[int, dict[bytes, Proposal]] = {}
        self._loose: set[bytes] = set()
        """Digests of proposals that are not in the tree yet."""
        self.unsound: set[bytes] = set()
        """Digests of proposals whose VRF proof does not hold."""
        self.equivocal: set[int] = set()
        """Views whose leader signed two proposals."""

    def of_view(self, view: int) -> list[tuple[bytes, Proposal]]:
        """Digest and proposal, in order of arrival."""
        return list(self._views.get(view, {}).items())

    def get(self, view: int, digest: bytes) -> Proposal | None:
        """The proposal with this digest."""
        return self._views.get(view, {}).get(digest)

    def all(self) -> list[Proposal]:
        """Everything held, in order of view."""
        return [p for view in sorted(self._views) for p in self._views[view].values()]

    def add(self, proposal: Proposal, leader: int, certified: bool = False) -> bool:
        """Keep a proposal if its leader signed it; False if it is refused or known."""
        block = proposal.block
        digest = block.digest()
        held = self._views.get(block.view, {})
        if digest in held or block.proposer != leader:
            return False
        if len(held) >= PROPOSALS_PER_VIEW_MAX and not certified:
            return False
        context = self._context
        message = proposal_message(context.chain_id, digest)
        if not context.verify(leader, message, proposal.signature):
            return False
        if held and block.view not in self.equivocal:
            self.equivocal.add(block.view)
            first = next(iter(held.values()))
            evidence = conflict(Fault.CONFLICTING_PROPOSALS, leader, first, proposal)
            context.emit(Misbehaviour(evidence))
        self._views.setdefault(block.view, {})[digest] = proposal
        self._loose.add(digest)
        return True

    def attach(self) -> bool:
        """Move loose proposals whose parents are known into the tree; whether any moved."""
        moved = False
        for proposal in self.all() if self._loose else ():
            block = proposal.block
            digest = block.digest()
            parent = self._tree.get(block.parent)
            if digest not in self._loose or parent is None:
                continue
            self._loose.discard(digest)
            beacon = beacon_of(self._context, block, parent.beacon)
            if beacon is None:
                self.unsound.add(digest)
            else:
                self._tree.insert(Node(block, digest, beacon))
                moved = True
        return moved

    def prune(self, finalized_view: int) -> None:
        """Forget views up to the final one."""
        for view in [view for view in self._views if view <= finalized_view]:
            for digest in self._views.pop(view):
                self._loose.discard(digest)
                self.unsound.discard(digest)
        self.equivocal = {view for view in self.equivocal if view > finalized_view}


def beacon_of(context: Context, block: Block, parent_beacon: bytes) -> bytes | None:
    """The block's beacon, or None if its VRF proof does not hold."""
    if not context.is_validator(block.proposer):
        return None
    key = context.validators.by_index[block.proposer].vrf_key
    output = context.checks.vrf_output(key, parent_beacon, block.vrf_proof)
    return None if output is None else next_beacon(parent_beacon, output)


class Judge:
    """The conditions of a notarize vote, over what this replica knows."""

    def __init__(
        self,
        context: Context,
        tree: BlockTree,
        ballots: Ballots,
        lanes: Lanes,
        executions: Executions,
    ) -> None:
        self._context = context
        self._tree = tree
        self._ballots = ballots
        self._lanes = lanes
        self._executions = executions

    def judge(self, block: Block, unsound: bool) -> Judgement:
        """Whether the proposed block of the current view deserves a vote."""
        if unsound:
            return _refuse("the VRF proof does not hold")
        if block.epoch != self._context.validators.epoch or block.parent_view >= block.view:
            return _refuse(f"epoch {block.epoch}, parent view {block.parent_view}: impossible")
        justified = self._parent_rule(block)
        if justified.opinion is not Opinion.ACCEPT:
            return justified
        parent = self._tree.get(block.parent)
        if parent is None:
            return _wait("parent is unknown", ProposalRequest(block.parent_view, block.parent))
        fault = _child_fault(block, parent.block) or self._epoch_fault(block, parent.block)
        if fault is not None:
            return _refuse(fault)
        for check in (self._time_rule, self._execution_rule):
            judgement = check(block, parent.block)
            if judgement.opinion is not Opinion.ACCEPT:
                return judgement
        return self._availability_rule(block.cut, parent.block.cut)

    def _epoch_fault(self, block: Block, parent: Block) -> str | None:
        """The epoch's last block, and that alone, names the next validators; above it is nothing
        but fillers."""
        config = self._context.config
        last = config.last_height
        if last is not None and block.height > last:
            return filler_fault(block, parent)
        if block.next_validators != named_validators(config, block.height):
            return "it names other validators for the next epoch than this ledger"
        return None

    def _parent_rule(self, block: Block) -> Judgement:
        """The parent is certified and every view between is nullified."""
        root = self._tree.root
        below = block.parent_view
        if below < root.block.view:
            return _refuse(f"parent view {below} lies below the final view {root.block.view}")
        if below == root.block.view:
            if block.parent != root.digest:
                return _refuse("parent conflicts with the final block")
        else:
            notarization = self._ballots.notarizations.get(below)
            if notarization is None:
                return _wait("parent is not notarized", CertificatesRequest(below, block.view))
            if notarization.body.digest != block.parent:
                return _refuse("parent conflicts with the notarized block")
        for view in range(below + 1, block.view):
            if view not in self._ballots.nullifications:
                request = CertificatesRequest(view, block.view)
                return _wait(f"view {view} is not nullified", request)
        return ACCEPTED

    def _time_rule(self, block: Block, parent: Block) -> Judgement:
        if block.timestamp_ms <= parent.timestamp_ms:
            return _refuse(f"time {block.timestamp_ms} is not after the parent's")
        earliest = block.timestamp_ms - TIMESTAMP_AHEAD_MS_MAX
        if earliest > self._context.now_ms:
            return _wait("time lies too far ahead", retry_at_ms=earliest)
        return ACCEPTED

    def _execution_rule(self, block: Block, parent: Block) -> Judgement:
        height = block.executed_height
        if not parent.executed_height <= height <= executed_height_max(block.height):
            return _refuse(f"executed height {height} is out of bounds")
        if height == parent.executed_height and block.executed_root != parent.executed_root:
            return _refuse("execution root differs from the parent's for the same height")
        own = self._executions.root(height)
        if own is None and height == parent.executed_height:
            # The parent's certificate vouches for it already; after a restart it may be long past.
            return ACCEPTED
        if own is None:
            return _wait(f"height {height} is not executed here yet")
        if own != block.executed_root:
            return _refuse(f"execution root of height {height} differs from our own")
        return ACCEPTED

    def _availability_rule(self, cut: Cut, parent_cut: Cut) -> Judgement:
        for tip in cut:
            if not self._context.is_validator(tip.lane):
                return _refuse(f"lane {tip.lane} does not exist")
        below = {tip.lane: tip for tip in parent_cut}
        missing = [
            tip
            for tip in cut
            if tip != below.get(tip.lane) and not self._lanes.available(tip, below.get(tip.lane))
        ]
        if missing:
            requests = tuple(ProofRequest(tip) for tip in missing)
            return Judgement(Opinion.WAIT, "tips are not available", requests)
        return ACCEPTED


def named_validators(config: ReplicaConfig, height: int) -> bytes:
    """What the block of a height says of the next epoch."""
    following = config.next_validators
    return ZERO_HASH if following is None or height != config.last_height else following.digest()


def _child_fault(block: Block, parent: Block) -> str | None:
    """Why a block cannot follow its parent, as far as the two alone can tell."""
    if block.height != parent.height + 1:
        return f"height {block.height} after {parent.height}"
    if block.parent_view != parent.view:
        return f"parent view {block.parent_view}, the parent is of view {parent.view}"
    return cut_fault(block.cut, parent.cut)


def cut_fault(cut: Cut, parent_cut: Cut) -> str | None:
    """Why a cut cannot follow its parent's: lanes rise in it, tips never go back nor leap, and
    all together bring no more batches than one execution may take."""
    lanes = [tip.lane for tip in cut]
    if lanes != sorted(set(lanes)):
        return "lanes of the cut are not in rising order"
    tips: dict[int, Tip] = {tip.lane: tip for tip in cut}
    for below in parent_cut:
        tip = tips.pop(below.lane, None)
        if tip is None:
            return f"lane {below.lane} is gone from the cut"
        if tip.sequence == below.sequence and tip.digest != below.digest:
            return f"lane {below.lane} changed its tip at sequence {tip.sequence}"
        if not 0 <= tip.sequence - below.sequence <= LANE_AHEAD_MAX:
            return f"lane {below.lane} moved from {below.sequence} to {tip.sequence}"
    for tip in tips.values():
        if not 1 <= tip.sequence <= LANE_AHEAD_MAX:
            return f"lane {tip.lane} starts at sequence {tip.sequence}"
    new = sum(tip.sequence for tip in cut) - sum(tip.sequence for tip in parent_cut)
    if new > CUT_BATCHES_MAX:
        return f"{new} new batches in one block, at most {CUT_BATCHES_MAX} are allowed"
    return None
