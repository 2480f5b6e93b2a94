"""The view machine: propose, vote, certify, enter the next view, commit.

Rules, for view v and this validator:
- it leads at most one proposal, on the newest certified block below which every view is
  nullified;
- it votes to notarize at most once, in v only, never after giving v up, and only what `judge`
  accepts;
- it gives v up (nullify) when the clock says so, when the proposal is refused, or when f + 1
  gave up;
- seeing v notarized while not past it, it votes to finalize, unless it gave v up or the leader
  was seen to equivocate; it then is in a later view and can give v up no more;
- any certificate of view w >= v takes it to w + 1; a finalization commits its block and all
  ancestors.

Each vote is in the WAL before it is sent, and what the WAL holds binds after a restart.
"""

from dataclasses import dataclass
from typing import Final

from consensus.asking import Requests
from consensus.ballots import Ballots
from consensus.blocktree import BlockTree, Node
from consensus.certificates import nullify_body, sign_vote
from consensus.context import Context
from consensus.delivery import Delivery
from consensus.epochs import EpochBoundary, leader_seed
from consensus.events import Demand, EpochEnded, FinalBlock, Finalized
from consensus.executions import Executions, executed_height_max
from consensus.journal import Record
from consensus.lanes import Lanes
from consensus.leaders import LeaderSchedule
from consensus.messages import (
    LATER_VIEWS,
    BlocksRequest,
    Certificates,
    CertificatesRequest,
    Proposal,
    ProposalRequest,
    Status,
    proposal_message,
)
from consensus.pacing import Pacing
from consensus.proposals import Judge, Opinion, Proposals, named_validators
from consensus.punctuality import Punctuality
from consensus.values import Block, Certificate, Tip, Vote, VoteBody, VoteKind

VIEWS_AHEAD_MAX: Final = 64
"""Votes and proposals further ahead are dropped; certificates are taken from any distance."""
_ROUNDS_MAX: Final = 1_000
"""Rounds of one step before it is called an endless loop."""


@dataclass(slots=True)
class OwnVotes:
    """What this validator said in one view; never unsaid."""

    notarized: VoteBody | None = None
    nullified: bool = False
    finalized: VoteBody | None = None


