"""Helping peers that lag, and taking help: certificates, blocks, proposals, proofs.

Help is given to who shows that it lags (a Status, or giving up a view long past), at most once a
resend pace and peer. Blocks are believed for one reason: a certificate finalizes the last and
the parent digests lead back from it to our own final block.
"""

from consensus.blocktree import Node
from consensus.certificates import certificate_fault
from consensus.context import Context
from consensus.epochs import final_path_fault
from consensus.events import LoadBatch, LoadBlocks
from consensus.lanes import Lanes
from consensus.messages import (
    BATCHES_PER_REQUEST_MAX,
    CERTIFICATES_PER_MESSAGE_MAX,
    BatchRequest,
    Blocks,
    BlocksRequest,
    Certificates,
    CertificatesRequest,
    ProofRequest,
    ProposalRequest,
    Status,
)
from consensus.proposals import beacon_of, named_validators
from consensus.simplex import Simplex
from consensus.values import Certificate, VoteKind


class CatchUp:
    """Serves requests and statuses; verifies blocks."""

    def __init__(self, context: Context, simplex: Simplex, lanes: Lanes) -> None:
        self._context = context
        self._simplex = simplex
        self._lanes = lanes
        self._helped_ms: dict[int, int] = {}
        self._told_ms: dict[int, int] = {}
        self._asked_ms: dict[int, int] = {}
        self.later_epoch = context.epoch
        """The latest that anybody says to be in."""

    def receive_status(self, peer: int, status: Status) -> None:
        """Give a peer what it lacks; tell it where we stand if it is ahead."""
        if status.epoch != self._context.epoch:
            self._of_another_epoch(peer, status)
            return
        if self._once(self._helped_ms, peer):
            self._help(peer, status.standing, status.finalized_view)
            own = self._context.own_index
            if own is not None and self._context.is_validator(peer):
                held = {tip.lane: tip.sequence for tip in status.tips}
                self._lanes.push(peer, held.get(own, 0))
        if status.view > self._simplex.view and self._once(self._told_ms, peer):
            self._context.send(peer, self._simplex.status())

    def _of_another_epoch(self, peer: int, status: Status) -> None:
        """Who is behind is told so, and asks; who is ahead has the blocks that end this epoch."""
        if status.epoch < self._context.epoch:
            self.tell(peer)
            return
        self.later_epoch = max(self.later_epoch, status.epoch)
        if not self._simplex.ended and self._once(self._asked_ms, peer):
            root = self._simplex.tree.root.block
            self._context.send(peer, BlocksRequest(root.height + 1))

    def tell(self, peer: int) -> None:
        """Say where we stand."""
        if self._once(self._told_ms, peer):
            self._context.send(peer, self._simplex.status())

    def behind(self, peer: int, view: int) -> None:
        """A peer still wants to give up a view that is over here."""
        if self._once(self._helped_ms, peer):
            self._help(peer, view, view - 1)

    def far_ahead(self, peer: int) -> None:
        """A peer speaks of views we do not keep yet: let it help us."""
        if self._once(self._told_ms, peer):
            self._context.send(peer, self._simplex.status())

    def serve_certificates(self, peer: int, request: CertificatesRequest) -> None:
        """Send what is held of a range of views."""
        items = self._certificates(request.from_view, request.to_view)
        finalization = self._simplex.ballots.finalization
        if finalization is not None and finalization.body.view >= request.from_view:
            items = [*items[: CERTIFICATES_PER_MESSAGE_MAX - 1], finalization]
        if items:
            self._context.send(peer, Certificates(tuple(items)))

    def serve_blocks(self, peer: int, request: BlocksRequest) -> None:
        """Let the driver send finalized blocks."""
        if 1 <= request.from_height <= self._simplex.tree.root.block.height:
            self._context.emit(LoadBlocks(peer, request.from_height))

    def serve_batch(self, peer: int, request: BatchRequest) -> None:
        """Let the driver send a batch and its ancestors."""
        tip = request.tip  # of any epoch: its lane need not be a member's
        count = min(max(request.count, 1), BATCHES_PER_REQUEST_MAX)
        self._context.emit(LoadBatch(peer, tip.lane, tip.sequence, tip.digest, count))

    def serve_proposal(self, peer: int, request: ProposalRequest) -> None:
        """Send a proposal that is held."""
        proposal = self._simplex.proposals.get(request.view, request.digest)
        if proposal is not None:
            self._context.send(peer, proposal)

    def serve_proof(self, peer: int, request: ProofRequest) -> None:
        """Send an availability proof that is held."""
        proof = self._lanes.proof_of(request.tip)
        if proof is not None:
            self._context.send(peer, proof)

    def receive_blocks(self, blocks: Blocks) -> str | None:
        """Commit finalized blocks above ours; why not, if they are not believed."""
        root = self._simplex.tree.root
        rising = [block for block in blocks.blocks if block.height > root.block.height]
        if not rising:
            return "no block is above the final one"
        body = blocks.certificate.body
        certified = (*rising, *blocks.fillers)[-1]
        if body.kind is not VoteKind.FINALIZE or body.digest != certified.digest():
            return "the certificate does not finalize the last block"
        config = self._context.config
        last = rising[-1]
        if last.height == config.last_height:
            if last.next_validators != named_validators(config, last.height):
                return "the last block names other validators for the next epoch"
            fault = final_path_fault(last, blocks.fillers, blocks.certificate)
            if fault is not None:
                return fault
        elif blocks.fillers or (config.last_height or last.height) < last.height:
            return "blocks go beyond the epoch"
        nodes: list[Node] = []
        below = root
        for block in (*rising, *blocks.fillers):
            if block.epoch != self._context.epoch:
                return f"block {block.height} is of epoch {block.epoch}"
            if block.parent != below.digest or block.height != below.block.height + 1:
                return f"block {block.height} does not follow {below.block.height}"
            if block.parent_view != below.block.view or block.view <= block.parent_view:
                return f"block {block.height} has view {block.view} on {block.parent_view}"
            below = Node(block, block.digest(), b"")
            nodes.append(below)
        if body.view != below.block.view:
            return f"the certificate is of view {body.view}, the block of {below.block.view}"
        return self._commit(nodes, blocks.certificate)

    def _commit(self, nodes: list[Node], certificate: Certificate) -> str | None:
        context = self._context
        verify_many = context.checks.verify_many
        fault = certificate_fault(certificate, context.validators, context.chain_id, verify_many)
        if fault is not None:
            return fault
        beacon = self._simplex.tree.root.beacon
        sound: list[Node] = []
        for node in nodes:
            following = beacon_of(context, node.block, beacon)
            if following is None:
                return f"the VRF proof of block {node.block.height} does not hold"
            beacon = following
            sound.append(Node(node.block, node.digest, beacon))
        self._simplex.take_final(sound, certificate)
        return None

    def _help(self, peer: int, view: int, finalized_view: int) -> None:
        simplex = self._simplex
        items: list[Certificate] = []
        finalization = simplex.ballots.finalization
        if finalization is not None and finalization.body.view > finalized_view:
            items.append(finalization)
        if view < simplex.view:
            items += self._certificates(view, simplex.view)
        if items:
            self._context.send(peer, Certificates(tuple(items[:CERTIFICATES_PER_MESSAGE_MAX])))

    def _certificates(self, from_view: int, to_view: int) -> list[Certificate]:
        ballots = self._simplex.ballots
        items: list[Certificate] = []
        for held in (ballots.notarizations, ballots.nullifications):
            items += [held[view] for view in held if from_view <= view < to_view]
        items.sort(key=lambda certificate: certificate.body.view)
        return items[:CERTIFICATES_PER_MESSAGE_MAX]

    def _once(self, last_ms: dict[int, int], peer: int) -> bool:
        """Whether a resend pace has passed for this peer; if so it begins anew."""
        now_ms = self._context.now_ms
        if now_ms < last_ms.get(peer, -self._context.resend_ms) + self._context.resend_ms:
            return False
        last_ms[peer] = now_ms
        return True
