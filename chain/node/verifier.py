"""The auditor's side of a job: recompute, commit to the verdict, then open it.

The salt of a commitment is derived from the validator's secret, so that a verifier that restarts
between commit and reveal computes the same opening again instead of having to keep it.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeVar

from assay.v1 import inference_pb2
from chain.execution import Ledger
from chain.keys import KeyPair
from chain.node.provider import OTHER_PROFILE, generate_request, stored_result
from chain.pairs import judged_by
from chain.records import CommitteeSeat, Job, JobStatus, Model
from chain.runtime_client import (
    InferenceRuntime,
    RuntimeRefusedError,
    RuntimeUnavailableError,
)
from chain.runtime_replies import RuntimeReplyError
from chain.store import Store
from consensus.values import APPEAL_ROUND, AttestationKind, JobCommit, JobReveal, Scores, Verdict
from consensus.verdicts import NO_SCORES, judge
from consensus.wire import encode
from ext.hashing import tagged_hash

REVEALS_KEPT = 4096
VERIFY_SHARE = 0.8
"""Of the time until the commit deadline: later than that the verifier abstains."""

T = TypeVar("T")
ReadTask = Callable[
    [Callable[[Ledger], tuple[Model, tuple[int, ...]]]], Awaitable[tuple[Model, tuple[int, ...]]]
]
"""`LedgerWorker.read` for what a verifier needs: the model, and the positions to fingerprint."""
logger = logging.getLogger(__name__)


class VerifierAgent:
    """Judges results for which this validator has a seat."""

    def __init__(
        self,
        own_index: int,
        salting: KeyPair,
        account: bytes,
        runtime: InferenceRuntime,
        store: Store,
        read: ReadTask,
        attest: Callable[[bytes], None],
        clock_ms: Callable[[], int],
    ) -> None:
        """`salting` is a key that is never rotated: salts are derived from it."""
        self._own_index = own_index
        self._secret = tagged_hash(b"verifier-salt", salting.seed)
        self._account = account
        self._runtime = runtime
        self._store = store
        self._read = read
        self._attest = attest
        self._clock_ms = clock_ms
        self._reveals: OrderedDict[tuple[bytes, int], JobReveal] = OrderedDict()
        self._opened: OrderedDict[tuple[bytes, int], None] = OrderedDict()
        self._running: dict[tuple[bytes, int], asyncio.Task[None]] = {}
        self._waiting: dict[tuple[bytes, int], tuple[bytes, Job]] = {}

    def on_jobs(self, jobs: Iterable[tuple[bytes, Job]]) -> None:
        """Commit where a seat waits for it, open where the time has come."""
        for identity, job in jobs:
            seat = next((seat for seat in job.committee if seat.validator == self._own_index), None)
            if seat is None or seat.round != job.round or seat.verdict is not None:
                continue
            key = (identity, job.round)
            due = job.status is JobStatus.COMMITTING and seat.commitment is None
            opens = job.status is JobStatus.REVEALING and seat.commitment is not None
            if key in self._running:
                self._waiting[key] = (identity, job)  # the time to open may come meanwhile
                continue
            if due and key in self._reveals:
                continue
            if (due or opens) and key not in self._opened:
                task = asyncio.create_task(self._attend(identity, job, seat))
                self._running[key] = task
                task.add_done_callback(partial(self._forget, key))

    def _forget(self, key: tuple[bytes, int], _: asyncio.Task[None]) -> None:
        self._running.pop(key, None)
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            self.on_jobs([waiting])

    async def stop(self) -> None:
        """Cancel everything under way."""
        self._waiting.clear()
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _attend(self, identity: bytes, job: Job, seat: CommitteeSeat) -> None:
        key = (identity, job.round)
        reveal = self._reveals.get(key)
        if reveal is None:
            reveal = await self._judge(identity, job, seat)
            _remember(self._reveals, key, reveal)
        commitment = reveal.commitment(self._account)
        if seat.commitment is None:
            self._attest(encode(JobCommit(AttestationKind.COMMIT, identity, job.round, commitment)))
        elif seat.commitment == commitment:
            _remember(self._opened, key, None)
            self._attest(encode(reveal))
        else:
            logger.error("job %s: own commitment can't be opened any more", identity.hex()[:8])
            _remember(self._opened, key, None)

    async def _judge(self, identity: bytes, job: Job, seat: CommitteeSeat) -> JobReveal:
        model, positions = await self._read(
            lambda ledger: (_model(ledger, job), _positions(ledger, identity, job))
        )
        verdict, scores = Verdict.ABSTAIN, NO_SCORES
        fingerprint: tuple[int, ...] = ()
        claim = await asyncio.to_thread(stored_result, job, self._store)
        left_s = max(0.1, (job.deadline_ms - self._clock_ms()) / 1000 * VERIFY_SHARE)
        try:
            if claim is not None:
                request = await asyncio.to_thread(generate_request, job, self._store)
                async with asyncio.timeout(left_s):
                    reply = await self._runtime.verify(request, claim, positions, left_s)
                if reply.engine_profile != seat.engine_profile:
                    raise RuntimeRefusedError(
                        OTHER_PROFILE,
                        f"verified with {reply.engine_profile}, the seat was drawn for "
                        f"{seat.engine_profile}, whose thresholds say nothing of this",
                    )
                thresholds = judged_by(model, job.engine_profile, seat.engine_profile)
                scores = scores_value(reply.scores)
                verdict = judge(scores, thresholds, job.input_tokens, job.output_tokens)
                fingerprint = reply.fingerprint
        except (
            RuntimeUnavailableError,
            RuntimeRefusedError,
            RuntimeReplyError,
            TimeoutError,
        ) as error:
            logger.warning(
                "job %s: abstaining: %s", identity.hex()[:8], str(error) or "out of time"
            )
        logger.info("job %s: %s %s", identity.hex()[:8], verdict.name, scores)
        salt = tagged_hash(b"salt", self._secret, identity, bytes((job.round,)))
        return JobReveal(
            AttestationKind.REVEAL, identity, job.round, verdict, scores, fingerprint, salt
        )


def _remember(kept: OrderedDict[tuple[bytes, int], T], key: tuple[bytes, int], value: T) -> None:
    kept[key] = value
    while len(kept) > REVEALS_KEPT:
        kept.popitem(last=False)


def _model(ledger: Ledger, job: Job) -> Model:
    model = ledger.model(job.model)
    if model is None:
        raise RuntimeError(f"job's model {job.model.hex()} is not registered")
    return model


def _positions(ledger: Ledger, identity: bytes, job: Job) -> tuple[int, ...]:
    # In an appeal the scores themselves are compared.
    return () if job.round == APPEAL_ROUND else ledger.fingerprint_positions(identity)


def scores_value(scores: inference_pb2.Scores) -> Scores:
    """A runtime's scores as consensus keeps them; the client has bounded every field."""
    return Scores(
        positions=scores.positions,
        replay_mismatches=scores.replay_mismatches,
        margin_max=scores.margin_max,
        margin_sum=scores.margin_sum,
        distance_max=scores.distance_max,
        distance_sum=scores.distance_sum,
        outside_candidates=scores.outside_candidates,
        doubt_sum=scores.doubt_sum,
        input_tokens=scores.input_tokens,
        finish_plausible=scores.finish_plausible,
        text_matches=scores.text_matches,
        opening_margin_sum=scores.opening_margin_sum,
        opening_distance_sum=scores.opening_distance_sum,
        opening_doubt_sum=scores.opening_doubt_sum,
    )
