"""The facade: one replica of the ordering core, driven by events and answering with effects."""

from typing import Final

from consensus.blocktree import Node, root_node
from consensus.catchup import CatchUp
from consensus.certificates import Checks, RealChecks
from consensus.context import Context
from consensus.delivery import Delivery
from consensus.events import (
    BatchChecked,
    Compact,
    Demand,
    Effect,
    Event,
    Executed,
    Finalized,
    MessageReceived,
    PeerConnected,
    Persist,
    Recovered,
    ReplicaConfig,
    SealBatch,
    Signer,
    Start,
    Tick,
    WakeAt,
)
from consensus.executions import Executions
from consensus.journal import Watermark, decode_record, encode_record
from consensus.lanes import Lanes
from consensus.memory import Memory
from consensus.messages import (
    Ack,
    AvailabilityProof,
    BatchMessage,
    BatchRequest,
    Blocks,
    BlocksRequest,
    Certificates,
    CertificatesRequest,
    Message,
    ProofRequest,
    Proposal,
    ProposalRequest,
    Status,
)
from consensus.simplex import VIEWS_AHEAD_MAX, Simplex
from consensus.values import Block, Certificate, Tip, Vote, VoteKind

COMPACT_AFTER_RECORDS: Final = 512
"""WAL records since the last compaction before a finalization asks for the next one."""
OWN_BATCHES_IN_FLIGHT_MAX: Final = 64
"""Own batches that the WAL may name above the store's: sealed in the turn that was cut off."""


class RecoveryConflict(Exception):
    """WAL and store contradict each other; the validator must not sign until the operator looks."""


