"""How long a leader is waited for, by what was seen of it. Each replica judges by itself.

- A leader's proposal is waited for three times as long as its slowest recent ones took, within
  `leader_timeout_least_ms` and `leader_timeout_ms`; of one that was not measured yet, the latter.
  What comes after its view was given up is measured, too, so who is slow gets its time back.
- A leader whose last view was given up is suspected, until a block of its is certified: it is
  waited for no longer than a third of `leader_timeout_ms`.
- A suspected leader that has not voted since then is silent: nobody waits. It is heard again
  before its next turn, if it is back, since it votes in every view.

Giving up early is always allowed; votes decide, not clocks. Views given up in a row lengthen every
wait but the last (`pacing`), and to give up a view takes votes of two thirds: those are heard.
"""

from typing import Final

from consensus.events import Timing

SLOWEST_TIMES: Final = 3
SUSPECTED_SHARE: Final = 3
"""A suspected leader is waited for at most this part of the time. It may not be so short that a
leader on the other side of the world, which is well again, can't prove it."""
FORGET_SHARE: Final = 8
"""With each of its proposals this part of what a leader's slowest took beyond it is forgotten."""


class Punctuality:
    """What is known of each leader; forgotten in a restart."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._slowest_ms: dict[int, int] = {}
        self._heard: dict[int, int] = {}
        """The newest view in which each has voted."""
        self._given_up: dict[int, tuple[int, int]] = {}
        """Suspected leaders: the view by which they are, and when its block was due."""

    def proposed(self, leader: int, due_ms: int, now_ms: int) -> None:
        """A leader's proposal came. If no wait would have been long enough, it shows nothing."""
        took_ms = max(0, now_ms - due_ms)
        if took_ms > self._timing.leader_timeout_ms:
            return
        slowest_ms = self._slowest_ms.get(leader, took_ms)
        fading_ms = slowest_ms - -(-(slowest_ms - took_ms) // FORGET_SHARE)
        self._slowest_ms[leader] = max(took_ms, fading_ms)

    def proposed_late(self, leader: int, view: int, now_ms: int) -> None:
        """A proposal came for a view that may have been given up for want of it."""
        given_up, due_ms = self._given_up.get(leader, (0, 0))
        if view == given_up:
            self.proposed(leader, due_ms, now_ms)

    def voted(self, validator: int, view: int) -> None:
        """It is there."""
        if view > self._heard.get(validator, 0):
            self._heard[validator] = view

    def gave_up(self, leader: int, view: int, due_ms: int) -> None:
        """A view was given up whose block was due then."""
        self._given_up[leader] = (view, due_ms)

    def certified(self, leader: int) -> None:
        """A block of its was certified."""
        self._given_up.pop(leader, None)

    def timeout_ms(self, leader: int) -> int:
        """How long a due proposal is waited for; 0 for not at all."""
        timing = self._timing
        longest_ms = timing.leader_timeout_ms
        if leader in self._given_up:
            if self._heard.get(leader, 0) < self._given_up[leader][0]:
                return 0
            longest_ms = max(1, longest_ms // SUSPECTED_SHARE)
        slowest_ms = self._slowest_ms.get(leader, timing.leader_timeout_ms)
        return min(max(SLOWEST_TIMES * slowest_ms, timing.leader_timeout_least_ms), longest_ms)
