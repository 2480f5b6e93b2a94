"""What a Byzantine validator says in place of what its honest program would say.

A `Liar` stands between one replica and its links and rewrites messages, peer by peer, with the
validator's own keys. It may say anything that it can sign; it forges nobody's signature. Twins
need no liar: they are two honest programs with one key.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Final

from consensus.blocktree import BlockTree, Node
from consensus.certificates import nullify_body, sign_ack, sign_vote
from consensus.events import Signer
from consensus.messages import (
    AckBody,
    AvailabilityProof,
    BatchMessage,
    BatchRequest,
    BlocksRequest,
    Certificates,
    CertificatesRequest,
    Message,
    Proposal,
    ProposalRequest,
    Status,
    proposal_message,
)
from consensus.sim.scenario import Misdeed
from consensus.values import (
    Batch,
    Block,
    Certificate,
    Tip,
    ValidatorSet,
    Vote,
    VoteBody,
    VoteKind,
)
from ext.hashing import sha256

NOISE_SHARE: Final = 0.15
"""How often a flooding validator adds noise to a message."""
SILENCE_MS: Final = 500
"""How long a selective validator keeps to one half of its peers."""
ROOTS_REMEMBERED: Final = 8


class Liar:
    """One Byzantine validator's mouth."""

    def __init__(
        self,
        index: int,
        misdeeds: frozenset[Misdeed],
        signer: Signer,
        chain_id: str,
        validators: ValidatorSet,
        random: Random,
    ) -> None:
        self._index = index
        self._misdeeds = misdeeds
        self._signer = signer
        self._chain_id = chain_id
        self._validators = validators
        self._random = random
        self._altered: dict[bytes, Proposal] = {}
        """By digest of an own proposal, what is sent in its place."""
        self._twisted: dict[bytes, Proposal] = {}
        """By digest of an own proposal, what half of the peers get in its place."""
        self._forks: dict[int, bytes] = {}
        """Digests of the other branch of the own lane, by sequence."""
        self._roots: dict[bytes, Node] = {}
        self._confidants = self._choose_confidants()

    def enter(self, signer: Signer, validators: ValidatorSet) -> None:
        """Another epoch begins, with these keys and members."""
        self._signer = signer
        self._validators = validators
        self._forks.clear()
        self._confidants = self._choose_confidants()

    def say(
        self, peer: int, message: Message, now_ms: int, tree: BlockTree, view: int
    ) -> list[Message]:
        """What reaches the link to `peer` in place of `message`."""
        misdeeds = self._misdeeds
        self._remember(tree.root)
        if Misdeed.SELECTIVE in misdeeds and (now_ms // SILENCE_MS + peer) % 2:
            return []
        if Misdeed.WITHHOLD in misdeeds and self._withheld(message):
            return []
        if Misdeed.STALE_PARENT in misdeeds and _finalizes(message):
            return []
        said: list[Message] = [self._rewritten(peer, message, tree)]
        if Misdeed.HIDE_BATCH in misdeeds and isinstance(message, BatchMessage):
            own = message.batch.header.lane == self._index
            if own and peer not in self._confidants:
                said = [] if message.proof is None else [message.proof]
        if Misdeed.EQUIVOCATE in misdeeds and isinstance(message, Vote):
            said += self._contradictions(message)
        if Misdeed.FLOOD in misdeeds and self._random.random() < NOISE_SHARE:
            said.append(self._noise(message, view))
        return said

    # --- proposals and votes ----------------------------------------------------------------

    def _rewritten(self, peer: int, message: Message, tree: BlockTree) -> Message:
        if isinstance(message, Proposal) and message.block.proposer == self._index:
            digest = message.block.digest()
            if digest not in self._altered:
                self._alter(message, digest, tree)
            return self._version(peer, digest) or message
        if isinstance(message, Vote) and message.body.kind is not VoteKind.NULLIFY:
            version = self._version(peer, message.body.digest)
            if version is None:
                return message
            block = version.block
            body = replace(message.body, parent_view=block.parent_view, digest=block.digest())
            return sign_vote(self._signer, self._chain_id, self._index, body)
        if isinstance(message, BatchMessage) and Misdeed.FORK_LANE in self._misdeeds:
            return self._forked(peer, message)
        return message

    def _version(self, peer: int, digest: bytes) -> Proposal | None:
        """The proposal that `peer` gets in place of an own one."""
        if peer % 2 and digest in self._twisted:
            return self._twisted[digest]
        return self._altered.get(digest)

    def _alter(self, proposal: Proposal, digest: bytes, tree: BlockTree) -> None:
        block = proposal.block
        if Misdeed.STALE_PARENT in self._misdeeds:
            block = self._stale(block, tree)
        if Misdeed.BAD_CUT in self._misdeeds:
            block = replace(block, cut=self._invented(block.cut))
        if Misdeed.BAD_ROOT in self._misdeeds:
            block = replace(block, executed_root=sha256(block.executed_root))
        if Misdeed.BAD_SET in self._misdeeds:
            block = replace(block, next_validators=sha256(block.next_validators))
        if Misdeed.BAD_VRF in self._misdeeds:
            block = replace(block, vrf_proof=sha256(block.vrf_proof) + block.vrf_proof[32:])
        self._altered[digest] = self._sign(block) if block != proposal.block else proposal
        if Misdeed.EQUIVOCATE in self._misdeeds:
            self._twisted[digest] = self._sign(replace(block, timestamp_ms=block.timestamp_ms + 1))

    def _stale(self, block: Block, tree: BlockTree) -> Block:
        """The block on its grandparent, if that is still known."""
        parent = tree.get(block.parent)
        below = parent.block.parent if parent is not None else b""
        grandparent = tree.get(below) or self._roots.get(below)
        if grandparent is None:
            return block
        under = grandparent.block
        return replace(
            block,
            height=under.height + 1,
            parent_view=under.view,
            parent=grandparent.digest,
            cut=under.cut,
            vrf_proof=self._signer.prove_vrf(grandparent.beacon),
            executed_height=under.executed_height,
            executed_root=under.executed_root,
        )

    def _invented(self, cut: tuple[Tip, ...]) -> tuple[Tip, ...]:
        """The cut with one more batch in the own lane than there is."""
        tips = {tip.lane: tip for tip in cut}
        sequence = tips[self._index].sequence if self._index in tips else 0
        tips[self._index] = Tip(self._index, sequence + 1, self._junk(32))
        return tuple(tips[lane] for lane in sorted(tips))

    def _sign(self, block: Block) -> Proposal:
        message = proposal_message(self._chain_id, block.digest())
        return Proposal(block, self._signer.sign(message))

    def _remember(self, root: Node) -> None:
        if root.digest not in self._roots:
            self._roots[root.digest] = root
            if len(self._roots) > ROOTS_REMEMBERED:
                del self._roots[next(iter(self._roots))]

    def _contradictions(self, vote: Vote) -> list[Message]:
        """Votes of the other kind for the view of an own vote."""
        body = vote.body
        if vote.signer != self._index or body.kind is VoteKind.NULLIFY:
            return []
        nullify = nullify_body(body.epoch, body.view)
        finalize = replace(body, kind=VoteKind.FINALIZE)
        bodies = [nullify, finalize] if body.kind is VoteKind.NOTARIZE else [nullify]
        return [sign_vote(self._signer, self._chain_id, self._index, one) for one in bodies]

    def _withheld(self, message: Message) -> bool:
        if isinstance(message, Certificates):
            return True
        return isinstance(message, Proposal) and message.block.proposer == self._index

    # --- lanes ------------------------------------------------------------------------------

    def _forked(self, peer: int, message: BatchMessage) -> BatchMessage:
        """Another batch at the same place of the own lane, for half of the peers."""
        header = message.batch.header
        if header.lane != self._index or peer % 2 == 0:
            return message
        payload = message.batch.payload + b"'"
        parent = self._forks.get(header.sequence - 1, header.parent)
        forked = replace(header, parent=parent, payload_root=sha256(payload))
        self._forks[header.sequence] = forked.digest()
        signature = self._signer.sign(forked.signed_message(self._chain_id))
        return BatchMessage(Batch(forked, signature, payload), message.proof)

    def _choose_confidants(self) -> frozenset[int]:
        """As few peers as make a proof of availability together with the owner."""
        chosen = {self._index}
        for peer in self._validators.others(self._index, self._index):
            if self._validators.weight(chosen) >= self._validators.honest_stake:
                break
            chosen.add(peer)
        return frozenset(chosen)

    # --- noise ------------------------------------------------------------------------------

    def _noise(self, message: Message, view: int) -> Message:
        makers: tuple[Callable[[Message, int], Message], ...] = (
            self._bad_vote,
            self._foreign_vote,
            self._swollen_certificate,
            self._empty_certificate,
            self._swollen_proof,
            self._bad_ack,
            self._bad_copy,
            self._nonsense,
        )
        return self._random.choice(makers)(message, view)

    def _junk(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def _bad_vote(self, _: Message, view: int) -> Message:
        kind = self._random.choice(list(VoteKind))
        body = VoteBody(
            kind,
            self._validators.epoch,
            view + self._random.randint(0, 3),
            view - 1,
            self._junk(32),
        )
        return Vote(body, self._index, self._junk(64))

    def _foreign_vote(self, _: Message, view: int) -> Message:
        other = self._random.choice(list(self._validators.by_index))
        return Vote(nullify_body(self._validators.epoch, view), other, self._junk(64))

    def _swollen_certificate(self, _: Message, view: int) -> Message:
        """Own good signature, counted as often as it takes."""
        vote = sign_vote(
            self._signer, self._chain_id, self._index, nullify_body(self._validators.epoch, view)
        )
        many = len(self._validators.members)
        certificate = Certificate(vote.body, (self._index,) * many, (vote.signature,) * many)
        return Certificates((certificate,))

    def _empty_certificate(self, _: Message, view: int) -> Message:
        """Everybody's signature, none of them good."""
        members = tuple(self._validators.by_index)
        kind = self._random.choice((VoteKind.NOTARIZE, VoteKind.FINALIZE))
        body = VoteBody(kind, self._validators.epoch, view + 1, view, self._junk(32))
        junk = tuple(self._junk(64) for _ in members)
        return Certificates((Certificate(body, members, junk),))

    def _swollen_proof(self, _: Message, view: int) -> Message:
        body = AckBody(self._validators.epoch, Tip(self._index, view, self._junk(32)))
        signature = sign_ack(self._signer, self._chain_id, self._index, body).signature
        many = len(self._validators.members)
        return AvailabilityProof(body, (self._index,) * many, (signature,) * many)

    def _bad_ack(self, _: Message, view: int) -> Message:
        lane = self._random.choice(list(self._validators.by_index))
        body = AckBody(self._validators.epoch, Tip(lane, view, self._junk(32)))
        return sign_ack(self._signer, self._chain_id, self._index, body)

    def _bad_copy(self, message: Message, _: int) -> Message:
        if isinstance(message, BatchMessage):
            return replace(message, batch=replace(message.batch, payload=self._junk(16)))
        if isinstance(message, Proposal | Vote):
            return replace(message, signature=self._junk(64))
        return message

    def _nonsense(self, _: Message, view: int) -> Message:
        far = self._random.getrandbits(63)
        return self._random.choice(
            (
                BlocksRequest(far),
                BatchRequest(Tip(self._index, far, self._junk(32)), 65_535),
                CertificatesRequest(0, far),
                ProposalRequest(view, self._junk(32)),
                Status(far, far, far, ()),
            )
        )


def _finalizes(message: Message) -> bool:
    if isinstance(message, Vote):
        return message.body.kind is VoteKind.FINALIZE
    return isinstance(message, Certificates) and any(
        certificate.body.kind is VoteKind.FINALIZE for certificate in message.items
    )
