"""One engine thread, many jobs: whose step is next, who waits, who is dropped.

A job is a generator. `None` from it means progress without an item (a block of the prompt, a block
of a verification), anything else is an item for the caller, its return value is the result. All
generators run on one thread, so an engine needs no locks; a job is cancelled, or expires, between
two steps.

A job may also yield a `SharedPass`: work it needs done before it can go on. It then waits for its
turn, in which the passes of all jobs of its workload are done together, as far as they fit; each of
these jobs is then resumed up to its next pass.

Rules:
- Each workload (generation, verification, tokenizing, probes) has a bound on what runs and on what
  waits.
- The workload that has used the least engine time goes next, round robin inside it. A workload that
  was idle starts level with the others: it is owed nothing for the time it did not ask.
- A caller that reads slowly parks its own job once `BUFFERED_ITEMS_MAX` items wait; nobody else
  waits.
- What a job raises is handed to its caller and ends that job only: a RequestError as it is,
  anything else as the cause of a JobFailedError.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from runtime.engine import RequestError, SharedPass

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
Work = Generator[ItemT | SharedPass | None, None, ResultT]
Clock = Callable[[], float]

BUFFERED_ITEMS_MAX = 256
"""Items that may wait for one caller before its job is parked."""

RETRY_AFTER_MIN_S = 0.25
RETRY_AFTER_MAX_S = 30.0
DURATION_WEIGHT = 0.2
"""Weight of the newest job in the moving average of job durations."""

THREAD_JOIN_TIMEOUT_S = 2.0
EXPIRY_GRACE_S = 0.5
"""How long past its deadline a caller waits for the engine thread to say so itself."""

IDLE_WAIT_MAX_S = 3600.0
"""Upper bound of one wait of the idle engine thread; it only saves a special case."""


class Workload(StrEnum):
    """What kind of work a job is; each kind has its own bounds and its own share of the engine."""

    PROBE = "probe"
    TOKENIZE = "tokenize"
    VERIFY = "verify"
    GENERATE = "generate"


@dataclass(frozen=True, slots=True)
class Share:
    """Bounds of one workload, in jobs."""

    running_limit: int
    queue_limit: int


class QueueFullError(Exception):
    """The workload's queue is full; nothing was queued."""

    def __init__(self, workload: Workload, queued: int, limit: int, retry_after_s: float) -> None:
        super().__init__(f"{queued} {workload} requests wait already, at most {limit} may")
        self.workload = workload
        self.queued = queued
        self.limit = limit
        self.retry_after_s = retry_after_s


class JobExpiredError(Exception):
    """The job's deadline passed before it ended."""


class JobFailedError(Exception):
    """The work raised something it should not have; the cause says what."""


class JobCancelledError(Exception):
    """The job was cancelled by its own caller."""


class SchedulerStoppedError(Exception):
    """The scheduler is stopping and takes or finishes no work."""


