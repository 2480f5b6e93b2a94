"""What happens in a node, counted as it happens: a few additions for each block, job and call, and
nothing for each transaction. `metrics` turns it into what Prometheus reads.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Histogram

from chain.execution import BlockOutcome
from chain.node.attendance import Attendance
from chain.records import Job, JobStatus
from chain.rejections import RejectionReason
from consensus.events import Deliver
from consensus.messages import Message
from consensus.values import Block, Vote

FRESH_S: Final = 60.0
"""A block older than this when it comes is being caught up with; it says nothing of finality."""
FINAL_STATUSES: Final = (JobStatus.VERIFIED, JobStatus.REJECTED, JobStatus.REFUNDED)
_FINALITY_BUCKETS_S: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)
_EXECUTION_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_DELAY_BUCKETS_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_JOB_BUCKETS_S: Final = (0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600)


class Meter:
    """Counts of one node since its start. Used from the event loop only."""

    def __init__(
        self,
        own_index: int,
        stakes: Mapping[int, int],
        clock_ms: Callable[[], int],
        newest: Block,
    ) -> None:
        """`stakes` of the members, by validator; `newest` is the newest final block, before
        anything is counted."""
        self.registry = CollectorRegistry()
        self.attendance = Attendance(stakes, newest.view)
        self.started_ms = clock_ms()
        self.final_at_ms = self.started_ms
        """When this node last learnt of a final block."""
        self.executing_since_ms: int | None = None
        self.transactions = 0
        self.admitted = 0
        self.refused: Counter[RejectionReason] = Counter()
        self.open_jobs = 0
        self.jobs_requested = 0
        self.jobs_finished: Counter[JobStatus] = Counter()
        self.jobs_answered: Counter[JobStatus] = Counter()
        """Of those finished, what this validator's provider answered."""
        self.finality_s = _histogram(
            self.registry,
            "assay_consensus_finality_seconds",
            "From a block's timestamp until this node knows it final.",
            _FINALITY_BUCKETS_S,
        )
        self.execution_s = _histogram(
            self.registry,
            "assay_ledger_execution_seconds",
            "Executing a block and making it durable.",
            _EXECUTION_BUCKETS_S,
        )
        self.job_s = _histogram(
            self.registry,
            "assay_jobs_duration_seconds",
            "From a job's block to the block that settled it, by block time.",
            _JOB_BUCKETS_S,
        )
        self.loop_delay_s = _histogram(
            self.registry,
            "assay_process_loop_delay_seconds",
            "How late the event loop comes to what is due.",
            _DELAY_BUCKETS_S,
        )
        self._own_index = own_index
        self._clock_ms = clock_ms

    def message(self, peer: int, message: Message) -> None:
        """Something a validator said; also what this node itself says to all."""
        if isinstance(message, Vote) and message.signer == peer:
            self.attendance.heard(peer, message.body.view)

    def begin_epoch(self, stakes: Mapping[int, int]) -> None:
        """The blocks that come are of an epoch with these members."""
        self.attendance.follow(stakes)

    def final(self, block: Block) -> None:
        """A block has become final, and its batches are here."""
        self.final_at_ms = self._clock_ms()
        self.attendance.became_final(block.view)
        age_s = (self.final_at_ms - block.timestamp_ms) / 1000
        if age_s <= FRESH_S:
            self.finality_s.observe(max(0.0, age_s))

    def executing(self) -> None:
        """A block has gone to the ledger's thread."""
        self.executing_since_ms = self._clock_ms()

    def executed(self, deliver: Deliver, outcome: BlockOutcome) -> None:
        """It has come back."""
        if self.executing_since_ms is not None:
            self.execution_s.observe((self._clock_ms() - self.executing_since_ms) / 1000)
        self.executing_since_ms = None
        self.transactions += len(outcome.receipts) - len(outcome.job_receipts)
        self.jobs_requested += len(outcome.new_jobs)
        self.open_jobs += len(outcome.new_jobs)
        for _, job in outcome.changed_jobs:
            if job.status in FINAL_STATUSES and job.final_height == deliver.block.height:
                self._job_finished(job, deliver.block.timestamp_ms)

    def resumed(self, open_jobs: int) -> None:
        """How many jobs were open when the node started."""
        self.open_jobs = open_jobs

    def admission(self, admitted: int, refused: Mapping[RejectionReason, int]) -> None:
        """What became of the transactions of one call."""
        self.admitted += admitted
        self.refused.update(refused)

    def refusal(self, reason: RejectionReason) -> None:
        """A call was refused as a whole."""
        self.refused[reason] += 1

    def _job_finished(self, job: Job, now_ms: int) -> None:
        self.open_jobs -= 1
        self.jobs_finished[job.status] += 1
        self.job_s.observe((now_ms - job.requested_ms) / 1000)
        if job.provider is not None and job.operator == self._own_index:
            self.jobs_answered[job.status] += 1


def _histogram(
    registry: CollectorRegistry, name: str, text: str, buckets: tuple[float, ...]
) -> Histogram:
    return Histogram(name, text, buckets=buckets, registry=registry)
