"""Lanes: seal own batches, take those of others, prove that they can be had.

Rules. Only the owner extends its lane. A batch is acked once it is checked and stored and so is
every batch before it. Acks by f + 1 of the stake make an availability proof, which travels with
the owner's next batch, or alone if no later one is under way. A leader puts only proven tips
into a cut, so that no voter can lack the ground to accept it; a voter also accepts a tip up to
which it holds the lane.

A tip names its whole ancestry by hash. So even an owner that forks its lane cannot make two
validators execute different batches: what a cut adds is the walk back from its tip (see
`delivery`). The fork itself is evidence.
"""

from dataclasses import dataclass, field
from typing import Final

from consensus.certificates import assemble_proof, proof_fault, sign_ack
from consensus.context import Context
from consensus.events import CheckBatch, LaneFull, LoadBatch, Misbehaviour, StoreBatch
from consensus.evidence import Fault, SignedHeader, conflict
from consensus.messages import (
    BATCHES_PER_REQUEST_MAX,
    Ack,
    AckBody,
    AvailabilityProof,
    BatchMessage,
    BatchRequest,
)
from consensus.values import (
    BATCH_PAYLOAD_BYTES_MAX,
    ZERO_HASH,
    Batch,
    BatchHeader,
    Tip,
)
from ext.hashing import sha256

LANE_AHEAD_MAX: Final = 4_096
"""Batches of one lane above its final tip."""
CUT_BATCHES_MAX: Final = 1_024
"""New batches of all lanes together in one block, which bounds what one execution may cost: of the
smallest transactions there fit fewer ids and leaves than their tables and trees can hold."""
BUFFERED_BATCHES_MAX: Final = 16
"""Batches of one lane above the held tip that wait for their check or their predecessor."""
PROOFS_KEPT_MAX: Final = 64
"""Availability proofs kept of one lane."""
OFFERED_BATCHES_MAX: Final = 64
"""Batches of incomplete lanes kept in the hope that a descendant names them."""
RESEND_DOUBLINGS_MAX: Final = 4
"""Resends to peers that do not answer slow down to a sixteenth of the usual pace."""

Cut = tuple[Tip, ...]


@dataclass(slots=True)
class Lane:
    """One lane as this replica sees it."""

    index: int
    final: Tip
    tip: Tip
    """Newest batch up to which everything above the final tip is held."""
    chain: dict[int, bytes] = field(default_factory=dict)
    """Digests by sequence, above `final` up to `tip`."""
    buffered: dict[int, Batch] = field(default_factory=dict)
    checked: set[bytes] = field(default_factory=set)
    proofs: dict[bytes, AvailabilityProof] = field(default_factory=dict)
    best: AvailabilityProof | None = None
    """The proof of the highest sequence."""
    refused: bool = False
    """The batch after `tip` failed its check: nothing behind it can ever be acked."""

    def proven_sequence(self) -> int:
        """Highest sequence that is final or proven available."""
        return self.final.sequence if self.best is None else self.best.body.tip.sequence