class Job(Generic[ItemT, ResultT]):
    """A submitted piece of work, seen from the event loop that submitted it.

    Used as a context manager: leaving the block cancels what has not ended.
    """

    __slots__ = (
        "_error",
        "_event",
        "_items",
        "_loop",
        "_result",
        "_scheduler",
        "deadline_s",
        "ended",
        "generator",
        "notified",
        "shares",
        "submitted_s",
        "turn",
        "workload",
    )

    def __init__(
        self,
        scheduler: "Scheduler",
        workload: Workload,
        generator: Work[ItemT, ResultT],
        submitted_s: float,
        deadline_s: float,
    ) -> None:
        self._scheduler = scheduler
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._items: deque[ItemT] = deque()
        self._result: list[ResultT] = []
        self._error: BaseException | None = None
        self.workload = workload
        self.generator = generator
        self.submitted_s = submitted_s
        self.deadline_s = deadline_s
        self.ended = False
        self.notified = False
        # Both belong to the engine thread.
        self.turn: SharedPass | None = None
        """The pass the job waits for."""
        self.shares = False
        """Whether the job has ever waited for one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()

    @property
    def parked(self) -> bool:
        """Whether the caller must read before the job may go on."""
        return len(self._items) >= BUFFERED_ITEMS_MAX

    def cancel(self) -> None:
        """Give up the work; its slot is free at once, its generator is closed between two steps."""
        self._scheduler.drop(self, JobCancelledError("cancelled by the caller"))

    async def batches(self) -> AsyncIterator[list[ItemT]]:
        """Yield the items in order, as many together as have come up since the last batch.

        Raises RequestError and JobFailedError from the work, JobExpiredError past the deadline,
        SchedulerStoppedError.
        """
        while True:
            await self._wait()
            items, ended = self._scheduler.take(self)
            if items:
                yield items
            if ended:
                if self._error is not None:
                    raise self._error
                return

    async def result(self) -> ResultT:
        """Wait for the end, leaving out items not read yet, and return the work's return value."""
        async for _ in self.batches():
            pass
        return self._result[0]

    async def _wait(self) -> None:
        # The engine thread expires jobs between steps. A step that hangs must not hold the caller
        # as well, so the caller keeps its own watch, a little later.
        if self._event.is_set():
            return
        left_s = self.deadline_s - self._scheduler.now_s() + EXPIRY_GRACE_S
        try:
            await asyncio.wait_for(self._event.wait(), max(left_s, 0.0))
        except TimeoutError:
            self._scheduler.drop(self, JobExpiredError("the deadline passed during a step"))

    # Called with the scheduler's lock held.

    def take(self) -> tuple[list[ItemT], bool]:
        """Remove and return the waiting items, and whether no more will come."""
        items = list(self._items)
        self._items.clear()
        self._event.clear()
        self.notified = False
        if self.ended:
            self._event.set()
        return items, self.ended

    def put(self, item: ItemT) -> None:
        """Add an item for the caller."""
        self._items.append(item)
        self._notify()

    def end(self, error: BaseException | None, result: ResultT | None = None) -> None:
        """Record how the work ended, once."""
        if self.ended:
            return
        self.ended = True
        self._error = error
        if error is None:
            self._result.append(result)  # type: ignore[arg-type]
        self._notify()

    def _notify(self) -> None:
        if self.notified:
            return
        self.notified = True
        try:
            self._loop.call_soon_threadsafe(self._event.set)
        except RuntimeError:
            self.ended = True  # the loop is closed, so the caller is gone with it


AnyJob = Job[Any, Any]


@dataclass(frozen=True, slots=True)
class Load:
    """How busy one workload is, in jobs."""

    waiting: int
    running: int


