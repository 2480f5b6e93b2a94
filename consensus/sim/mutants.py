"""Planted mistakes: a simulator that does not find them proves nothing.

A mutant swaps a few functions of the protocol while a `with` block runs, in this process only. No
configuration reaches it; a node never imports this module. Each names the profile that finds it
soonest, and what the invariants must say of it: another violation does not catch it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from consensus import catchup, certificates, proposals, wal
from consensus.ballots import Ballots
from consensus.beacon import next_beacon
from consensus.blocktree import Node
from consensus.context import Context
from consensus.lanes import Lane, Lanes
from consensus.memory import Memory
from consensus.messages import Status
from consensus.proposals import ACCEPTED, Judge, Judgement
from consensus.sim import machine
from consensus.sim.machine import Machine
from consensus.simplex import Simplex
from consensus.values import Block, Certificate, Tip, ValidatorSet, Vote, VoteKind

Swaps = dict[tuple[Any, str], Any]
"""(class or module, name) -> what stands there while the mutant lives."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted mistake."""

    help: str
    swaps: Callable[[], Swaps]
    violation: str
    """What the invariants say of this mistake: a regular expression, searched for."""
    profile: str = "all"
    validators: int = 4


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Plant a mutant for as long as the block runs; None plants nothing. KeyError if unknown."""
    swaps = MUTANTS[name].swaps() if name is not None else {}
    honest = {where: where[0].__dict__[where[1]] for where in swaps}
    try:
        for (owner, attribute), mutant in swaps.items():
            setattr(owner, attribute, mutant)
        yield
    finally:
        for (owner, attribute), original in honest.items():
            setattr(owner, attribute, original)


def _finalize_after_giving_up() -> Swaps:
    honest = Simplex._vote_to_finalize

    def vote_to_finalize(self: Simplex, notarization: Certificate) -> None:
        self._own(notarization.body.view).nullified = False
        honest(self, notarization)

    return {(Simplex, "_vote_to_finalize"): vote_to_finalize}


def _give_up_after_finalizing() -> Swaps:
    honest = Simplex.receive_vote

    def receive_vote(self: Simplex, vote: Vote) -> bool:
        moved = honest(self, vote)
        body = vote.body
        own = self.own_votes.get(body.view)
        locked = own is not None and own.finalized is not None and not own.nullified
        if body.kind is VoteKind.NULLIFY and locked and own is not None:
            own.nullified = True
            self._send_vote(body)
        return moved

    return {(Simplex, "receive_vote"): receive_vote}


def _forget_votes() -> Swaps:
    def restore_vote(self: Simplex, vote: Vote) -> None:
        """Nothing binds."""

    return {(Simplex, "restore_vote"): restore_vote}


def _speak_before_writing() -> Swaps:
    def flush(self: Machine) -> None:
        """The store only: batches and blocks are durable, votes in the log are not."""
        self.disk.commit_store()

    return {(Machine, "_flush"): flush}


def _sign_without_a_log() -> Swaps:
    def votes_above(self: Memory) -> int:
        return 0

    return {(Memory, "_votes_above"): votes_above}


def _hear_who_forgot() -> Swaps:
    honest = Memory.hear

    def hear(self: Memory, peer: int, status: Status) -> None:
        honest(self, peer, replace(status, view=status.standing))

    return {(Memory, "hear"): hear}


def _trust_the_tail() -> Swaps:
    def crc(data: bytes) -> bytes:
        return bytes(4)

    return {(wal, "_crc"): crc}


def _one_short() -> Swaps:
    return {(ValidatorSet, "quorum_stake"): property(lambda self: self.stake_total * 2 // 3)}


def _count_twice() -> Swaps:
    def signers_fault(
        signers: tuple[int, ...],
        given: tuple[bytes, ...],
        message: bytes,
        validators: ValidatorSet,
        stake_needed: int,
        verify_many: certificates.VerifyMany,
    ) -> str | None:
        stake = sum(validators.by_index[signer].stake for signer in signers)
        keys = [validators.by_index[signer].signing_key for signer in signers]
        items = [(key, message, sig) for key, sig in zip(keys, given, strict=True)]
        return None if stake >= stake_needed and all(verify_many(items)) else "not enough"

    return {(certificates, "_signers_fault"): signers_fault}


def _believe_signatures() -> Swaps:
    def verify(self: Ballots, body: object, slots: Mapping[int, Any]) -> None:
        for slot in slots.values():
            slot.verified = True

    return {(Ballots, "_verify"): verify}


def _skip_nullifications() -> Swaps:
    honest = Judge._parent_rule

    def parent_rule(self: Judge, block: Block) -> Judgement:
        judgement = honest(self, block)
        return ACCEPTED if "is not nullified" in judgement.reason else judgement

    return {(Judge, "_parent_rule"): parent_rule}


def _any_parent() -> Swaps:
    def parent_rule(self: Judge, block: Block) -> Judgement:
        return ACCEPTED

    return {(Judge, "_parent_rule"): parent_rule}


def _vote_for_every_proposal() -> Swaps:
    honest = Simplex._vote

    def vote(self: Simplex) -> bool:
        own = self.own_votes.get(self.view)
        candidates = self.proposals.of_view(self.view)
        if own is not None and own.notarized is not None and len(candidates) > 1:
            first = own.notarized.digest
            for digest, proposal in candidates:
                if digest != first and own.notarized.digest == first:
                    self._notarize(digest, proposal)
        return honest(self)

    return {(Simplex, "_vote"): vote}


def _proof_of_one_ack() -> Swaps:
    return {(ValidatorSet, "availability_stake"): property(lambda self: 1)}


def _ack_before_storing() -> Swaps:
    honest = Lanes._buffer

    def buffer(self: Lanes, lane: Lane, batch: Any, digest: bytes) -> None:
        honest(self, lane, batch, digest)
        self._ack(lane, Tip(lane.index, batch.header.sequence, digest))

    return {(Lanes, "_buffer"): buffer}


def _any_tip_will_do() -> Swaps:
    def available(self: Lanes, tip: Tip, parent: Tip | None) -> bool:
        return True

    return {(Lanes, "available"): available}


def _any_root_will_do() -> Swaps:
    def execution_rule(self: Judge, block: Block, parent: Block) -> Judgement:
        return ACCEPTED

    return {(Judge, "_execution_rule"): execution_rule}


def _any_vrf_proof_will_do() -> Swaps:
    def beacon_of(context: Context, block: Block, parent_beacon: bytes) -> bytes:
        return next_beacon(parent_beacon, block.vrf_proof[:64])

    return {(proposals, "beacon_of"): beacon_of, (catchup, "beacon_of"): beacon_of}


def _never_repeat() -> Swaps:
    def resend(self: Simplex) -> None:
        self._resend_at_ms = None

    return {(Simplex, "_resend"): resend}


def _fillers_bring_batches() -> Swaps:
    honest = Simplex._propose

    def propose(self: Simplex) -> bool:
        context, parent = self._context, self._certified_parent()
        config = context.config
        if parent is not None and parent.block.height == config.last_height:
            context.config = replace(config, epoch_blocks=0)
        try:
            return honest(self)
        finally:
            context.config = config

    def filler_fault(block: Block, below: Block) -> str | None:
        return None

    return {(Simplex, "_propose"): propose, (proposals, "filler_fault"): filler_fault}


def _any_next_set() -> Swaps:
    def epoch_fault(self: Judge, block: Block, parent: Block) -> str | None:
        return None

    return {(Judge, "_epoch_fault"): epoch_fault}


def _old_log_binds() -> Swaps:
    def carried(records: Sequence[bytes]) -> tuple[bytes, ...]:
        return tuple(records)

    return {(machine, "carried"): carried}


def _votes_after_the_end() -> Swaps:
    """The epoch's last block is final, and its replica goes on as if it were not."""

    def end(self: Simplex, last: Node, fillers: tuple[Block, ...], given: Certificate) -> None:
        honest(self, last, fillers, given)
        self.ended = False

    honest = Simplex._end
    return {(Simplex, "_end"): end}


