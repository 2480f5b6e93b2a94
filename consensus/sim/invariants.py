"""What must hold in every world, checked at every step of every honest replica.

The judge counts stake and signers by itself, so that a mistake in the code under test is not
repeated here. It sees what nobody in the world sees: everything said, and every disk.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Final, cast

from consensus.blocktree import Node
from consensus.certificates import Checks
from consensus.epochs import BoundaryInvalid, EpochBoundary
from consensus.events import Deliver, FinalBlock, Finalized, Misbehaviour
from consensus.evidence import evidence_fault
from consensus.journal import decode_record, encode_record
from consensus.messages import (
    Ack,
    AvailabilityProof,
    BatchMessage,
    Certificates,
    Message,
    Proposal,
)
from consensus.sim.disk import Disk
from consensus.sim.epochs import Calendar
from consensus.values import ZERO_HASH, Block, Certificate, Tip, Vote, VoteKind
from consensus.wal import WAL_NAME
from consensus.wire import DecodeError

Key = tuple[int, int, VoteKind]
"""An epoch, a view, and what a vote says about it."""
_VOTE_TAG: Final = b"\x01"
_PROPOSAL_TAG: Final = b"\x02"
_CERTIFICATE_TAG: Final = b"\x03"
"""First byte of a record in the log."""


class InvariantBroken(Exception):
    """A rule of the protocol did not hold; the message names it."""


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InvariantBroken(message)


class Invariants:
    """The judge of one world. Validators in `byzantine` may break every rule."""

    def __init__(
        self,
        chain_id: str,
        calendar: Calendar,
        checks: Checks,
        byzantine: frozenset[int],
        disks: Callable[[], list[Disk]],
        genesis: Node,
    ) -> None:
        """`disks` are those of honest machines; `genesis` is what block 1 follows."""
        self._chain_id = chain_id
        self._calendar = calendar
        self._checks = checks
        self._byzantine = byzantine
        self._disks = disks
        self._votes: dict[Key, dict[int, bytes]] = defaultdict(dict)
        """Signer -> digest, of every vote an honest validator ever sent."""
        self._certified: dict[Key, bytes] = {}
        self._checked: set[Certificate] = set()
        self._persisted: set[bytes] = set()
        self._proofs: set[AvailabilityProof] = set()
        self._convicted: set[bytes] = set()
        self._blocks = {0: (FinalBlock(genesis.block, genesis.beacon), genesis.digest)}
        """Final blocks and their digests, by height."""
        self._roots = {0: genesis.block.executed_root}
        self._claims: dict[int, bytes] = {}
        """Execution roots that final blocks vouch for, by height."""
        self._boundaries: dict[int, bytes] = {}
        """Digest of each epoch's last block, by epoch."""
        self._above: dict[bytes, Block] = {}
        """Last blocks and fillers that an honest validator voted for."""
        self._ended: dict[int, int] = {}
        """The last epoch that an honest validator knows to be over."""
        self._delivered: dict[int, int] = {}
        self.excused: dict[int, int] = {}
        """Honest validators that lost their log before the first certificate -> the newest view in
        which they may contradict themselves (`memory`)."""
        self.height = 0
        """The highest final block anywhere."""

    @property
    def epochs_ended(self) -> int:
        """How many epochs are over somewhere."""
        return len(self._boundaries)

    # --- what machines tell -----------------------------------------------------------------

    def sent(self, node: int, message: Message, disk: Disk) -> None:
        """A validator's program speaks."""
        honest = node not in self._byzantine
        if isinstance(message, Vote):
            if honest and message.signer == node:
                durable = encode_record(message) in disk.durable(WAL_NAME)
                _require(durable, f"validator {node} sent a vote before it was durable")
                self._vote(node, message)
        elif isinstance(message, Certificates):
            for certificate in message.items:
                self._certificate(certificate)
        elif isinstance(message, Ack):
            stored = message.body.tip.digest in disk.store.batches
            _require(stored, f"validator {node} acked a batch before it was durable")
        elif isinstance(message, AvailabilityProof):
            self._proof(message)
        elif isinstance(message, BatchMessage) and message.proof is not None:
            self._proof(message.proof)

    def persisted(self, node: int, epoch: int, record: bytes) -> None:
        """A validator's program writes into its log of an epoch."""
        if record[:1] not in (_CERTIFICATE_TAG, _PROPOSAL_TAG) or record in self._persisted:
            return
        try:
            value = decode_record(record)
        except DecodeError as error:
            raise InvariantBroken(f"validator {node} wrote a record that is none") from error
        if isinstance(value, Certificate):
            its = value.body.epoch
            _require(its == epoch, f"validator {node} counts votes of epoch {its} in epoch {epoch}")
            self._persisted.add(record)
            self._certificate(value)
        elif isinstance(value, Proposal) and node not in self._byzantine:
            self._persisted.add(record)
            self._voted_for(node, value.block)

    def finalized(self, node: int, effect: Finalized) -> None:
        """A replica calls blocks final."""
        last = effect.blocks[-1].block
        ends = last.height == self._calendar.last_height(last.epoch)
        if effect.certificate is not None:
            self._certificate(effect.certificate)
            body = effect.certificate.body
            finalizes = body.kind is VoteKind.FINALIZE
            _require(finalizes, f"validator {node} finalized without finalization")
            _require(body.digest == last.digest(), f"validator {node} finalized another block")
        else:
            _require(ends, f"validator {node} finalized without a certificate")
        for final in effect.blocks:
            self._final_block(node, final)

    def ended(self, node: int, index: int, boundary: EpochBoundary) -> None:
        """A replica says that an epoch is over. It is once, and for the same next set."""
        block, epoch = boundary.block, boundary.block.epoch
        digest = self._boundaries.setdefault(epoch, block.digest())
        _require(digest == block.digest(), f"replica {node} ends epoch {epoch} at another block")
        final = self._blocks.get(block.height)
        same = final is not None and final[1] == digest
        _require(same, f"replica {node} ends epoch {epoch} at a block that is not final")
        _require(
            block.height == self._calendar.last_height(epoch),
            f"replica {node} ends epoch {epoch} at height {block.height}",
        )
        below = block
        for filler in boundary.descendants:
            self._filler(node, filler, below)
            below = filler
        self._certificate(boundary.certificate)
        body = boundary.certificate.body
        proven = (body.kind, body.digest) == (VoteKind.FINALIZE, below.digest())
        _require(proven, f"replica {node} ends epoch {epoch} without proof")
        following = self._calendar.validators(epoch + 1)
        _require(
            boundary.members == following.members,
            f"replica {node} names other validators of epoch {epoch + 1}",
        )
        trusted = self._calendar.validators(epoch)
        try:
            boundary.follow(trusted, self._chain_id, self._checks.verify_many)
        except BoundaryInvalid as error:
            raise InvariantBroken(f"replica {node} ends an epoch in vain: {error}") from error
        if index not in self._byzantine:
            self._ended[index] = epoch

    def delivered(self, node: int, effect: Deliver, restarted_from: int) -> None:
        """A replica hands a block to execution."""
        height = effect.block.height
        previous = max(self._delivered.get(node, 0), restarted_from)
        if height != previous + 1:
            raise InvariantBroken(f"replica {node} delivered height {height} after {previous}")
        _require(height in self._blocks, f"replica {node} delivered {height}, which is not final")
        final, _ = self._blocks[height]
        _require(final.block == effect.block, f"replica {node} delivered another block {height}")
        _require(final.beacon == effect.beacon, f"replica {node} has another beacon at {height}")
        self._delivered[node] = height

    def restarted(
        self, node: int, index: int, epoch: int, executed_height: int, records: tuple[bytes, ...]
    ) -> None:
        """Validator `index` begins again as replica `node`, in an epoch: above what it had executed
        durably, and bound by the votes in its log, whether they were sent or not."""
        self._ended[index] = epoch - 1
        self._delivered[node] = executed_height
        for record in records if index not in self._byzantine else ():
            if record[:1] == _VOTE_TAG:
                self._vote(index, cast(Vote, decode_record(record)))

    def excuse(self, index: int) -> None:
        """A validator lost its log while others know no certificate: nobody can tell it that it
        has signed."""
        voted = [view for (_, view, _), votes in self._votes.items() if index in votes]
        self.excused[index] = max(voted, default=0)

    def executed(self, node: int, height: int, root: bytes) -> None:
        """A replica computed an execution root."""
        known = self._roots.setdefault(height, root)
        _require(known == root, f"replica {node} has another execution root at height {height}")
        self._compare_roots(height)

    def convicted(self, node: int, effect: Misbehaviour) -> None:
        """A replica proves that somebody broke a rule."""
        evidence = effect.evidence
        if evidence.digest() in self._convicted:
            return
        self._convicted.add(evidence.digest())
        culprit = evidence.culprit
        guilty = culprit in self._byzantine or culprit in self.excused
        _require(guilty, f"replica {node} convicts honest {culprit}")

        def verify(key: bytes, message: bytes, signature: bytes) -> bool:
            return self._checks.verify_many([(key, message, signature)])[0]

        reached = range(self._calendar.epoch_of(self.height + 1) + 1)
        faults = [
            evidence_fault(evidence, self._calendar.validators(epoch), self._chain_id, verify)
            for epoch in reversed(reached)
        ]
        proves = None in faults
        _require(proves, f"replica {node} shows evidence that proves nothing: {faults[0]}")

    # --- rules ------------------------------------------------------------------------------

    def _vote(self, node: int, vote: Vote) -> None:
        body = vote.body
        epoch = body.epoch
        seated = node in self._calendar.validators(epoch).by_index
        _require(seated, f"validator {node} votes in epoch {epoch}, in which it has no seat")
        over = epoch <= self._ended.get(node, -1)
        _require(not over, f"validator {node} votes in epoch {epoch}, which is over for it")
        if body.view <= self.excused.get(node, 0):
            return
        said = self._votes[epoch, body.view, body.kind].setdefault(node, body.digest)
        _require(said == body.digest, f"validator {node} voted twice in view {body.view}")
        both = all(
            node in self._votes[epoch, body.view, kind]
            for kind in (VoteKind.NULLIFY, VoteKind.FINALIZE)
        )
        _require(not both, f"validator {node} nullified and finalized view {body.view}")

    def _certificate(self, certificate: Certificate) -> None:
        if certificate in self._checked:
            return
        self._checked.add(certificate)
        body = certificate.body
        epoch, view = body.epoch, body.view
        message = body.signed_message(self._chain_id)
        stake = self._signed_stake(epoch, certificate.signers, certificate.signatures, message)
        enough = 3 * stake > 2 * self._stake_total(epoch)
        _require(enough, f"a {body.kind.name} certificate of view {view} has stake {stake}")
        known = self._certified.setdefault((epoch, view, body.kind), body.digest)
        _require(known == body.digest, f"two blocks are certified in view {view}")
        pair = (epoch, view, VoteKind.NULLIFY), (epoch, view, VoteKind.FINALIZE)
        both = all(key in self._certified for key in pair)
        _require(not both, f"view {view} is nullified and finalized")
        if body.kind is VoteKind.NULLIFY:
            _require(body.digest == ZERO_HASH, f"a nullification of view {view} names a block")
        if body.kind is VoteKind.FINALIZE:
            notarized = self._certified.get((epoch, view, VoteKind.NOTARIZE), body.digest)
            _require(notarized == body.digest, f"view {view} finalized another block")
            self._quorum((epoch, view, VoteKind.NOTARIZE), body.digest)
        self._quorum((epoch, view, body.kind), body.digest)

    def _proof(self, proof: AvailabilityProof) -> None:
        if proof in self._proofs:
            return
        self._proofs.add(proof)
        tip = proof.body.tip
        message = proof.body.signed_message(self._chain_id)
        epoch = proof.body.epoch
        stake = self._signed_stake(epoch, proof.signers, proof.signatures, message)
        enough = 3 * stake >= self._stake_total(epoch)
        _require(enough, f"a proof of lane {tip.lane} at {tip.sequence} has stake {stake}")
        self._available(tip)

    def _stake_total(self, epoch: int) -> int:
        return sum(member.stake for member in self._calendar.validators(epoch).members)

    def _signed_stake(
        self, epoch: int, signers: tuple[int, ...], given: tuple[bytes, ...], message: bytes
    ) -> int:
        """Stake of different members whose signatures are good."""
        members = self._calendar.validators(epoch).by_index
        known = [(s, g) for s, g in zip(signers, given, strict=True) if s in members]
        keys = [members[signer].signing_key for signer, _ in known]
        items = [(key, message, sig) for key, (_, sig) in zip(keys, known, strict=True)]
        good = self._checks.verify_many(items)
        counted = {signer for (signer, _), holds in zip(known, good, strict=True) if holds}
        return sum(members[signer].stake for signer in counted)

    def _quorum(self, key: Key, digest: bytes) -> None:
        """Honest votes, and all that the Byzantine may add, make a quorum."""
        epoch, view, kind = key
        members = self._calendar.validators(epoch).by_index
        votes = self._votes[key]
        signers = {signer for signer, said in votes.items() if said == digest} | self._byzantine
        signers |= {index for index, newest in self.excused.items() if view <= newest}
        stake = sum(members[signer].stake for signer in signers if signer in members)
        enough = 3 * stake > 2 * self._stake_total(epoch)
        _require(enough, f"no quorum of {kind.name} votes for view {view}")

    def _epoch(self, who: str, block: Block) -> None:
        """A block is of the epoch of its height, and an epoch's last names the next validators."""
        calendar, height = self._calendar, block.height
        _require(
            block.epoch == calendar.epoch_of(height),
            f"{who} block {height} of epoch {block.epoch}, not {calendar.epoch_of(height)}",
        )
        named = ZERO_HASH
        if height == calendar.last_height(block.epoch):
            named = calendar.validators(block.epoch + 1).digest()
        _require(
            block.next_validators == named,
            f"{who} block {height}, which names a wrong set of next validators",
        )

    def _voted_for(self, node: int, block: Block) -> None:
        """What an honest validator proposed or voted for: no batch, no root, no set above the last
        block of an epoch."""
        last = self._calendar.last_height(block.epoch)
        if last is None or block.height <= last:
            self._epoch(f"validator {node} voted for", block)
        elif block.parent in self._above:
            self._filler(node, block, self._above[block.parent])
        if last is not None and block.height >= last:
            self._above[block.digest()] = block

    def _filler(self, node: int, block: Block, below: Block) -> None:
        """A block above an epoch's last brings nothing."""
        same = (block.cut, block.executed_height, block.executed_root, block.next_validators)
        as_below = (below.cut, below.executed_height, below.executed_root, ZERO_HASH)
        _require(same == as_below, f"validator {node} took a filler that brings something")

    def _available(self, tip: Tip) -> None:
        held = any(tip.digest in disk.store.batches for disk in self._disks())
        _require(held, f"nobody honest holds lane {tip.lane} at {tip.sequence}, proven or final")

    def _compare_roots(self, height: int) -> None:
        claimed, own = self._claims.get(height), self._roots.get(height)
        same = claimed is None or own is None or claimed == own
        _require(same, f"a final block vouches for another execution root of height {height}")

    def _final_block(self, node: int, final: FinalBlock) -> None:
        block = final.block
        known = self._blocks.get(block.height)
        if known is not None:
            same = known[0] == final
            _require(same, f"replica {node} finalized another block at height {block.height}")
            return
        self._blocks[block.height] = (final, block.digest())
        self.height = max(self.height, block.height)
        _require(block.view > block.parent_view, f"block {block.height} is not above its parent")
        parent = self._blocks.get(block.height - 1)
        if parent is None:
            raise InvariantBroken(f"block {block.height} became final before its parent")
        self._epoch(f"replica {node} finalized", block)
        self._child(final, parent[0], parent[1])
        for view in range(block.parent_view + 1, block.view):
            self._quorum((block.epoch, view, VoteKind.NULLIFY), ZERO_HASH)
            finalized = (block.epoch, view, VoteKind.FINALIZE) in self._certified
            _require(not finalized, f"final view {view} was skipped")
        claimed = self._claims.setdefault(block.executed_height, block.executed_root)
        height = block.executed_height
        _require(claimed == block.executed_root, f"two roots of height {height} became final")
        self._compare_roots(height)

    def _child(self, final: FinalBlock, parent: FinalBlock, parent_digest: bytes) -> None:
        block = final.block
        follows = parent_digest == block.parent and parent.block.view == block.parent_view
        _require(follows, f"block {block.height} does not follow the final parent")
        members = self._calendar.validators(block.epoch).by_index
        _require(
            block.proposer in members, f"block {block.height} is by {block.proposer}, no member"
        )
        key = members[block.proposer].vrf_key
        output = self._checks.vrf_output(key, parent.beacon, block.vrf_proof)
        _require(output is not None, f"the VRF proof of final block {block.height} does not hold")
        self._cut(block, parent.block)

    def _cut(self, block: Block, parent: Block) -> None:
        begins = block.epoch != parent.epoch  # then all lanes begin anew
        below = {tip.lane: tip for tip in parent.cut} if not begins else {}
        members = self._calendar.validators(block.epoch).by_index
        for tip in block.cut:
            _require(tip.lane in members, f"block {block.height} takes from {tip.lane}, no member")
            was = below.pop(tip.lane, Tip(tip.lane, 0, ZERO_HASH))
            if tip == was:
                continue
            rises = tip.sequence > was.sequence
            _require(rises, f"block {block.height} takes lane {tip.lane} back")
            self._available(tip)
        _require(not below, f"block {block.height} loses lanes {sorted(below)}")