class Replica:
    """A validator's (or observer's) ordering core. Owns no clock, socket, disk or thread."""

    def __init__(
        self,
        context: Context,
        lanes: Lanes,
        delivery: Delivery,
        executions: Executions,
        simplex: Simplex,
    ) -> None:
        """Use `recover`."""
        self._context = context
        self._lanes = lanes
        self._delivery = delivery
        self._executions = executions
        self._simplex = simplex
        self._catch_up = CatchUp(context, simplex, lanes)
        self._memory = Memory(context, simplex, lanes)
        self._deaf_until_ms: dict[int, int] = {}
        """By peer that sent a certificate that is none: when its next ones are looked at."""
        self._records = 0
        self._wake_at_ms: int | None = None
        self.compact_after_records = COMPACT_AFTER_RECORDS
        """Lowered only in simulation, where no world lives long enough."""

    @classmethod
    def recover(
        cls,
        config: ReplicaConfig,
        signer: Signer | None,
        recovered: Recovered,
        now_ms: int,
        checks: Checks | None = None,
    ) -> "Replica":
        """The replica as it was when `recovered` was written.

        `signer` is None for an observer; `checks` is replaced only in simulation. Raises
        RecoveryConflict if the parts of `recovered` contradict each other.
        """
        context = Context(config, signer, checks or RealChecks(), now_ms)
        delivered, nodes = _recovered_chain(config, recovered)
        root = nodes[-1] if nodes else delivered
        for block in [node.block for node in (delivered, *nodes)]:
            if block.epoch != context.epoch:
                raise RecoveryConflict(
                    f"stored block {block.height} is of epoch {block.epoch}, not {context.epoch}"
                )
        lanes = Lanes(context, root.block.cut)
        lanes.restore(list(recovered.headers))
        roots = {0: config.genesis_execution_root, **dict(recovered.executed)}
        executions = Executions(context, roots)
        delivery = Delivery(context, lanes, delivered)
        simplex = Simplex(context, root, recovered.certificate, lanes, executions, delivery)
        replica = cls(context, lanes, delivery, executions, simplex)
        replica._replay(recovered)
        for node in nodes:
            executions.finalize(node.block)
            delivery.add(node, recovered.certificate if node is root else None)
        delivery.advance()
        return replica

    def step(self, event: Event, now_ms: int) -> list[Effect]:
        """What to do about `event`, in order. `now_ms` never goes back (an earlier time is taken
        as the latest one seen). Raises LaneFull for a SealBatch without `lane_room`."""
        context = self._context
        context.now_ms = max(context.now_ms, now_ms)
        moved = self._handle(event)
        due = self._wake_at_ms is None or context.now_ms >= self._wake_at_ms
        effects = context.effects
        if not (moved or due):
            context.effects = []
            return effects
        self._memory.advance()
        self._simplex.advance()
        context.effects = []
        self._compact(effects)
        self._wake(effects, isinstance(event, Tick))
        return effects

    @property
    def view(self) -> int:
        """The current view, from 1."""
        return self._simplex.view

    @property
    def leader(self) -> int:
        """Validator index of the current view's leader."""
        return self._simplex.leader(self._simplex.view)

    @property
    def silence(self) -> str:
        """Why a validator does not vote, although it could sign; empty if it does."""
        return self._memory.silence

    @property
    def finalized_block(self) -> Block:
        """The newest final block (of genesis: a stand-in at height 0)."""
        return self._simplex.tree.root.block

    @property
    def finalized_height(self) -> int:
        """Height of the newest final block."""
        return self._simplex.tree.root.block.height

    @property
    def finalization(self) -> Certificate | None:
        """The newest finalization known; its block may still be on its way."""
        return self._simplex.ballots.finalization

    @property
    def delivered_height(self) -> int:
        """Height of the newest block handed to execution."""
        return self._delivery.height

    @property
    def executed_height(self) -> int:
        """Height of the newest block whose execution was reported."""
        return self._executions.newest

    @property
    def epoch(self) -> int:
        """The epoch it orders."""
        return self._context.epoch

    @property
    def later_epoch(self) -> int:
        """The latest epoch that a peer says it is in; at least the own one. Nobody checked it."""
        return self._catch_up.later_epoch

    @property
    def lane_room(self) -> int:
        """How many batches SealBatch would take now."""
        return 0 if self._simplex.ended else self._lanes.room()

    @property
    def lane_unproven(self) -> int:
        """How many own batches are neither proven available nor final."""
        return self._lanes.unproven()

    @property
    def held_tips(self) -> tuple[Tip, ...]:
        """For each lane that has one, the newest batch up to which all is held."""
        return self._lanes.held_tips()

    def _replay(self, recovered: Recovered) -> None:
        own_index = self._context.own_index
        own_tip = recovered.own_tip.sequence if recovered.own_tip is not None else 0
        if own_index is not None:  # what is final need not be stored: a snapshot has no batches
            own_tip = max(own_tip, self._lanes.own_tip().sequence)
        for data in recovered.wal_records:
            record = decode_record(data)
            if isinstance(record, Vote):
                if record.signer != own_index:
                    raise RecoveryConflict(
                        f"the WAL holds a vote of validator {record.signer}, this is {own_index}"
                    )
                self._simplex.restore_vote(record)
            elif isinstance(record, Certificate):
                self._simplex.restore_certificate(record)
            elif isinstance(record, Proposal):
                self._simplex.restore_proposal(record)
            elif isinstance(record, Watermark):
                self._memory.restore(record)
            elif record.header.sequence > own_tip + OWN_BATCHES_IN_FLIGHT_MAX:
                raise RecoveryConflict(
                    f"the WAL names own batch {record.header.sequence}, the store ends at "
                    f"{own_tip}: the store is older than the WAL"
                )

    def _handle(self, event: Event) -> bool:
        """Take the event; whether anything may have become possible by it. Most messages repeat
        what is known, and cost no more than to see that."""
        if isinstance(event, MessageReceived):
            return self._receive(event.peer, event.message)
        if isinstance(event, Tick):
            self._simplex.tick()
            self._lanes.tick()
            self._delivery.tick()
        elif isinstance(event, BatchChecked):
            self._lanes.batch_checked(event.peer, event.header_digest, event.valid)
        elif isinstance(event, SealBatch):
            self._lanes.seal(event.payload)
        elif isinstance(event, Executed):
            self._executions.add(event.height, event.root)
        elif isinstance(event, Demand):
            self._simplex.demand = event
        elif isinstance(event, PeerConnected):
            self._context.send(event.peer, self._simplex.status())
        elif isinstance(event, Start):
            self._simplex.start()
        return True

    def _receive(self, peer: int, message: Message) -> bool:
        """As `_handle`, for a message."""
        if self._serve(peer, message):
            return not self._memory.is_whole  # who remembers nothing waits for what statuses say
        if isinstance(message, Blocks):  # a certificate speaks for them
            self._catch_up.receive_blocks(message)
            return True
        if isinstance(message, BatchMessage):  # likewise for what final blocks name
            digest = self._lanes.receive_batch(peer, message)
            if digest is not None:
                self._delivery.stored(digest)
            return True
        if not self._context.is_validator(peer):
            return False
        if isinstance(message, Vote):
            return self._receive_vote(peer, message)
        if isinstance(message, Certificates):
            return self._receive_certificates(peer, message)
        if isinstance(message, Ack):
            return self._lanes.receive_ack(peer, message)
        if isinstance(message, AvailabilityProof):
            tip_awaited = self._simplex.awaits(message.body.tip)
            return self._lanes.receive_proof(message, tip_awaited)
        if isinstance(message, Proposal):
            self._simplex.receive_proposal(peer, message)
        return True

    def _serve(self, peer: int, message: Message) -> bool:
        """Answer a request; False if the message is none."""
        if isinstance(message, Status):
            if self._context.is_validator(peer):
                self._memory.hear(peer, message)
            self._catch_up.receive_status(peer, message)
        elif isinstance(message, BlocksRequest):
            self._catch_up.serve_blocks(peer, message)
        elif isinstance(message, BatchRequest):
            self._catch_up.serve_batch(peer, message)
        elif isinstance(message, CertificatesRequest):
            self._catch_up.serve_certificates(peer, message)
        elif isinstance(message, ProposalRequest):
            self._catch_up.serve_proposal(peer, message)
        elif isinstance(message, ProofRequest):
            self._catch_up.serve_proof(peer, message)
        else:
            return False
        return True

    def _receive_certificates(self, peer: int, message: Certificates) -> bool:
        """Take them one by one up to the first that is not good. Checking one costs as much as a
        view's votes, so who sends such is not listened to for a while."""
        now_ms = self._context.now_ms
        if now_ms < self._deaf_until_ms.get(peer, now_ms):
            return False
        moved = False
        for certificate in message.items:
            if not self._simplex.lacks(certificate):
                continue
            if not self._simplex.ballots.verified(certificate):
                self._deaf_until_ms[peer] = now_ms + self._context.resend_ms
                break
            self._simplex.take_certificate(certificate)
            moved = True
        return moved

    def _receive_vote(self, peer: int, vote: Vote) -> bool:
        view = vote.body.view
        if vote.signer != peer:
            return False
        if vote.body.epoch != self._context.epoch:
            self._catch_up.tell(peer)
            return False
        if vote.body.kind is VoteKind.NULLIFY and view < self._simplex.view:
            self._catch_up.behind(peer, view)
        elif view > self._simplex.view + VIEWS_AHEAD_MAX:
            self._catch_up.far_ahead(peer)
        return self._simplex.receive_vote(vote)

    def _compact(self, effects: list[Effect]) -> None:
        self._records += sum(isinstance(effect, Persist) for effect in effects)
        finalized = any(isinstance(effect, Finalized) for effect in effects)
        if not finalized or self._records < self.compact_after_records:
            return
        records = self._simplex.snapshot()
        own_header = self._lanes.own_header()
        if own_header is not None:
            records.append(own_header)
        watermark = self._memory.record()
        if watermark is not None:
            records.append(watermark)
        effects.append(Compact(tuple(encode_record(record) for record in records)))
        self._records = 0

    def _wake(self, effects: list[Effect], ticked: bool) -> None:
        if not self._simplex.started:
            return
        times = (
            self._simplex.wake_at_ms(),
            self._lanes.wake_at_ms(),
            self._delivery.wake_at_ms(),
        )
        # Never in the past: a rule that cannot act yet must not spin the driver.
        soonest = self._context.now_ms + 1
        at_ms = max(soonest, min(time for time in times if time is not None))
        # A timer that rang has to be set again, even to the same time: it may have rung early.
        if ticked or at_ms != self._wake_at_ms:
            self._wake_at_ms = at_ms
            effects.append(WakeAt(at_ms))


def _recovered_chain(config: ReplicaConfig, recovered: Recovered) -> tuple[Node, list[Node]]:
    """The newest executed block, and the final ones above it."""
    executed_height = recovered.executed[-1][0] if recovered.executed else 0
    nodes = [Node(final.block, final.block.digest(), final.beacon) for final in recovered.finalized]
    first = root_node(config)
    if executed_height == first.block.height:
        delivered = first
    elif not nodes or nodes[0].block.height != executed_height:
        raise RecoveryConflict(f"the store lacks the block of executed height {executed_height}")
    else:
        delivered = nodes.pop(0)
    below = delivered
    for node in nodes:
        if node.block.parent != below.digest:
            raise RecoveryConflict(f"stored block {node.block.height} does not follow its parent")
        below = node
    certificate = recovered.certificate
    proven = certificate is not None and certificate.body.digest == below.digest
    ended = below.block.height == config.last_height
    if below is not first and not (proven or ended):
        raise RecoveryConflict(f"no certificate finalizes stored block {below.block.height}")
    return delivered, nodes