class Lanes:
    """All lanes; the own one grows by `seal`."""

    def __init__(self, context: Context, final: Cut) -> None:
        self._context = context
        tips = {tip.lane: tip for tip in final}
        self._lanes = {
            index: Lane(index, tip, tip)
            for index in context.validators.by_index
            for tip in [tips.get(index, Tip(index, 0, ZERO_HASH))]
        }
        self.headers: dict[bytes, SignedHeader | BatchHeader] = {}
        """Headers of stored batches that are not delivered yet, with signatures where known."""
        self.wanted: set[bytes] = set()
        """Digests that final blocks need: taken from anyone, finality has judged them."""
        self.incomplete: set[int] = set()
        """Lanes of which a final batch is still missing: nothing is acked there."""
        self._offered: dict[bytes, Batch] = {}
        """Batches of incomplete lanes that nothing has named yet: answers may come in any order."""
        self.forgetful = False
        """Whether own batches may exist that are not held here: nothing is sealed then
        (`memory`)."""
        self._lost: dict[int, Batch] = {}
        """Own batches above the held tip that came back before their predecessors."""
        self._acks: dict[int, dict[int, Ack]] = {}
        self._acked: dict[int, int] = {}
        """Highest own sequence that each peer has acked."""
        self._proof_sent = 0
        self._reached: dict[int, int] = {}
        """Sequence of each lane in `_reached_of`: asked about at every step."""
        self._reached_of: Cut = ()
        self._resend_at_ms: int | None = None
        self._resends_in_vain = 0

    def restore(self, headers: list[BatchHeader]) -> None:
        """Take up stored batches after a restart."""
        for header in sorted(headers, key=lambda header: header.sequence):
            digest = header.digest()
            self.headers[digest] = header
            lane = self._lanes[header.lane]
            follows = header.sequence == lane.tip.sequence + 1
            if follows and header.parent == lane.tip.digest:
                self._append(lane, header, digest)
        own = self._context.own_index
        if own is not None and self._lanes[own].tip != self._lanes[own].final:
            self._ack_own(self._lanes[own])

    # --- own lane ---------------------------------------------------------------------------

    def room(self) -> int:
        """How many batches may be sealed now."""
        own = self._context.own_index
        if own is None or own in self.incomplete or self.forgetful:
            return 0
        lane = self._lanes[own]
        return max(0, lane.final.sequence + LANE_AHEAD_MAX - lane.tip.sequence)

    def unproven(self) -> int:
        """How many batches of the own lane are neither proven available nor final."""
        own = self._context.own_index
        if own is None:
            return 0
        lane = self._lanes[own]
        return lane.tip.sequence - max(lane.proven_sequence(), lane.final.sequence)

    def seal(self, payload: bytes) -> None:
        """Append a batch to the own lane and send it out."""
        if len(payload) > BATCH_PAYLOAD_BYTES_MAX:
            raise ValueError(f"payload of {len(payload)} bytes exceeds {BATCH_PAYLOAD_BYTES_MAX}")
        if self.room() == 0:
            raise LaneFull(f"own lane is incomplete or {LANE_AHEAD_MAX} batches ahead")
        context = self._context
        index, signer = context.seat()
        lane = self._lanes[index]
        header = BatchHeader(
            epoch=context.validators.epoch,
            lane=index,
            sequence=lane.tip.sequence + 1,
            parent=lane.tip.digest,
            payload_root=sha256(payload),
        )
        signature = signer.sign(header.signed_message(context.chain_id))
        batch = Batch(header, signature, payload)
        context.emit(StoreBatch(batch))
        context.persist(SignedHeader(header, signature))
        digest = header.digest()
        self.headers[digest] = SignedHeader(header, signature)
        self._append(lane, header, digest)
        proof = lane.best if lane.proven_sequence() > self._proof_sent else None
        if proof is not None:
            self._proof_sent = proof.body.tip.sequence
        context.broadcast(BatchMessage(batch, proof))
        self._ack_own(lane)

    def own_header(self) -> SignedHeader | None:
        """The newest own batch, if it is not delivered yet and was signed since the restart."""
        own = self._context.own_index
        if own is None:
            return None
        header = self.headers.get(self._lanes[own].tip.digest)
        return header if isinstance(header, SignedHeader) else None

    def receive_ack(self, peer: int, ack: Ack) -> bool:
        """A peer holds a batch of ours; whether that proves one available."""
        context = self._context
        tip = ack.body.tip
        if context.own_index is None or tip.lane != context.own_index or ack.signer != peer:
            return False
        lane = self._lanes[tip.lane]
        if ack.body.epoch != context.validators.epoch or lane.chain.get(tip.sequence) != tip.digest:
            return False
        self._acked[peer] = max(self._acked.get(peer, 0), tip.sequence)
        return self._count_ack(lane, ack)

    def push(self, peer: int, held_sequence: int) -> None:
        """Serve a peer with own batches above those it holds."""
        own = self._context.own_index
        if own is None or peer == own:
            return
        lane = self._lanes[own]
        first = max(held_sequence, lane.final.sequence)
        last = min(first + BUFFERED_BATCHES_MAX, lane.tip.sequence)
        if last > first:
            count = last - first
            self._context.emit(LoadBatch(peer, own, last, lane.chain[last], count))

    def _ack_own(self, lane: Lane) -> None:
        context = self._context
        index, signer = context.seat()
        body = AckBody(context.validators.epoch, lane.tip)
        self._count_ack(lane, sign_ack(signer, context.chain_id, index, body))
        if self._resend_at_ms is None:
            self._resend_at_ms = context.now_ms + context.resend_ms

    def _count_ack(self, lane: Lane, ack: Ack) -> bool:
        validators = self._context.validators
        sequence = ack.body.tip.sequence
        if sequence <= lane.proven_sequence():
            return False
        acks = self._acks.setdefault(sequence, {})
        acks[ack.signer] = ack
        if validators.weight(set(acks)) < validators.availability_stake:
            return False
        message = ack.body.signed_message(self._context.chain_id)
        signers = sorted(acks)
        items = [
            (validators.by_index[signer].signing_key, message, acks[signer].signature)
            for signer in signers
        ]
        for signer, good in zip(signers, self._context.verify_many(items), strict=True):
            if not good:
                del acks[signer]
        if validators.weight(set(acks)) < validators.availability_stake:
            return False
        self._keep_proof(lane, assemble_proof(acks, ack.body))
        if sequence == lane.tip.sequence:
            self._send_proof(lane)
        return True

    def _send_proof(self, lane: Lane) -> None:
        if lane.best is not None:
            self._proof_sent = lane.best.body.tip.sequence
            self._context.broadcast(lane.best)

    # --- lanes of others --------------------------------------------------------------------

    def receive_batch(self, peer: int, message: BatchMessage) -> bytes | None:
        """Take a batch; the digest if it was a wanted one and is stored now."""
        if message.proof is not None:
            self.receive_proof(message.proof)
        batch = message.batch
        header = batch.header
        context = self._context
        if header.epoch != context.validators.epoch or not context.is_validator(header.lane):
            return None
        lane = self._lanes[header.lane]
        digest = header.digest()
        if digest in self.headers or (digest == lane.final.digest and digest not in self.wanted):
            if peer == header.lane:
                self._ack(lane, lane.tip)
            return None
        if digest in self.wanted:
            if self._authentic(batch):
                self._store(batch, digest)
                return digest
            return None
        if lane.index in self.incomplete and len(self._offered) < OFFERED_BATCHES_MAX:
            self._offered[digest] = batch
        if header.lane == context.own_index:
            self._recall(lane, batch)
        elif peer == header.lane:
            self._buffer(lane, batch, digest)
        return None

    def own_tip(self) -> Tip:
        """The newest own batch up to which all is held. Only a validator may ask."""
        return self._lanes[self._context.seat()[0]].tip

    def lost_batches(self, theirs: Tip) -> BatchRequest | None:
        """What to ask of a peer that holds the own lane up to a tip, so that we do, too."""
        lane = self._lanes[self._context.seat()[0]]
        self._lost = {s: batch for s, batch in self._lost.items() if s > lane.tip.sequence}
        if theirs.sequence <= lane.tip.sequence:
            return None
        wanted = theirs
        while (batch := self._lost.get(wanted.sequence)) is not None:
            wanted = Tip(lane.index, wanted.sequence - 1, batch.header.parent)
        missing = wanted.sequence - lane.tip.sequence
        return BatchRequest(wanted, min(missing, BATCHES_PER_REQUEST_MAX)) if missing > 0 else None

    def _recall(self, lane: Lane, batch: Batch) -> None:
        """Take back a batch that we sealed and forgot: our signature says that it is ours."""
        sequence = batch.header.sequence
        in_window = lane.tip.sequence < sequence <= lane.tip.sequence + OFFERED_BATCHES_MAX
        if not self.forgetful or not in_window or not self._authentic(batch):
            return
        self._lost[sequence] = batch
        while (found := self._lost.pop(lane.tip.sequence + 1, None)) is not None:
            if found.header.parent != lane.tip.digest:
                return
            digest = found.header.digest()
            self._store(found, digest)
            self._append(lane, found.header, digest)
            self._ack_own(lane)

    def take_offered(self, digest: bytes) -> BatchHeader | None:
        """A final batch that came before its descendant made it wanted; it is stored now."""
        batch = self._offered.pop(digest, None)
        if batch is None or not self._authentic(batch):
            return None
        self._store(batch, digest)
        return batch.header

    def batch_checked(self, owner: int, digest: bytes, valid: bool) -> None:
        """The pipeline's verdict on a buffered batch."""
        if not self._context.is_validator(owner):
            return
        lane = self._lanes[owner]
        for sequence, batch in lane.buffered.items():
            if batch.header.digest() == digest:
                if valid:
                    lane.checked.add(digest)
                    self._extend(lane)
                else:
                    self._refuse(lane, sequence)
                return

    def receive_proof(self, proof: AvailabilityProof, asked: bool = False) -> bool:
        """Keep a proof if it is news, in bounds and good; whether it is."""
        tip = proof.body.tip
        context = self._context
        if not context.is_validator(tip.lane):
            return False
        lane = self._lanes[tip.lane]
        if tip.digest in lane.proofs or not self._in_window(lane, tip.sequence):
            return False
        if tip.sequence <= lane.proven_sequence() and not asked:
            return False
        checks = context.checks
        fault = proof_fault(proof, context.validators, context.chain_id, checks.verify_many)
        if fault is None:
            self._keep_proof(lane, proof)
        return fault is None

    def _refuse(self, lane: Lane, sequence: int) -> None:
        """The owner sealed a bad batch: its lane ends here, unless a cut goes past it."""
        lane.refused = lane.refused or sequence == lane.tip.sequence + 1
        lane.buffered = {s: batch for s, batch in lane.buffered.items() if s < sequence}

    def _buffer(self, lane: Lane, batch: Batch, digest: bytes) -> None:
        sequence = batch.header.sequence
        window = min(lane.tip.sequence + BUFFERED_BATCHES_MAX, lane.final.sequence + LANE_AHEAD_MAX)
        if lane.refused or not lane.final.sequence < sequence <= window:
            return
        held = lane.chain.get(sequence)
        waiting = lane.buffered.get(sequence)
        if waiting is not None and waiting.header == batch.header:
            return
        if held is not None or waiting is not None:
            if self._authentic(batch):
                known = self.headers[held] if held is not None else None
                if waiting is not None:
                    known = SignedHeader(waiting.header, waiting.signature)
                self._report_fork(known, SignedHeader(batch.header, batch.signature))
            return
        follows = sequence == lane.tip.sequence + 1
        if (follows and batch.header.parent != lane.tip.digest) or not self._authentic(batch):
            return
        lane.buffered[sequence] = batch
        self._context.emit(CheckBatch(lane.index, batch))
        if self._resend_at_ms is None:
            self._resend_at_ms = self._context.now_ms + self._context.resend_ms

    def _report_fork(self, known: SignedHeader | BatchHeader | None, second: SignedHeader) -> None:
        if isinstance(known, SignedHeader):
            fault = Fault.CONFLICTING_BATCHES
            evidence = conflict(fault, second.header.lane, known, second)
            self._context.emit(Misbehaviour(evidence))

    def _authentic(self, batch: Batch) -> bool:
        header = batch.header
        message = header.signed_message(self._context.chain_id)
        return sha256(batch.payload) == header.payload_root and self._context.verify(
            header.lane, message, batch.signature
        )

    def _extend(self, lane: Lane) -> None:
        """Move checked batches from the buffer to the held chain, as far as it goes."""
        while (batch := lane.buffered.get(lane.tip.sequence + 1)) is not None:
            digest = batch.header.digest()
            if batch.header.parent != lane.tip.digest:
                del lane.buffered[batch.header.sequence]
            elif digest in lane.checked:
                del lane.buffered[batch.header.sequence]
                lane.checked.discard(digest)
                self._store(batch, digest)
                self._append(lane, batch.header, digest)
                self._ack(lane, lane.tip)
            else:
                return

    def _store(self, batch: Batch, digest: bytes) -> None:
        self._context.emit(StoreBatch(batch))
        self.headers[digest] = SignedHeader(batch.header, batch.signature)

    def _append(self, lane: Lane, header: BatchHeader, digest: bytes) -> None:
        lane.tip = Tip(lane.index, header.sequence, digest)
        lane.chain[header.sequence] = digest

    def _ack(self, lane: Lane, tip: Tip) -> None:
        context = self._context
        if context.own_index is None or lane.index in self.incomplete or tip.sequence == 0:
            return
        index, signer = context.seat()
        if lane.index != index:
            body = AckBody(context.validators.epoch, tip)
            context.send(lane.index, sign_ack(signer, context.chain_id, index, body))

    def _in_window(self, lane: Lane, sequence: int) -> bool:
        return lane.final.sequence < sequence <= lane.final.sequence + LANE_AHEAD_MAX

    def _keep_proof(self, lane: Lane, proof: AvailabilityProof) -> None:
        tip = proof.body.tip
        lane.proofs[tip.digest] = proof
        if tip.sequence > lane.proven_sequence():
            lane.best = proof
            self._resends_in_vain = 0
        while len(lane.proofs) > PROOFS_KEPT_MAX:
            del lane.proofs[next(iter(lane.proofs))]
        if lane.index == self._context.own_index:
            for sequence in [s for s in self._acks if s <= tip.sequence]:
                del self._acks[sequence]

    # --- cuts -------------------------------------------------------------------------------

    def best_cut(self, parent: Cut) -> Cut:
        """The parent's cut with every lane moved to its newest proven tip, or as far as its share
        of CUT_BATCHES_MAX goes; what is left over goes into the next blocks."""
        tips = {tip.lane: tip for tip in parent}
        share = CUT_BATCHES_MAX // len(self._lanes)
        for lane in self._lanes.values():
            sequence = tips[lane.index].sequence if lane.index in tips else 0
            tip = self._proven_tip(lane, sequence, sequence + share)
            if tip is not None:
                tips[lane.index] = tip
        return tuple(tips[index] for index in sorted(tips))

    def _proven_tip(self, lane: Lane, above: int, most: int) -> Tip | None:
        """The newest proven tip in (above, most]. Below a proven tip that lies further ahead all
        is proven; its own batches name it, where the proof is no longer kept."""
        if lane.best is None or lane.best.body.tip.sequence <= above:
            return None
        if lane.best.body.tip.sequence <= most:
            return lane.best.body.tip
        if most in lane.chain:
            return Tip(lane.index, most, lane.chain[most])
        kept = [proof.body.tip for proof in lane.proofs.values()]
        within = [tip for tip in kept if above < tip.sequence <= most]
        return max(within, key=lambda tip: tip.sequence, default=None)

    def grows(self, parent: Cut) -> bool:
        """Whether a block on this cut would make anything more final."""
        if parent is not self._reached_of:
            self._reached = {tip.lane: tip.sequence for tip in parent}
            self._reached_of = parent
        share = CUT_BATCHES_MAX // len(self._lanes)
        for lane in self._lanes.values():
            if lane.best is None:
                continue
            sequence = self._reached.get(lane.index, 0)
            if self._proven_tip(lane, sequence, sequence + share) is not None:
                return True
        return False

    def available(self, tip: Tip, parent: Tip | None) -> bool:
        """Whether a tip that follows `parent` can be had: proven, or held and linked to it."""
        lane = self._lanes[tip.lane]
        proof = lane.proofs.get(tip.digest)
        if proof is not None and proof.body.tip == tip:
            return True
        if lane.index in self.incomplete or lane.chain.get(tip.sequence) != tip.digest:
            return False
        below = parent if parent is not None else Tip(tip.lane, 0, ZERO_HASH)
        return below == lane.final or lane.chain.get(below.sequence) == below.digest

    def proof_of(self, tip: Tip) -> AvailabilityProof | None:
        """The proof of a tip, if it is kept."""
        if not self._context.is_validator(tip.lane):
            return None
        return self._lanes[tip.lane].proofs.get(tip.digest)

    def held_tips(self) -> Cut:
        """For each lane that has one, the newest batch up to which all is held."""
        return tuple(lane.tip for lane in self._lanes.values() if lane.tip.sequence > 0)

    def finalize(self, cut: Cut) -> None:
        """A cut became final: move the windows, drop what lies below."""
        for tip in cut:
            lane = self._lanes[tip.lane]
            if tip == lane.final:
                continue
            lane.final = tip
            if lane.chain.get(tip.sequence) == tip.digest:
                lane.chain = {s: d for s, d in lane.chain.items() if s > tip.sequence}
            else:
                lane.chain = {}
                lane.tip = tip
                lane.refused = False
                self.incomplete.add(tip.lane)  # until delivery finds that nothing lacks
            lane.buffered = {s: b for s, b in lane.buffered.items() if s > tip.sequence}
            if not lane.buffered:
                lane.checked.clear()
            lane.proofs = {
                d: p for d, p in lane.proofs.items() if p.body.tip.sequence > tip.sequence
            }
            if lane.best is not None and lane.best.body.tip.sequence <= tip.sequence:
                lane.best = None
            if lane.index == self._context.own_index:
                self._acks = {s: a for s, a in self._acks.items() if s > tip.sequence}
            self._extend(lane)

    def completed(self, index: int) -> None:
        """Every final batch of a lane is stored again: it may be acked."""
        self.incomplete.discard(index)
        self._offered = {d: b for d, b in self._offered.items() if b.header.lane != index}
        lane = self._lanes[index]
        if lane.tip != lane.final:
            self._ack(lane, lane.tip)

    def forget(self, digests: tuple[bytes, ...]) -> None:
        """Delivered batches: only the store keeps them."""
        for digest in digests:
            self.headers.pop(digest, None)

    # --- time -------------------------------------------------------------------------------

    def tick(self) -> None:
        """Resend what was not answered, ask for what leaves a gap."""
        context = self._context
        if self._resend_at_ms is None or context.now_ms < self._resend_at_ms:
            return
        self._resend_at_ms = None
        pending = False
        if context.own_index is not None:
            pending = self._resend_own(self._lanes[context.own_index])
        for lane in self._lanes.values():
            pending |= bool(lane.buffered)
            self._ask_gap(lane)
        if pending:
            pause = 1 << min(self._resends_in_vain, RESEND_DOUBLINGS_MAX)
            self._resend_at_ms = context.now_ms + context.resend_ms * pause
            self._resends_in_vain += 1

    def wake_at_ms(self) -> int | None:
        """When `tick` has something to do."""
        return self._resend_at_ms

    def _resend_own(self, lane: Lane) -> bool:
        if lane.tip.sequence > lane.proven_sequence():
            for peer in self._lanes:
                self.push(peer, self._acked.get(peer, 0))
        elif lane.best is not None:
            self._send_proof(lane)
        return lane.tip.sequence > lane.final.sequence

    def _ask_gap(self, lane: Lane) -> None:
        if not lane.buffered:
            return
        lowest = min(lane.buffered)
        gap = lowest - 1 - lane.tip.sequence
        if gap > 0:
            missing = Tip(lane.index, lowest - 1, lane.buffered[lowest].header.parent)
            self._context.send(lane.index, BatchRequest(missing, gap))
