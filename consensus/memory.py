"""What a validator does whose vote log is gone: it stays silent until nothing that it signs can
contradict what it signed before (docs/decisions/0023).

Votes. It was in a view only after a quorum had voted in the one before. So it asks the others, by
their statuses, which it hears on connections younger than its own start: among those that it must
hear there is an honest one of that quorum, whose view is not behind that vote's. All views up to
one past what they say are left to the others. A view that somebody claims counts only once a
certificate shows it: who lies does not silence us, he is not heard. Nor is who forgot as well, and
says so: then nothing is signed by more than a third that forgot, and the chain stands still, safe.

Lane. A batch needs no quorum to exist; one peer that holds it is enough to prove a fork. So
nothing is sealed before every other validator has said up to where it holds our lane, and all of
that is held here again: what is final comes by delivery, the rest is asked of who has it. Of a lane
that never had a batch those who must be heard of votes are enough.

A chain that has no certificate yet is the exception: its validators have nothing to remember, or
cannot know it: who loses its log before the first certificate may contradict its first vote. Alike
one whose log was begun in an earlier epoch, as long as this one has no certificate: most often a
new member. If they all were silent in an epoch's first view, nobody might ever leave it. Who has
no log in the midst of a chain may have lost it in just that view, and is silent in it.
"""

from typing import Final

from consensus.context import Context
from consensus.journal import Watermark
from consensus.lanes import Lanes
from consensus.messages import Status
from consensus.simplex import Simplex
from consensus.values import Tip

NO_QUORUM_WITHOUT: Final = (
    "the others are no quorum without it, so the chain stands still: stop it and put back the vote "
    "log of its last run, no older one; if that is gone for good, the chain needs a new genesis"
)
"""Of a validator that has a third of the stake or more, so of each of two or three equal ones."""


class Memory:
    """Whether this validator remembers; if not, what it has heard since its start."""

    def __init__(self, context: Context, simplex: Simplex, lanes: Lanes) -> None:
        self._context = context
        self._simplex = simplex
        self._lanes = lanes
        self._views: dict[int, int] = {}
        self._forgetful: dict[int, int] = {}
        """Views of those who forgot as well; they show no more than that the chain has begun."""
        self._tips: dict[int, Tip] = {}
        """Own batches that others hold; sequence 0 for none."""
        self._handed_on = False
        """Whether the log was begun in an earlier epoch."""
        self._asked_ms = context.now_ms - context.resend_ms
        self._asked_standing_ms = self._asked_ms

    @property
    def is_whole(self) -> bool:
        """Whether nothing is withheld."""
        return self._simplex.votes_above is not None and not self._lanes.forgetful

    @property
    def silence(self) -> str:
        """What is withheld, and until when; empty if nothing is."""
        if self._simplex.votes_above is None:
            return (
                "the vote log is new: this validator votes once peers with "
                f"{self._stake_needed()} of the stake have said where they stand"
            )
        if self._simplex.view <= self._simplex.votes_above:
            return (
                "the vote log is new: this validator votes from view "
                f"{self._simplex.votes_above + 1} on, now is {self._simplex.view}"
                f"{self._halt()}"
            )
        return ""

    def _halt(self) -> str:
        """What to do if the others are too few to get that far."""
        validators = self._context.validators
        own = validators.by_index[self._context.seat()[0]].stake
        if validators.stake_total - own >= validators.quorum_stake:
            return ""
        return f"; {NO_QUORUM_WITHOUT}"

    def restore(self, record: Watermark) -> None:
        """What the log says of its own beginning; the last such record counts."""
        self._simplex.votes_above = record.votes_above
        self._lanes.forgetful = not record.knows_lane
        self._handed_on = record.handed_on

    def record(self) -> Watermark | None:
        """What the log must go on saying."""
        votes_above = self._simplex.votes_above
        final_view = self._simplex.tree.root.block.view
        if self.is_whole and votes_above is not None and votes_above <= final_view:
            return None
        return self._mark()

    def _mark(self) -> Watermark:
        return Watermark(
            self._simplex.votes_above, not self._lanes.forgetful, handed_on=self._handed_on
        )

    def hear(self, peer: int, status: Status) -> None:
        """A status that a validator sent since our start."""
        if self.is_whole or peer == self._context.own_index:
            return
        if status.epoch != self._context.epoch:
            return
        own = self._context.own_index
        heard = self._forgetful if status.is_forgetful else self._views
        heard[peer] = max(status.standing, heard.get(peer, 0))
        tips = [tip for tip in status.tips if tip.lane == own]
        self._tips[peer] = tips[0] if tips else Tip(own or 0, 0, bytes(32))

    def advance(self) -> None:
        """Speak again, as soon as enough is known."""
        if self.is_whole or self._context.own_index is None or not self._simplex.started:
            return
        self._ask_standing()
        before = self.record()
        if self._simplex.votes_above is None:
            self._simplex.votes_above = self._votes_above()
        if self._lanes.forgetful:
            self._lanes.forgetful = not self._knows_lane()
            if self._lanes.forgetful:
                self._ask_batches()
        now = self._mark()
        if now != before:
            self._context.persist(now)

    def _stake_needed(self) -> int:
        """Of those who must be heard: however they are chosen, one of them is honest and voted in
        the view before any that we voted in. We are ourselves among the faulty whom a chain bears,
        so the others hold less of them."""
        validators = self._context.validators
        own = validators.by_index[self._context.seat()[0]].stake
        faulty = max(0, validators.honest_stake - 1 - own)
        others = validators.stake_total - own
        return min(others, validators.stake_total - validators.quorum_stake + faulty + 1)

    def _votes_above(self) -> int | None:
        view = self._simplex.view
        base_view = self._context.config.base_view
        was_there = self._context.epoch > 0 and not self._handed_on
        begins = view == base_view + 1 and not was_there
        begins = begins or len(self._context.validators.members) == 1
        heard = {**self._forgetful, **self._views} if begins else self._views
        shown = {peer for peer, claimed in heard.items() if claimed <= view}
        if self._context.validators.weight(shown) < self._stake_needed():
            return None
        # Without a certificate the epoch begins; without others there is nobody to contradict.
        return base_view if begins else view + 1

    def _knows_lane(self) -> bool:
        if self._simplex.votes_above == self._context.config.base_view:
            return True
        held = self._lanes.own_tip()
        if any(tip.sequence > held.sequence for tip in self._tips.values()):
            return False
        if any(tip.sequence == held.sequence and tip != held for tip in self._tips.values()):
            return False  # it is forked already
        validators = self._context.validators
        if held.sequence == 0:  # most likely a key that was never used
            return validators.weight(set(self._tips)) >= self._stake_needed()
        return len(self._tips) >= len(validators.members) - 1

    def _ask_standing(self) -> None:
        """Ask who was not heard: one that is told of a later view says where it stands itself. What
        it said on connecting may be lost."""
        context = self._context
        if context.now_ms < self._asked_standing_ms + context.resend_ms:
            return
        self._asked_standing_ms = context.now_ms
        asking = self._simplex.status()
        for peer in context.validators.by_index:
            if peer != context.own_index and peer not in self._views:
                context.send(peer, asking)

    def _ask_batches(self) -> None:
        """Ask who holds more of our lane for the batches below what we have of it."""
        context = self._context
        if context.now_ms < self._asked_ms + context.resend_ms:
            return
        for peer in sorted(self._tips):
            request = self._lanes.lost_batches(self._tips[peer])
            if request is not None:
                self._asked_ms = context.now_ms
                context.send(peer, request)
