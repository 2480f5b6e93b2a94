"""What must hold in every world, checked at every step of every honest replica."""

from collections import defaultdict

from consensus.certificates import Checks, certificate_fault
from consensus.events import Deliver, FinalBlock, Finalized
from consensus.journal import encode_record
from consensus.messages import Certificates, Message
from consensus.values import Certificate, ValidatorSet, Vote, VoteKind


class InvariantBroken(Exception):
    """A rule of the protocol did not hold; the message names it."""


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InvariantBroken(message)


class Invariants:
    """The judge of one world. Validators in `byzantine` may break every rule."""

    def __init__(
        self, chain_id: str, validators: ValidatorSet, checks: Checks, byzantine: frozenset[int]
    ) -> None:
        self._chain_id = chain_id
        self._validators = validators
        self._checks = checks
        self._byzantine = byzantine
        self._votes: dict[tuple[int, VoteKind], dict[int, bytes]] = defaultdict(dict)
        """(view, kind) -> signer -> digest, of every vote an honest validator ever sent."""
        self._certified: dict[tuple[int, VoteKind], bytes] = {}
        self._checked: set[Certificate] = set()
        self._blocks: dict[int, tuple[FinalBlock, bytes]] = {}
        self._roots: dict[int, bytes] = {}
        self._delivered: dict[int, int] = {}
        self.height = 0
        """The highest final block anywhere."""

    def sent(self, node: int, message: Message, durable_log: bytes) -> None:
        """A message leaves a validator."""
        if isinstance(message, Vote) and message.signer == node and node not in self._byzantine:
            record = encode_record(message)
            _require(record in durable_log, f"validator {node} sent a vote before it was durable")
            self._vote(node, message)
        elif isinstance(message, Certificates):
            for certificate in message.items:
                self._certificate(certificate)

    def finalized(self, node: int, effect: Finalized) -> None:
        """A replica calls blocks final."""
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

    def restarted(self, node: int, executed_height: int) -> None:
        """A replica begins again above what it had executed durably."""
        self._delivered[node] = executed_height

    def executed(self, node: int, height: int, root: bytes) -> None:
        """A replica computed an execution root."""
        known = self._roots.setdefault(height, root)
        _require(known == root, f"replica {node} has another execution root at height {height}")

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
        verify_many = self._checks.verify_many
        fault = certificate_fault(certificate, self._validators, self._chain_id, verify_many)
        _require(fault is None, f"a certificate is bad: {fault}")
        known = self._certified.setdefault((body.view, body.kind), body.digest)
        _require(known == body.digest, f"two blocks are certified in view {body.view}")
        pair = (body.view, VoteKind.NULLIFY), (body.view, VoteKind.FINALIZE)
        _require(
            not all(key in self._certified for key in pair),
            f"view {body.view} is nullified and finalized",
        )
        if body.kind is VoteKind.FINALIZE:
            notarized = self._certified.get((body.view, VoteKind.NOTARIZE), body.digest)
            _require(notarized == body.digest, f"view {body.view} finalized another block")
            self._quorum(body.view, VoteKind.NOTARIZE, body.digest)
        self._quorum(body.view, body.kind, body.digest)

    def _quorum(self, view: int, kind: VoteKind, digest: bytes) -> None:
        """Honest votes, and all that the Byzantine may add, make a quorum."""
        votes = self._votes[view, kind]
        signers = {signer for signer, said in votes.items() if said == digest}
        stake = self._validators.weight(signers | self._byzantine)
        enough = stake >= self._validators.quorum_stake
        _require(enough, f"no quorum of {kind.name} votes for view {view}")

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
        if parent is not None:
            follows = parent[1] == block.parent and parent[0].block.view == block.parent_view
            _require(follows, f"block {block.height} does not follow the final parent")
        for view in range(block.parent_view + 1, block.view):
            self._quorum(view, VoteKind.NULLIFY, bytes(32))
            finalized = (view, VoteKind.FINALIZE) in self._certified
            _require(not finalized, f"final view {view} was skipped")