MUTANTS: Final[dict[str, Mutant]] = {
    "forget-finalize-rule": Mutant(
        "votes to finalize a view it has given up",
        _finalize_after_giving_up,
        "nullified and finalized view",
        "harsh",
    ),
    "lock-not-kept": Mutant(
        "gives up a view it has voted to finalize",
        _give_up_after_finalizing,
        "nullified and finalized view",
        "harsh",
    ),
    "forget-votes": Mutant(
        "forgets its votes in a restart",
        _forget_votes,
        "voted twice in view|nullified and finalized view",
        "harsh",
    ),
    "sign-without-a-log": Mutant(
        "signs at once after its log is lost",
        _sign_without_a_log,
        "voted twice in view|nullified and finalized view",
        "forgetful",
        validators=5,
    ),
    "hear-who-forgot": Mutant(
        "lets those who lost their logs as well say where it stood",
        _hear_who_forgot,
        "voted twice in view|nullified and finalized view|votes for view",
        "amnesia",
    ),
    "speak-before-writing": Mutant(
        "sends votes that are not durable",
        _speak_before_writing,
        "sent a vote before it was durable",
    ),
    "trust-the-tail": Mutant(
        "reads a log without its checksums",
        _trust_the_tail,
        "certificate of view .* has stake",
        "harsh",
    ),
    "quorum-one-short": Mutant(
        "takes two thirds for more than two thirds",
        _one_short,
        "certificate of view .* has stake",
    ),
    "count-twice": Mutant(
        "counts a signer as often as it signs",
        _count_twice,
        "(certificate of view|proof of lane) .* has stake",
        "byzantine",
    ),
    "believe-signatures": Mutant(
        "counts votes without checking them",
        _believe_signatures,
        "certificate of view .* has stake|a signature of validator .* is bad",
        "byzantine",
    ),
    "skip-nullifications": Mutant(
        "accepts a parent below views that nobody gave up",
        _skip_nullifications,
        "finalized another block at height|no quorum of NULLIFY votes|final view .* was skipped",
        "stale",
    ),
    "any-parent": Mutant(
        "accepts whatever parent it knows",
        _any_parent,
        "finalized another block at height|does not follow the final parent",
        "stale",
    ),
    "two-votes": Mutant(
        "votes for every proposal of a view",
        _vote_for_every_proposal,
        "voted twice in view",
        "byzantine",
    ),
    "proof-of-one-ack": Mutant(
        "proves availability by one ack", _proof_of_one_ack, "a proof of lane .* has stake"
    ),
    "ack-before-storing": Mutant(
        "acks batches that it may not hold",
        _ack_before_storing,
        "acked a batch before it was durable",
    ),
    "any-tip": Mutant(
        "votes for tips that nobody proved",
        _any_tip_will_do,
        "nobody honest holds lane",
        "leaders",
    ),
    "root-unchecked": Mutant(
        "votes for roots that it has not computed",
        _any_root_will_do,
        "vouches for another execution root",
        "leaders",
    ),
    "vrf-unchecked": Mutant(
        "takes any VRF proof",
        _any_vrf_proof_will_do,
        "the VRF proof of final block .* does not hold",
        "leaders",
    ),
    "filler-brings-batches": Mutant(
        "takes batches into blocks above an epoch's last",
        _fillers_bring_batches,
        "took a filler that brings something",
        "epochs",
    ),
    "any-next-set": Mutant(
        "votes for a block whatever next validators it names",
        _any_next_set,
        "names a wrong set of next validators",
        "epochs",
    ),
    "old-log-binds": Mutant(
        "takes the votes and certificates of an epoch's log into the next",
        _old_log_binds,
        "votes in epoch .*, which is over for it|counts votes of epoch",
        "epochs",
    ),
    "votes-after-the-end": Mutant(
        "goes on voting in an epoch that is over",
        _votes_after_the_end,
        "votes in epoch .*, which is over for it",
        "epochs",
    ),
    "never-repeat": Mutant(
        "says everything once", _never_repeat, "not live within .* after the faults", "harsh"
    ),
}