class Simplex:
    """The state of ordering. `advance` does whatever has become possible."""

    def __init__(
        self,
        context: Context,
        root: Node,
        finalization: Certificate | None,
        lanes: Lanes,
        executions: Executions,
        delivery: Delivery,
    ) -> None:
        self._context = context
        self._lanes = lanes
        self._executions = executions
        self._delivery = delivery
        config = context.config
        boundary_digest = b"" if config.root is None else config.root.block.digest()
        seed = leader_seed(config.genesis_digest, context.epoch, boundary_digest)
        self._schedule = LeaderSchedule(context.validators, seed)
        self.ended = root.block.height == config.last_height
        """Whether the epoch is over: nothing more is signed in it."""
        self.requests = Requests(context)
        self.tree = BlockTree(root)
        self.ballots = Ballots(context)
        self.ballots.finalization = finalization
        self.proposals = Proposals(context, self.tree)
        self._judge = Judge(context, self.tree, self.ballots, lanes, executions)
        self.own_votes: dict[int, OwnVotes] = {}
        self.sent_votes: dict[int, list[Vote]] = {}
        self.votes_above: int | None = 0
        """In views up to this one nothing is signed, and with None in none (`memory`)."""
        self.demand = Demand(False)
        self._punctuality = Punctuality(context.config.timing)
        self.view = root.block.view + 1
        self.pacing = Pacing(context.config.timing, context.now_ms, context.now_ms)
        self._resend_at_ms: int | None = None
        self._retry_at_ms: int | None = None
        self.started = False

    # --- what comes in ----------------------------------------------------------------------

    def leader(self, view: int) -> int:
        """Validator index of a view's leader."""
        return self._schedule.leader(view)

    def receive_vote(self, vote: Vote) -> bool:
        """A vote of an authenticated peer, or our own; whether `advance` may do more by it."""
        body = vote.body
        self._punctuality.voted(vote.signer, body.view)
        in_window = self.tree.root.block.view < body.view <= self.view + VIEWS_AHEAD_MAX
        if body.epoch != self._context.epoch or not in_window or self.ended:
            return False
        certificate = self.ballots.add(vote, own=vote.signer == self._context.own_index)
        if certificate is None:
            return self._tells(vote)
        self._hold(certificate)
        if self._relays(body):
            self._context.broadcast(Certificates((certificate,)))
        return True

    def lacks(self, certificate: Certificate) -> bool:
        """Whether a certificate would be news, if it is good."""
        body = certificate.body
        if body.epoch != self._context.epoch or self.ended:
            return False
        return body.view > self.tree.root.block.view and not self.ballots.knows(body)

    def take_certificate(self, certificate: Certificate) -> None:
        """A good certificate from anywhere."""
        self._hold(certificate)

    def receive_proposal(self, peer: int, proposal: Proposal) -> None:
        """A proposal, from its leader or from somebody we asked."""
        block = proposal.block
        view = block.view
        if not self.tree.root.block.view < view <= self.view + VIEWS_AHEAD_MAX:
            return
        if block.epoch != self._context.epoch or self.ended:
            return
        notarization = self.ballots.notarizations.get(view)
        digest = block.digest()
        certified = notarization is not None and notarization.body.digest == digest
        leader = self.leader(view)
        if peer == leader:
            self._measure(leader, view)
        if peer == leader or certified:
            self.proposals.add(proposal, leader, certified)

    def _measure(self, leader: int, view: int) -> None:
        """See how long a leader's proposal took."""
        now_ms = self._context.now_ms
        if view < self.view:
            self._punctuality.proposed_late(leader, view, now_ms)
        elif view == self.view and not self.proposals.of_view(view):
            self._punctuality.proposed(leader, self.pacing.due_ms(), now_ms)

    def awaits(self, tip: Tip) -> bool:
        """Whether a proposal of this view names the tip."""
        return any(tip in proposal.block.cut for _, proposal in self.proposals.of_view(self.view))

    def tick(self) -> None:
        """Give the view up, or resend, if it is time."""
        now_ms = self._context.now_ms
        if self.ended:
            return
        if self._retry_at_ms is not None and now_ms >= self._retry_at_ms:
            self._retry_at_ms = None
        if now_ms >= self._deadline_ms():
            self._nullify()
        if self._resend_at_ms is not None and now_ms >= self._resend_at_ms:
            self._resend()

    def wake_at_ms(self) -> int:
        """When `tick` has something to do."""
        pacing = self.pacing
        times = [self._resend_at_ms or pacing.due_ms() + pacing.resend_pace_ms()]
        if self.ended:
            return self._context.now_ms + pacing.resend_pace_ms()
        if self._may_propose() and pacing.due_ms() > self._context.now_ms:
            times.append(pacing.due_ms())
        if self._may_nullify():
            times.append(self._deadline_ms())
        if self._retry_at_ms is not None:
            times.append(self._retry_at_ms)
        request_ms = self.requests.wake_at_ms()
        if request_ms is not None:
            times.append(request_ms)
        return min(times)

    def _deadline_ms(self) -> int:
        """When this view is given up."""
        if self.proposals.of_view(self.view):
            return self.pacing.view_deadline_ms()
        timeout_ms = self._punctuality.timeout_ms(self.leader(self.view))
        return self.pacing.proposal_deadline_ms(timeout_ms)

    # --- what follows -----------------------------------------------------------------------

    def advance(self) -> None:
        """Do everything that has become possible, until nothing more is."""
        if not self.started or self.ended:
            return
        self.requests.begin_round()
        for _ in range(_ROUNDS_MAX):
            progress = self.proposals.attach()
            progress |= self._finalize()
            if self._is_over():
                break
            progress |= self._enter()
            progress |= self._vote()
            self._notice_work()
            progress |= self._propose()
            if not progress:
                break
        else:
            raise RuntimeError("a step of the view machine does not end: this is a bug")
        self.requests.end_round()
        self._schedule_resend()

    def commit(self, nodes: list[Node], certificate: Certificate) -> None:
        """Make a chain of blocks above the final one final; fillers at its end only prove that the
        epoch is over."""
        context = self._context
        certified_view = nodes[-1].block.view
        fillers = tuple(node.block for node in nodes if self._is_filler(node.block.height))
        nodes = nodes[: len(nodes) - len(fillers)]
        last = nodes[-1]
        self.tree.set_root(last)
        self.ballots.prune(certified_view)
        self.proposals.prune(certified_view)
        for views in (self.own_votes, self.sent_votes):
            for view in [view for view in views if view <= certified_view]:
                del views[view]
        blocks = tuple(FinalBlock(node.block, node.beacon) for node in nodes)
        own = None if fillers else certificate
        context.emit(Finalized(blocks, own))
        self._end(last, fillers, certificate)
        self._lanes.finalize(last.block.cut)
        for node in nodes:
            self._executions.finalize(node.block)
            self._delivery.add(node, own if node is last else None)
        self._delivery.advance()
        self.pacing.nullified_in_row = 0

    def _is_over(self) -> bool:
        return self.ended

    def _is_filler(self, height: int) -> bool:
        last_height = self._context.config.last_height
        return last_height is not None and height > last_height

    def _end(self, last: Node, fillers: tuple[Block, ...], certificate: Certificate) -> None:
        """End the epoch, if its last block is final."""
        config = self._context.config
        if last.block.height != config.last_height or config.next_validators is None:
            return
        self.ended = True
        members = config.next_validators.members
        boundary = EpochBoundary(last.block, fillers, certificate, members)
        self._context.emit(EpochEnded(boundary))

    def take_final(self, nodes: list[Node], certificate: Certificate) -> None:
        """Verified final blocks from a peer."""
        for node in nodes:
            if self.tree.get(node.digest) is None:
                self.tree.insert(node)
        self._hold(certificate)
        self.commit(nodes, certificate)

    def _tells(self, vote: Vote) -> bool:
        """Whether a vote short of a quorum is the one by which we know that somebody honest began
        or gave up this view."""
        body = vote.body
        if body.view != self.view or body.kind is VoteKind.FINALIZE:
            return False
        validators = self._context.validators
        above = self.ballots.weight(body.view, body.kind) - validators.honest_stake
        return 0 <= above < validators.by_index[vote.signer].stake

    def _relays(self, body: VoteBody) -> bool:
        """Whether we pass on the certificate that votes made here.

        Everybody is sent every vote, so it helps those alone who missed some. Two say it: who led
        the view, and who leads the next and needs followers. Resends say it again.
        """
        relays = {self.leader(body.view)}
        if body.kind is not VoteKind.FINALIZE:
            relays.add(self.leader(body.view + 1))
        return self._context.own_index in relays

    def _hold(self, certificate: Certificate) -> None:
        if self.ballots.hold(certificate):
            self._context.persist(certificate)

    def _finalize(self) -> bool:
        certificate = self.ballots.finalization
        if certificate is None or certificate.body.view <= self.tree.root.block.view:
            return False
        nodes = self.tree.path(certificate.body.digest)
        if nodes is None:
            request = BlocksRequest(self.tree.root.block.height + 1)
            self.requests.want(request, certificate.signers[0], urgent=True)
            return False
        self.commit(nodes, certificate)
        return True

    def _enter(self) -> bool:
        """Go past the newest certified view that is not behind us."""
        ballots = self.ballots
        views = [view for view in ballots.notarizations if view >= self.view]
        views += [view for view in ballots.nullifications if view >= self.view]
        if ballots.finalization is not None:
            views.append(ballots.finalization.body.view)
        past = max(views, default=0)
        if past < self.view:
            return False
        now_ms = self._context.now_ms
        notarization = ballots.notarizations.get(past)
        if notarization is not None:
            self._vote_to_finalize(notarization)
        gave_up = past in ballots.nullifications and notarization is None
        old = self.pacing
        if gave_up:
            due_ms = old.due_ms() if past == self.view else now_ms
            self._punctuality.gave_up(self.leader(past), past, due_ms)
        else:
            self._punctuality.certified(self.leader(past))
        self.pacing = Pacing(
            timing=old.timing,
            entered_ms=now_ms,
            block_seen_ms=old.block_seen_ms if gave_up else now_ms,
            work_since_ms=old.work_since_ms if gave_up else None,
            nullified_in_row=old.nullified_in_row + 1 if gave_up else old.nullified_in_row,
        )
        self.view = past + 1
        self._resend_at_ms = None
        self._retry_at_ms = None
        return True

    def _own(self, view: int) -> OwnVotes:
        return self.own_votes.setdefault(view, OwnVotes())

    def _vote_to_finalize(self, notarization: Certificate) -> None:
        view = notarization.body.view
        finalization = self.ballots.finalization
        already_final = finalization is not None and finalization.body.view >= view
        if not self._may_sign(view) or already_final or view in self.proposals.equivocal:
            return
        own = self._own(view)
        if own.nullified or own.finalized is not None:
            return
        given = notarization.body
        own.finalized = VoteBody(
            VoteKind.FINALIZE, given.epoch, given.view, given.parent_view, given.digest
        )
        self._send_vote(own.finalized)

    def _may_sign(self, view: int) -> bool:
        above = self.votes_above
        if self._context.own_index is None or self.ended:
            return False
        return above is not None and view > above

    def _may_nullify(self) -> bool:
        if not self._may_sign(self.view):
            return False
        own = self.own_votes.get(self.view)
        return own is None or (not own.nullified and own.finalized is None)

    def _nullify(self) -> bool:
        if not self._may_nullify():
            return False
        self._own(self.view).nullified = True
        self._send_vote(nullify_body(self._context.validators.epoch, self.view))
        return True

    def _send_vote(self, body: VoteBody) -> None:
        context = self._context
        index, signer = context.seat()
        vote = sign_vote(signer, context.chain_id, index, body)
        context.persist(vote)
        context.broadcast(vote)
        self.sent_votes.setdefault(body.view, []).append(vote)
        self.receive_vote(vote)

    def _vote(self) -> bool:
        """Judge the proposals of this view."""
        view = self.view
        ballots = self.ballots
        honest_stake = self._context.validators.honest_stake
        candidates = self.proposals.of_view(view)
        gave_up = ballots.weight(view, VoteKind.NULLIFY) >= honest_stake
        begun = candidates or gave_up or ballots.weight(view, VoteKind.NOTARIZE) >= honest_stake
        if begun and self.pacing.awaited_since_ms is None:
            self.pacing.awaited_since_ms = self._context.now_ms
        if gave_up and self._nullify():
            return True
        self._ask_for_blocks()
        own = self.own_votes.get(view)
        if not self._may_sign(view) or own is not None:
            return False
        refused = 0
        for digest, proposal in candidates:
            block = proposal.block
            judgement = self._judge.judge(block, digest in self.proposals.unsound)
            if judgement.opinion is Opinion.ACCEPT:
                self._notarize(digest, proposal)
                return True
            if judgement.opinion is Opinion.REFUSE:
                refused += 1
                continue
            self._retry_at_ms = judgement.retry_at_ms
            for request in judgement.requests:
                self.requests.want(request, block.proposer)
        return bool(candidates) and refused == len(candidates) and self._nullify()

    def _ask_for_blocks(self) -> None:
        """Ask for blocks that others voted for, or certified, and that we do not hold."""
        for view, certificate in self.ballots.notarizations.items():
            digest = certificate.body.digest
            if self.proposals.get(view, digest) is None:
                self.requests.want(ProposalRequest(view, digest), certificate.signers[0])

    def _notarize(self, digest: bytes, proposal: Proposal) -> None:
        block = proposal.block
        self._context.persist(proposal)
        body = VoteBody(VoteKind.NOTARIZE, block.epoch, block.view, block.parent_view, digest)
        self._own(block.view).notarized = body
        self._send_vote(body)

    # --- leading ----------------------------------------------------------------------------

    def _certified_parent(self) -> Node | None:
        """The block to build on: the newest certified one, all views above it nullified."""
        root = self.tree.root
        for view in range(self.view - 1, root.block.view, -1):
            notarization = self.ballots.notarizations.get(view)
            if notarization is not None:
                return self.tree.get(notarization.body.digest)
            if view not in self.ballots.nullifications:
                return None
        return root

    def _notice_work(self) -> None:
        """Tell the view's clock what there is to do."""
        pacing = self.pacing
        parent = self._certified_parent()
        pacing.parent_final = parent is None or parent.digest == self.tree.root.digest
        base = parent or self.tree.root
        over = self._is_filler(base.block.height + 1)
        grows = self._lanes.grows(base.block.cut)
        if over or (not grows and not self.demand.blocks_wanted):
            pacing.work_since_ms = None
            return
        pacing.work_interval_ms = 0 if grows else self.demand.interval_ms
        if pacing.work_since_ms is None:
            pacing.work_since_ms = self._context.now_ms

    def _may_propose(self) -> bool:
        own = self._context.own_index
        if own is None or self.leader(self.view) != own or not self.started:
            return False
        return not self.proposals.of_view(self.view) and self._may_nullify()

    def _propose(self) -> bool:
        if not self._may_propose() or self._context.now_ms < self.pacing.due_ms():
            return False
        parent = self._certified_parent()
        if parent is None:
            # A restart or a jump left a view without its certificate.
            request = CertificatesRequest(self.tree.root.block.view + 1, self.view)
            self.requests.want(request, self.leader(self.view - 1))
            return False
        context = self._context
        index, signer = context.seat()
        height = parent.block.height + 1
        executed = min(self._executions.newest, executed_height_max(height))
        root = self._executions.root(executed)
        filler = self._is_filler(height)
        if filler or executed < parent.block.executed_height or root is None:
            executed, root = parent.block.executed_height, parent.block.executed_root
        block = Block(
            epoch=context.validators.epoch,
            view=self.view,
            height=height,
            parent_view=parent.block.view,
            parent=parent.digest,
            proposer=index,
            timestamp_ms=max(context.now_ms, parent.block.timestamp_ms + 1),
            cut=parent.block.cut if filler else self._lanes.best_cut(parent.block.cut),
            vrf_proof=signer.prove_vrf(parent.beacon),
            executed_height=executed,
            executed_root=root,
            next_validators=named_validators(context.config, height),
        )
        signature = signer.sign(proposal_message(context.chain_id, block.digest()))
        proposal = Proposal(block, signature)
        context.persist(proposal)
        context.broadcast(proposal)
        if not self.proposals.add(proposal, index):
            raise RuntimeError("own proposal was refused: the signing key is not this validator's")
        return True

    # --- repeating --------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: what was said before a restart is said again if the view does not move on."""
        self.started = True
        self.pacing = Pacing(
            self._context.config.timing, self._context.now_ms, self._context.now_ms
        )
        if self.view in self.sent_votes:
            self.pacing.awaited_since_ms = self._context.now_ms

    def restore_vote(self, vote: Vote) -> None:
        """An own vote from the WAL: it binds."""
        body = vote.body
        if body.view <= self.tree.root.block.view or self.ended:
            return
        own = self._own(body.view)
        if body.kind is VoteKind.NOTARIZE:
            own.notarized = body
        elif body.kind is VoteKind.FINALIZE:
            own.finalized = body
        else:
            own.nullified = True
        self.sent_votes.setdefault(body.view, []).append(vote)
        self.view = max(self.view, body.view + (body.kind is VoteKind.FINALIZE))
        certificate = self.ballots.add(vote, own=True)
        if certificate is not None:
            self.ballots.hold(certificate)

    def restore_certificate(self, certificate: Certificate) -> None:
        """A certificate from the WAL; it was verified before it was written."""
        if certificate.body.view > self.tree.root.block.view and not self.ended:
            self.ballots.hold(certificate)

    def restore_proposal(self, proposal: Proposal) -> None:
        """A proposal from the WAL: our own, or one we voted for."""
        view = proposal.block.view
        if view > self.tree.root.block.view and not self.ended:
            self.proposals.add(proposal, self.leader(view), certified=True)

    def snapshot(self) -> list[Record]:
        """What the WAL must still say, now that everything below the final view is settled."""
        ballots = self.ballots
        records: list[Record] = [] if ballots.finalization is None else [ballots.finalization]
        for held in (ballots.notarizations, ballots.nullifications):
            records += [held[view] for view in sorted(held)]
        records += self.proposals.all()
        for view in sorted(self.sent_votes):
            records += self.sent_votes[view]
        return records

    def status(self) -> Status:
        """Where we stand, for peers. For what we forgot, or leave to them, we can't vouch."""
        root = self.tree.root.block
        remembers = self.votes_above is not None and self.view > self.votes_above
        view = self.view if remembers else self.view + LATER_VIEWS
        tips = self._lanes.held_tips()
        return Status(view, root.height, root.view, tips, self._context.epoch)

    def _schedule_resend(self) -> None:
        if self._resend_at_ms is not None:
            return
        due_ms = self.pacing.due_ms()
        now_ms = self._context.now_ms
        if now_ms >= due_ms:
            pace_ms = self.pacing.resend_pace_ms()
            since_ms = due_ms if now_ms < due_ms + pace_ms else now_ms
            self._resend_at_ms = since_ms + pace_ms

    def _resend(self) -> None:
        """Say everything of this view again: something was lost, or somebody is down."""
        context = self._context
        self._resend_at_ms = None
        if context.own_index is None:
            # An observer asks one validator after the other.
            members = context.validators.members
            context.send(members[context.now_ms % len(members)].index, self.status())
            return
        best = self._best_certificates()
        if best:
            context.broadcast(Certificates(best))
        if self.leader(self.view) == context.own_index:
            for _, proposal in self.proposals.of_view(self.view):
                context.broadcast(proposal)
        for view in sorted(self.sent_votes):
            if view >= self.view - 1:
                for vote in self.sent_votes[view]:
                    context.broadcast(vote)
        context.broadcast(self.status())

    def _best_certificates(self) -> tuple[Certificate, ...]:
        """What took us into this view."""
        view = self.view - 1
        finalization = self.ballots.finalization
        if finalization is not None and finalization.body.view == view:
            return (finalization,)
        held = (self.ballots.notarizations.get(view), self.ballots.nullifications.get(view))
        return tuple(certificate for certificate in held if certificate is not None)
