"""When a view's block is due, and when a view is given up. Two parameters decide.

`block_interval_ms` paces a chain with work: a block is due that long after the last one, or as
soon as there is work. `heartbeat_ms` paces an idle one. Before a block is due nobody waits for
it, so an idle chain is silent and nullifies nothing. After that, everybody expects the proposal
within the leader timeout and the next view within the certificate timeout, so a dead leader
costs an idle chain `heartbeat_ms` and the wait for a proposal, and a busy one the latter. How long
that is depends on the leader (`punctuality`), at most 2 delta. It and the certificate timeout grow
by half with each view nullified in a row, up to eight times, and fall back upon a finalization.
"""

from dataclasses import dataclass
from typing import Final

from consensus.events import Timing

BACKOFF_MAX: Final = 8
_BACKOFF_STEPS_MAX: Final = 6
"""1.5 to the sixth is more than BACKOFF_MAX."""


@dataclass(slots=True)
class Pacing:
    """One view's clock. All times are of this replica's own clock."""

    timing: Timing
    entered_ms: int
    block_seen_ms: int
    """When the newest certified block was first seen."""
    work_since_ms: int | None = None
    """When work for the next block was first seen; None while there is none."""
    work_interval_ms: int = 0
    """What the work itself asks for, if it is in less of a hurry than the block interval."""
    awaited_since_ms: int | None = None
    """When somebody was seen to have begun the view: its proposal, or f + 1 giving it up."""
    parent_final: bool = True
    nullified_in_row: int = 0

    def due_ms(self) -> int:
        """When this view's block is due."""
        timing = self.timing
        due = self.block_seen_ms + timing.heartbeat_ms
        if self.work_since_ms is not None:
            interval = max(timing.block_interval_ms, self.work_interval_ms)
            due = min(due, max(self.work_since_ms, self.block_seen_ms + interval))
        if not self.parent_final:
            # Votes to finalize were lost, or are under way: the next block makes up for it.
            due = min(due, self.block_seen_ms + timing.leader_timeout_ms)
        if self.awaited_since_ms is not None:
            due = min(due, self.awaited_since_ms)
        return max(due, self.entered_ms)

    def proposal_deadline_ms(self, timeout_ms: int) -> int:
        """When a view without a proposal is given up whose leader is waited for so long."""
        return self.due_ms() + self._backed_off(timeout_ms)

    def view_deadline_ms(self) -> int:
        """When a view is given up in any case."""
        return self.due_ms() + self._backed_off(self.timing.certificate_timeout_ms)

    def resend_pace_ms(self) -> int:
        """Pause between two resends within the view."""
        return max(1, self._backed_off(self.timing.leader_timeout_ms) // 2)

    def _backed_off(self, timeout_ms: int) -> int:
        steps = min(self.nullified_in_row, _BACKOFF_STEPS_MAX)
        grown: int = timeout_ms * 3**steps // 2**steps
        return min(grown, timeout_ms * BACKOFF_MAX)
