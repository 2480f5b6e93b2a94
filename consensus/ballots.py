"""Votes of others and ourselves, until a quorum stands; and the certificates that came of them.

Signatures are checked when a quorum stands, or when a signer contradicts itself: until then a
vote only takes one slot of its signer, who is authenticated by its connection. Per view and
signer there is one slot for each kind of vote, so memory is bounded by the window of views.
"""

from collections import Counter

from consensus.certificates import assemble_certificate, certificate_fault
from consensus.context import Context
from consensus.events import Misbehaviour
from consensus.evidence import Fault, conflict
from consensus.values import Certificate, Vote, VoteBody, VoteKind


class _Slot:
    """One signer's vote of one kind in one view."""

    __slots__ = ("verified", "vote")

    def __init__(self, vote: Vote, verified: bool) -> None:
        self.vote = vote
        self.verified = verified


class _Box:
    """The votes of one kind in one view, and the stake behind them, verified or not."""

    __slots__ = ("slots", "stake", "stakes")

    def __init__(self) -> None:
        self.slots: dict[int, _Slot] = {}
        self.stake = 0
        self.stakes: Counter[VoteBody] = Counter()
        """By what the votes say: counted as they come, for a quorum of n is n squared otherwise."""

    def put(self, slot: _Slot, stake: int) -> None:
        """Take a signer's first vote."""
        self.slots[slot.vote.signer] = slot
        self.stake += stake
        self.stakes[slot.vote.body] += stake

    def drop(self, signer: int, stake: int) -> None:
        """Forget a signer's vote: it was not his."""
        slot = self.slots.pop(signer)
        self.stake -= stake
        self.stakes[slot.vote.body] -= stake


class Ballots:
    """Votes by view, and certificates by view; both only above the finalized view."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._boxes: dict[int, dict[VoteKind, _Box]] = {}
        self._convicted: set[tuple[int, int]] = set()
        self.notarizations: dict[int, Certificate] = {}
        self.nullifications: dict[int, Certificate] = {}
        self.finalization: Certificate | None = None
        """The finalization of the highest view known."""

    def add(self, vote: Vote, own: bool = False) -> Certificate | None:
        """Take a vote; the certificate that it completes, if it does."""
        body = vote.body
        boxes = self._boxes.setdefault(body.view, {})
        box = boxes.get(body.kind)
        if box is None:
            box = boxes[body.kind] = _Box()
        slot = box.slots.get(vote.signer)
        if slot is not None:
            if slot.vote.body == body or not self._replace(box, slot, vote):
                return None
        else:
            box.put(_Slot(vote, own), self._stake(vote.signer))
        self._detect_nullify_and_finalize(body.view, vote.signer)
        return self._complete(body, box)

    def weight(self, view: int, kind: VoteKind) -> int:
        """Stake that voted so in a view, counting votes not verified yet."""
        box = self._boxes.get(view, {}).get(kind)
        return 0 if box is None else box.stake

    def hold(self, certificate: Certificate) -> bool:
        """Keep a verified certificate; False if it adds nothing."""
        body = certificate.body
        if self.knows(body):
            return False
        if body.kind is VoteKind.FINALIZE:
            self.finalization = certificate
        elif body.kind is VoteKind.NOTARIZE:
            self.notarizations[body.view] = certificate
        else:
            self.nullifications[body.view] = certificate
        return True

    def knows(self, body: VoteBody) -> bool:
        """Whether a certificate for this view and kind (or a higher finalization) is held."""
        if body.kind is VoteKind.FINALIZE:
            return self.finalization is not None and self.finalization.body.view >= body.view
        held = self.notarizations if body.kind is VoteKind.NOTARIZE else self.nullifications
        return body.view in held

    def verified(self, certificate: Certificate) -> bool:
        """Whether a certificate from elsewhere is good."""
        context = self._context
        checks = context.checks
        fault = certificate_fault(
            certificate, context.validators, context.chain_id, checks.verify_many
        )
        return fault is None

    def prune(self, finalized_view: int) -> None:
        """Forget views up to the finalized one."""
        for held in (self._boxes, self.notarizations, self.nullifications):
            for view in [view for view in held if view <= finalized_view]:
                del held[view]
        self._convicted = {entry for entry in self._convicted if entry[0] > finalized_view}

    def _stake(self, signer: int) -> int:
        return self._context.validators.by_index[signer].stake

    def _complete(self, body: VoteBody, box: _Box) -> Certificate | None:
        validators = self._context.validators
        if box.stakes[body] < validators.quorum_stake or self.knows(body):
            return None
        matching = {signer: slot for signer, slot in box.slots.items() if slot.vote.body == body}
        self._verify(body, matching)
        good = {signer: slot.vote for signer, slot in matching.items() if slot.verified}
        for signer in matching.keys() - good.keys():
            box.drop(signer, self._stake(signer))
        if validators.weight(set(good)) < validators.quorum_stake:
            return None
        return assemble_certificate(good, body)

    def _verify(self, body: VoteBody, slots: dict[int, _Slot]) -> None:
        message = body.signed_message(self._context.chain_id)
        members = self._context.validators.by_index
        open_slots = [slot for slot in slots.values() if not slot.verified]
        items = [
            (members[slot.vote.signer].signing_key, message, slot.vote.signature)
            for slot in open_slots
        ]
        for slot, good in zip(open_slots, self._context.verify_many(items), strict=True):
            slot.verified = good

    def _good(self, slot: _Slot) -> bool:
        if not slot.verified:
            self._verify(slot.vote.body, {slot.vote.signer: slot})
        return slot.verified

    def _replace(self, box: _Box, slot: _Slot, vote: Vote) -> bool:
        """A second, different vote: evidence if both are signed; else the signed one stays."""
        if (vote.body.view, vote.signer) in self._convicted:
            return False
        second = _Slot(vote, False)
        if not self._good(second):
            return False
        if self._good(slot):
            self._convict(slot.vote, vote)
            return False
        stake = self._stake(vote.signer)
        box.drop(vote.signer, stake)
        box.put(second, stake)
        return True

    def _detect_nullify_and_finalize(self, view: int, signer: int) -> None:
        boxes = self._boxes[view]
        if VoteKind.NULLIFY not in boxes or VoteKind.FINALIZE not in boxes:
            return
        nullify = boxes[VoteKind.NULLIFY].slots.get(signer)
        finalize = boxes[VoteKind.FINALIZE].slots.get(signer)
        if nullify is None or finalize is None or (view, signer) in self._convicted:
            return
        if self._good(nullify) and self._good(finalize):
            self._convict(nullify.vote, finalize.vote)

    def _convict(self, first: Vote, second: Vote) -> None:
        self._convicted.add((first.body.view, first.signer))
        evidence = conflict(Fault.CONFLICTING_VOTES, first.signer, first, second)
        self._context.emit(Misbehaviour(evidence))
