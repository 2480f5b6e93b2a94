"""What must hold in every world, checked at every step of every honest replica.

The judge counts stake and signers by itself, so that a mistake in the code under test is not
repeated here. It sees what nobody in the world sees: everything said, and every disk.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Final, cast

from consensus.blocktree import Node
from consensus.certificates import Checks
from consensus.events import Deliver, FinalBlock, Finalized, Misbehaviour
from consensus.evidence import evidence_fault
from consensus.journal import decode_record, encode_record
from consensus.messages import Ack, AvailabilityProof, BatchMessage, Certificates, Message
from consensus.sim.disk import Disk
from consensus.values import ZERO_HASH, Block, Certificate, Tip, ValidatorSet, Vote, VoteKind
from consensus.wal import WAL_NAME
from consensus.wire import DecodeError

Key = tuple[int, VoteKind]
"""A view, and what a vote says about it."""
_VOTE_TAG: Final = b"\x01"
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
        validators: ValidatorSet,
        checks: Checks,
        byzantine: frozenset[int],
        disks: Callable[[], list[Disk]],
        genesis: Node,
    ) -> None:
        """`disks` are those of honest machines; `genesis` is what block 1 follows."""
        self._chain_id = chain_id
        self._validators = validators
        self._stakes = [member.stake for member in validators.members]
        self._stake_total = sum(self._stakes)
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
        self._delivered: dict[int, int] = {}
        self.height = 0
        """The highest final block anywhere."""

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

    def persisted(self, node: int, record: bytes) -> None:
        """A validator's program writes into its log."""
        if record[:1] != _CERTIFICATE_TAG or record in self._persisted:
            return
        self._persisted.add(record)
        try:
            certificate = decode_record(record)
        except DecodeError as error:
            raise InvariantBroken(f"validator {node} wrote a record that is none") from error
        if isinstance(certificate, Certificate):
            self._certificate(certificate)

    def finalized(self, node: int, effect: Finalized) -> None:
        """A replica calls blocks final."""
        if effect.certificate is None:
            raise InvariantBroken(f"validator {node} ended an epoch, of which this world has one")
        self._certificate(effect.certificate)
        last = effect.blocks[-1].block
        body = effect.certificate.body
        _require(body.kind is VoteKind.FINALIZE, f"validator {node} finalized without finalization")
        _require(body.digest == last.digest(), f"validator {node} finalized another block")
        for final in effect.blocks:
            self._final_block(node, final)

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
        self, node: int, index: int, executed_height: int, records: tuple[bytes, ...]
    ) -> None:
        """Validator `index` begins again as replica `node`: above what it had executed durably,
        and bound by the votes in its log, whether they were sent or not."""
        self._delivered[node] = executed_height
        for record in records if index not in self._byzantine else ():
            if record[:1] == _VOTE_TAG:
                self._vote(index, cast(Vote, decode_record(record)))

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
        _require(culprit in self._byzantine, f"replica {node} convicts honest {culprit}")

        def verify(key: bytes, message: bytes, signature: bytes) -> bool:
            return self._checks.verify_many([(key, message, signature)])[0]

        fault = evidence_fault(evidence, self._validators, self._chain_id, verify)
        _require(fault is None, f"replica {node} shows evidence that proves nothing: {fault}")

    # --- rules ------------------------------------------------------------------------------

    def _vote(self, node: int, vote: Vote) -> None:
        body = vote.body
        said = self._votes[body.view, body.kind].setdefault(node, body.digest)
        _require(said == body.digest, f"validator {node} voted twice in view {body.view}")
        both = all(
            node in self._votes[body.view, kind] for kind in (VoteKind.NULLIFY, VoteKind.FINALIZE)
        )
        _require(not both, f"validator {node} nullified and finalized view {body.view}")

    def _certificate(self, certificate: Certificate) -> None:
        if certificate in self._checked:
            return
        self._checked.add(certificate)
        body = certificate.body
        view = body.view
        stake = self._signed_stake(
            certificate.signers, certificate.signatures, body.signed_message(self._chain_id)
        )
        enough = 3 * stake > 2 * self._stake_total
        _require(enough, f"a {body.kind.name} certificate of view {view} has stake {stake}")
        known = self._certified.setdefault((view, body.kind), body.digest)
        _require(known == body.digest, f"two blocks are certified in view {view}")
        pair = (view, VoteKind.NULLIFY), (view, VoteKind.FINALIZE)
        both = all(key in self._certified for key in pair)
        _require(not both, f"view {view} is nullified and finalized")
        if body.kind is VoteKind.NULLIFY:
            _require(body.digest == ZERO_HASH, f"a nullification of view {view} names a block")
        if body.kind is VoteKind.FINALIZE:
            notarized = self._certified.get((view, VoteKind.NOTARIZE), body.digest)
            _require(notarized == body.digest, f"view {view} finalized another block")
            self._quorum(view, VoteKind.NOTARIZE, body.digest)
        self._quorum(view, body.kind, body.digest)

    def _proof(self, proof: AvailabilityProof) -> None:
        if proof in self._proofs:
            return
        self._proofs.add(proof)
        tip = proof.body.tip
        message = proof.body.signed_message(self._chain_id)
        stake = self._signed_stake(proof.signers, proof.signatures, message)
        enough = 3 * stake >= self._stake_total
        _require(enough, f"a proof of lane {tip.lane} at {tip.sequence} has stake {stake}")
        self._available(tip)

    def _signed_stake(
        self, signers: tuple[int, ...], given: tuple[bytes, ...], message: bytes
    ) -> int:
        """Stake of different members whose signatures are good."""
        known = [(s, g) for s, g in zip(signers, given, strict=True) if s < len(self._stakes)]
        keys = [self._validators.members[signer].signing_key for signer, _ in known]
        items = [(key, message, sig) for key, (_, sig) in zip(keys, known, strict=True)]
        good = self._checks.verify_many(items)
        counted = {signer for (signer, _), holds in zip(known, good, strict=True) if holds}
        return sum(self._stakes[signer] for signer in counted)

    def _quorum(self, view: int, kind: VoteKind, digest: bytes) -> None:
        """Honest votes, and all that the Byzantine may add, make a quorum."""
        votes = self._votes[view, kind]
        signers = {signer for signer, said in votes.items() if said == digest} | self._byzantine
        stake = sum(self._stakes[signer] for signer in signers)
        enough = 3 * stake > 2 * self._stake_total
        _require(enough, f"no quorum of {kind.name} votes for view {view}")

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
        self._child(final, parent[0], parent[1])
        for view in range(block.parent_view + 1, block.view):
            self._quorum(view, VoteKind.NULLIFY, ZERO_HASH)
            finalized = (view, VoteKind.FINALIZE) in self._certified
            _require(not finalized, f"final view {view} was skipped")
        claimed = self._claims.setdefault(block.executed_height, block.executed_root)
        height = block.executed_height
        _require(claimed == block.executed_root, f"two roots of height {height} became final")
        self._compare_roots(height)

    def _child(self, final: FinalBlock, parent: FinalBlock, parent_digest: bytes) -> None:
        block = final.block
        follows = parent_digest == block.parent and parent.block.view == block.parent_view
        _require(follows, f"block {block.height} does not follow the final parent")
        key = self._validators.members[block.proposer].vrf_key
        output = self._checks.vrf_output(key, parent.beacon, block.vrf_proof)
        _require(output is not None, f"the VRF proof of final block {block.height} does not hold")
        self._cut(block, parent.block)

    def _cut(self, block: Block, parent: Block) -> None:
        below = {tip.lane: tip for tip in parent.cut}
        for tip in block.cut:
            was = below.pop(tip.lane, Tip(tip.lane, 0, ZERO_HASH))
            if tip == was:
                continue
            rises = tip.sequence > was.sequence
            _require(rises, f"block {block.height} takes lane {tip.lane} back")
            self._available(tip)
        _require(not below, f"block {block.height} loses lanes {sorted(below)}")