class Scheduler:
    """Owns the engine thread. Jobs come from event loops; their steps run here."""

    def __init__(self, shares: dict[Workload, Share], clock: Clock = time.monotonic) -> None:
        self._shares = dict(shares)
        self._clock = clock
        self._wakeup = threading.Condition()
        self._waiting: dict[Workload, deque[AnyJob]] = {kind: deque() for kind in shares}
        self._running: dict[Workload, deque[AnyJob]] = {kind: deque() for kind in shares}
        self._used_s: dict[Workload, float] = dict.fromkeys(shares, 0.0)
        self._mean_duration_s: dict[Workload, float] = dict.fromkeys(shares, 1.0)
        self._idle: set[Workload] = set(shares)
        self._floor_s = 0.0
        self._dropped: list[AnyJob] = []
        self._stopping = False
        self._step_started_s: float | None = None
        self._thread: threading.Thread | None = None

    def now_s(self) -> float:
        """The scheduler's clock, in which deadlines are given."""
        return self._clock()

    def start(self) -> None:
        """Start the engine thread."""
        if self._thread is not None:
            raise RuntimeError("the scheduler was started already")
        # A daemon: an engine that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def ensure_started(self) -> None:
        """Start the engine thread unless it was started already."""
        if self._thread is None:
            self.start()

    def stop(self) -> None:
        """Refuse new work, end every job with SchedulerStoppedError, and join the thread."""
        with self._wakeup:
            self._stopping = True
            for job in self._all_jobs():
                self._end(job, SchedulerStoppedError("the runtime is stopping"))
            self._wakeup.notify_all()
        if self._thread is not None:
            self._thread.join(THREAD_JOIN_TIMEOUT_S)

    def submit(
        self, workload: Workload, work: Work[ItemT, ResultT], deadline_s: float
    ) -> Job[ItemT, ResultT]:
        """Queue `work`; call it on the event loop that will read the job.

        Raises QueueFullError and SchedulerStoppedError; `deadline_s` is a time of `now_s`.
        """
        job: Job[ItemT, ResultT] = Job(self, workload, work, self._clock(), deadline_s)
        share = self._shares[workload]
        with self._wakeup:
            if self._stopping:
                raise SchedulerStoppedError("the runtime is stopping")
            load = self._load(workload)
            if load.waiting + load.running >= share.running_limit + share.queue_limit:
                raise QueueFullError(
                    workload, load.waiting, share.queue_limit, self._retry_after_s(workload)
                )
            self._waiting[workload].append(job)
            self._wakeup.notify_all()
        return job

    def load(self, workload: Workload) -> Load:
        """How many jobs of this workload wait and run."""
        with self._wakeup:
            return self._load(workload)

    def step_age_s(self) -> float:
        """How long the step under way has taken; 0 when the thread is idle."""
        started_s = self._step_started_s
        return 0.0 if started_s is None else max(0.0, self._clock() - started_s)

    def drop(self, job: AnyJob, error: BaseException) -> None:
        """End a job from outside, with `error` for whoever still reads it."""
        with self._wakeup:
            self._end(job, error)
            self._wakeup.notify_all()

    def take(self, job: Job[ItemT, ResultT]) -> tuple[list[ItemT], bool]:
        """Hand a job's waiting items over, and whether it has ended; a parked job goes on."""
        with self._wakeup:
            was_parked = job.parked
            taken = job.take()
            if was_parked:
                self._wakeup.notify_all()
            return taken

    def run_step(self) -> bool:
        """Run one step of the next job on the calling thread; False when nothing can run.

        The engine thread does this in a loop; a test can do it by hand, without the thread.
        """
        with self._wakeup:
            job = self._next_job()
            others = [] if job is None or job.turn is None else self._others_at_a_pass(job)
            dropped, self._dropped = self._dropped, []
            started_s = self._clock()
            if job is not None:
                self._step_started_s = started_s
        for other in dropped:
            _close(other)
        if job is not None:
            self._turn(job, others, started_s)
        return job is not None

    def _run(self) -> None:
        while True:
            if self.run_step():
                continue
            with self._wakeup:
                if self._dropped or self._has_runnable():
                    continue
                if self._stopping:
                    return
                self._wakeup.wait(self._seconds_to_next_deadline())

    def _turn(self, job: AnyJob, others: list[AnyJob], started_s: float) -> None:
        """One step of a job; of all whose passes were run with its own, if it waits for one."""
        members, failure = [job], None
        if job.turn is not None:
            try:
                members = _run_together(job.turn, [job, *others])
            except Exception as raised:  # noqa: BLE001 - a broken pass must not end the thread
                failure = raised
        for member in members:
            member.turn = None
        try:
            for member in members:
                self._step(member, failure)
                while member.shares and member.turn is None and not member.ended:
                    self._step(member, None)
        finally:
            with self._wakeup:
                self._step_started_s = None
                self._used_s[job.workload] += self._clock() - started_s
                # Those that shared the turn have had theirs, too.
                for member in members[1:]:
                    jobs = self._running[job.workload]
                    if member in jobs:
                        jobs.remove(member)
                        jobs.append(member)

    def _step(self, job: AnyJob, failure: Exception | None) -> None:
        """Resume a job once, or throw what its pass raised into it."""
        item: Any = None
        error: Exception | None = None
        result: object = None
        finished = False
        try:
            item = next(job.generator) if failure is None else job.generator.throw(failure)
        except StopIteration as stop:
            finished, result = True, stop.value
        except RequestError as refused:
            finished, error = True, refused
        except Exception as raised:  # noqa: BLE001 - one job's failure must not end the others'
            finished, error = True, JobFailedError(f"{type(raised).__name__}: {raised}")
            error.__cause__ = raised
        if isinstance(item, SharedPass):
            job.turn, job.shares, item = item, True, None
        with self._wakeup:
            if finished:
                if not job.ended:
                    self._remember_duration(job, self._clock())
                self._remove(job)
                job.end(error, result)
            elif item is not None and not job.ended:
                job.put(item)

    # Everything below is called with the lock held.

    def _next_job(self) -> AnyJob | None:
        self._expire()
        self._admit()
        ready = {kind for kind, jobs in self._running.items() if any(not j.parked for j in jobs)}
        for kind in ready & self._idle:
            self._used_s[kind] = max(self._used_s[kind], self._floor_s)
        self._idle = set(self._shares) - ready
        if not ready or self._stopping:
            return None
        # The order of the enumeration breaks ties, so equal histories give equal schedules.
        kind = min((k for k in Workload if k in ready), key=lambda k: self._used_s[k])
        self._floor_s = self._used_s[kind]
        jobs = self._running[kind]
        while jobs[0].parked:
            jobs.rotate(-1)
        job = jobs[0]
        jobs.rotate(-1)
        return job

    def _others_at_a_pass(self, job: AnyJob) -> list[AnyJob]:
        """Jobs of the same workload that wait for a pass as well, next one first."""
        jobs = self._running[job.workload]
        return [
            other
            for other in jobs
            if other is not job and other.turn is not None and not other.parked
        ]

    def _has_runnable(self) -> bool:
        if self._stopping:
            return False
        running = any(not job.parked for jobs in self._running.values() for job in jobs)
        return running or any(
            waiting and len(self._running[kind]) < self._shares[kind].running_limit
            for kind, waiting in self._waiting.items()
        )

    def _admit(self) -> None:
        for kind, waiting in self._waiting.items():
            while waiting and len(self._running[kind]) < self._shares[kind].running_limit:
                self._running[kind].append(waiting.popleft())

    def _expire(self) -> None:
        now_s = self._clock()
        for job in self._all_jobs():
            if job.deadline_s <= now_s:
                self._end(job, JobExpiredError("the deadline passed"))

    def _end(self, job: AnyJob, error: BaseException) -> None:
        if job.ended:
            return
        job.end(error)
        if job in self._running[job.workload]:
            # Only what ran holds anything; so a hung engine thread leaves a bounded list behind.
            self._dropped.append(job)
        self._remove(job)

    def _remove(self, job: AnyJob) -> None:
        for jobs in (self._waiting[job.workload], self._running[job.workload]):
            if job in jobs:
                jobs.remove(job)

    def _all_jobs(self) -> list[AnyJob]:
        queues = (*self._waiting.values(), *self._running.values())
        return [job for jobs in queues for job in jobs]

    def _load(self, workload: Workload) -> Load:
        return Load(len(self._waiting[workload]), len(self._running[workload]))

    def _seconds_to_next_deadline(self) -> float:
        now_s = self._clock()
        left_s = (job.deadline_s - now_s for job in self._all_jobs())
        return max(0.0, min(left_s, default=IDLE_WAIT_MAX_S))

    def _remember_duration(self, job: AnyJob, now_s: float) -> None:
        mean_s = self._mean_duration_s[job.workload]
        taken_s = now_s - job.submitted_s
        self._mean_duration_s[job.workload] = mean_s + DURATION_WEIGHT * (taken_s - mean_s)

    def _retry_after_s(self, workload: Workload) -> float:
        expected_s = self._mean_duration_s[workload] / self._shares[workload].running_limit
        return min(max(expected_s, RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S)


def _run_together(turn: SharedPass, jobs: list[AnyJob]) -> list[AnyJob]:
    """Run one of the jobs' passes and what fits of the others'; returns the jobs that had theirs.

    Where that fails, the first alone, so that no job ends for another's fault.
    """
    waiting = {id(job.turn): job for job in jobs}
    others = [job.turn for job in jobs if job.turn is not None and job.turn is not turn]
    try:
        run = turn.run_with(others)
    except Exception:
        if not others:
            raise
        run = turn.run_with(())
    return [waiting[id(done)] for done in run]


def _close(job: AnyJob) -> None:
    """Let a dropped generator free what it holds; its own trouble while doing so ends with it."""
    try:
        job.generator.close()
    except Exception as error:  # noqa: BLE001 - its caller is gone: nobody is left to tell
        job.end(error)
