"""Which validators vote: noticed by this node as votes come, judged once a block is final for long
enough that a late vote would have come, too.

A validator that said nothing in a final block's view missed it. Views in which this node heard less
than a quorum are not judged: then it was this node that was away, or catching up.
"""

from collections import Counter, deque
from collections.abc import Mapping
from typing import Final

GRACE_BLOCKS: Final = 8
"""A vote that comes while so many further blocks become final is late, and not missed."""
VIEWS_AHEAD_MAX: Final = 256
"""Of what is remembered; votes of views further ahead are no use and cost no memory."""


class Attendance:
    """Missed views by validator. Used from the event loop only."""

    def __init__(self, stakes: Mapping[int, int], view: int = 0) -> None:
        """`stakes` by validator; `view` is that of the newest final block."""
        self.missed: Counter[int] = Counter(dict.fromkeys(stakes, 0))
        """Final blocks in whose view the validator was not heard, though it was a member."""
        self.judged = 0
        """Final blocks that were judged."""
        self._stakes = stakes
        self._heard: dict[int, set[int]] = {}
        self._final: deque[tuple[int, Mapping[int, int]]] = deque()
        """Views, and who should have been heard in them."""
        self._newest = view

    def follow(self, stakes: Mapping[int, int]) -> None:
        """Another epoch has begun, with these members."""
        self._stakes = stakes
        self.missed.update(dict.fromkeys(stakes, 0))

    def heard(self, validator: int, view: int) -> None:
        """A vote of a validator has come, whatever it says."""
        oldest = self._final[0][0] if self._final else self._newest + 1
        if oldest <= view <= self._newest + VIEWS_AHEAD_MAX:
            self._heard.setdefault(view, set()).add(validator)

    def became_final(self, view: int) -> None:
        """The block of a view is final; views come in rising order."""
        self._newest = view
        self._final.append((view, self._stakes))
        if len(self._final) > GRACE_BLOCKS:
            self._judge(*self._final.popleft())

    def _judge(self, view: int, stakes: Mapping[int, int]) -> None:
        heard = self._heard.get(view, set())
        self._heard = {at: who for at, who in self._heard.items() if at > view}
        if 3 * sum(stakes.get(index, 0) for index in heard) <= 2 * sum(stakes.values()):
            return
        self.judged += 1
        for index in stakes:
            self.missed[index] += index not in heard
