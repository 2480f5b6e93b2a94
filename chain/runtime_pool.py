"""Several runtimes as one: the least loaded healthy one that has the model gets the request.

What it offers is what `RuntimeClient` offers, so its callers need not know how many there are.

Rules:
- A model is served with one engine profile: that of the first runtime, in the order named, that is
  known to have it. What was said on chain is said of that one, so a runtime that has the model with
  another profile is not asked.
- A runtime that is absent, silent, broken, or says what can't be true is taken out, and asked again
  after a growing back-off (`runtime_member`). One background task each probes them.
- A request under way leaves such a runtime as soon as another can take it. If there is no other it
  stays: a runtime that was only slow may still answer.
- A verification may be moved until its deadline. A generation is moved only as long as nothing of
  it was yielded; after that it fails as unavailable, and its caller decides.
- No runtime gets a request twice that it answered with garbage, or broke on. If nobody is left, the
  last error is the caller's.
- A refusal is the caller's once no other runtime is there to be asked; it is held against nobody,
  unless a runtime refuses a model that it says it serves.

Errors are those of `RuntimeClient`: unavailable, refused, a reply that can't be true.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from assay.v1 import inference_pb2, runtime_pb2
from chain.runtime_client import (
    RuntimeClient,
    RuntimeRefusedError,
    RuntimeUnavailableError,
    Unavailability,
)
from chain.runtime_member import Member, PoolBounds, RuntimeState
from chain.runtime_replies import (
    GenerationEvent,
    ModelInfo,
    RuntimeReplyError,
    Started,
    Verification,
)

T = TypeVar("T")

UNKNOWN_MODEL = "UNKNOWN_MODEL"
RECHECK_S = 0.25
"""How often a request at a runtime that is out or silent looks for another that is free."""
PATIENCE_SHARE = 0.5
"""Of the time left, for one runtime to answer in while another could still be asked."""

RuntimeFailure = RuntimeUnavailableError | RuntimeRefusedError | RuntimeReplyError
_FAILURES = (RuntimeUnavailableError, RuntimeRefusedError, RuntimeReplyError)


class _LeftError(RuntimeUnavailableError):
    """The request left a runtime that is out or silent; it has been held against it already."""


@dataclass(slots=True)
class _Errand:
    """One request on its way through the pool."""

    model: bytes
    ends_s: float
    attempts: int = 0
    tried: set[str] = field(default_factory=set)
    """Asked before; asked again only after all others."""
    excluded: set[str] = field(default_factory=set)
    last_error: RuntimeFailure | None = None
    waker: asyncio.Future[None] | None = None


class RuntimePool:
    """The runtimes of a node. Make it inside the event loop, `run` it, and close it at the end."""

    def __init__(
        self,
        targets: Sequence[str],
        bounds: PoolBounds | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: random.Random | None = None,
    ) -> None:
        if not targets or len(set(targets)) != len(targets):
            raise ValueError(f"runtimes {list(targets)}: name at least one, and each once")
        self._bounds = bounds or PoolBounds()
        self._clock = clock
        jitter = jitter or random.Random()
        self._members = [
            Member(
                RuntimeClient(target, clock, jitter, retries=False),
                self._bounds,
                clock,
                jitter,
                self._wake_all,
            )
            for target in targets
        ]
        self._wakers: set[asyncio.Future[None]] = set()
        self._waiting = 0

    async def run(self) -> None:
        """Probe the runtimes until cancelled. Nothing is admitted before the first probe."""
        async with asyncio.TaskGroup() as group:
            for member in self._members:
                group.create_task(self._watch(member))

    async def close(self) -> None:
        """Close every channel; calls under way are cancelled."""
        await asyncio.gather(*(member.client.close() for member in self._members))

    def states(self) -> tuple[RuntimeState, ...]:
        """Each runtime, as status shows it."""
        return tuple(member.state() for member in self._members)

    async def ready(self) -> bool:
        """Whether any runtime is in."""
        return any(member.healthy for member in self._members)

    async def models(self) -> tuple[ModelInfo, ...]:
        """What the runtimes that are in serve, each model once."""
        found: dict[bytes, ModelInfo] = {}
        for member in self._members:
            for model, info in (member.models or {}).items() if member.healthy else ():
                if info.engine_profile == self._profile(model):
                    found.setdefault(model, info)
        return tuple(found.values())

    async def tokenize(
        self, model: bytes, request_input: inference_pb2.InferenceInput, deadline_s: float
    ) -> tuple[int, ...]:
        """The prompt ids of an input. Durations `deadline_s` here and below are from now on."""
        return await self._ask(
            model, deadline_s, lambda client, left_s: client.tokenize(model, request_input, left_s)
        )

    async def verify(
        self,
        request: runtime_pb2.GenerateRequest,
        claim: inference_pb2.InferenceResult,
        fingerprint_positions: Sequence[int],
        deadline_s: float,
    ) -> Verification:
        """Scores of a claimed result of `request`, from whichever runtime can, until the
        deadline."""
        return await self._ask(
            request.model,
            deadline_s,
            lambda client, left_s: client.verify(request, claim, fingerprint_positions, left_s),
        )

    async def generate(
        self, request: runtime_pb2.GenerateRequest, deadline_s: float
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Yield Started, Chunks and Finished. Close the iterator early to cancel the work.

        Started comes with the first tokens, so that a prompt can still move to another runtime.
        """
        errand = self._errand(request.model, deadline_s)
        begun = False
        while True:
            member = await self._admit(errand)
            try:
                async with aclosing(self._stream(member, errand, request)) as events:
                    async for event in events:
                        begun = True
                        yield event
                member.succeeded()
                return
            except _FAILURES as error:
                failure = error
            finally:
                self._release(member, errand)
            self._judge(member, errand, failure)
            if begun:
                self._raise_broken_off(member, errand, failure)

    async def _stream(
        self, member: Member, errand: _Errand, request: runtime_pb2.GenerateRequest
    ) -> AsyncGenerator[GenerationEvent, None]:
        held: Started | None = None
        left_s = errand.ends_s - self._clock()
        patience_s = min(self._bounds.progress_s, left_s * PATIENCE_SHARE)
        async with aclosing(member.client.generate(request, left_s)) as events:
            while True:
                event = await self._supervise(member, errand, _next(events), patience_s)
                if event is None:
                    return
                if isinstance(event, Started):
                    held = event
                    continue
                if held is not None:
                    yield held
                    held, patience_s = None, self._bounds.progress_s
                yield event

    async def _ask(
        self,
        model: bytes,
        deadline_s: float,
        question: Callable[[RuntimeClient, float], Coroutine[Any, Any, T]],
    ) -> T:
        errand = self._errand(model, deadline_s)
        while True:
            member = await self._admit(errand)
            left_s = errand.ends_s - self._clock()
            try:
                answer = await self._supervise(
                    member, errand, question(member.client, left_s), left_s * PATIENCE_SHARE
                )
                member.succeeded()
                return answer
            except _FAILURES as error:
                failure = error
            finally:
                self._release(member, errand)
            self._judge(member, errand, failure)

    def _errand(self, model: bytes, deadline_s: float) -> _Errand:
        return _Errand(model, self._clock() + min(deadline_s, self._bounds.wall_time_s))

    async def _admit(self, errand: _Errand) -> Member:
        """Wait for a runtime that takes the request; it counts as in flight there."""
        while True:
            self._check_hope(errand)
            member = self._best(errand)
            if member is not None:
                member.in_flight += 1
                member.last_used_s = self._clock()
                errand.attempts += 1
                errand.tried.add(member.address)
                return member
            await self._wait_for_change(errand)

    def _check_hope(self, errand: _Errand) -> None:
        """Raise if no runtime will ever take the request, or not in time."""
        if not self._candidates(errand):
            if errand.last_error is not None:
                raise errand.last_error
            raise RuntimeRefusedError(
                UNKNOWN_MODEL,
                f"no runtime of {', '.join(member.address for member in self._members)} serves"
                f" model {errand.model.hex()}",
            )
        if errand.attempts >= self._bounds.attempts_max or self._clock() >= errand.ends_s:
            self._raise_unavailable(errand)

    async def _wait_for_change(self, errand: _Errand) -> None:
        if self._waiting >= self._bounds.waiting_max:
            raise RuntimeUnavailableError(
                f"{self._waiting} requests wait for a runtime, at most {self._bounds.waiting_max}"
                " may; name more runtimes in node.toml",
                Unavailability.BUSY,
            )
        now_s = self._clock()
        busy_s = [member.busy_until_s for member in self._members if member.busy_until_s > now_s]
        self._waiting += 1
        try:
            await self._wait((), errand, min([errand.ends_s, *busy_s]) - now_s)
        finally:
            self._waiting -= 1
            self._forget_waker(errand)

    def _candidates(self, errand: _Errand) -> list[Member]:
        profile = self._profile(errand.model)
        return [
            member
            for member in self._members
            if member.address not in errand.excluded and member.may_serve(errand.model, profile)
        ]

    def _profile(self, model: bytes) -> str | None:
        """The one profile the pool serves the model with; None while no runtime told."""
        for member in self._members:
            info = (member.models or {}).get(model)
            if info is not None:
                return info.engine_profile
        return None

    def _best(self, errand: _Errand, other_than: Member | None = None) -> Member | None:
        """The least loaded runtime that can take the request now; of equals the longest unused."""
        free = [
            member
            for member in self._candidates(errand)
            if member is not other_than and member.is_free()
        ]
        return min(
            free,
            key=lambda member: (member.address in errand.tried, member.load, member.last_used_s),
            default=None,
        )

    def _release(self, member: Member, errand: _Errand) -> None:
        member.in_flight -= 1
        self._forget_waker(errand)
        self._wake_all()

    async def _supervise(
        self, member: Member, errand: _Errand, work: Coroutine[Any, Any, T], patience_s: float
    ) -> T:
        """The work's result, unless its runtime is out or silent and another can take over."""
        task = asyncio.create_task(work)
        patient_until_s = self._clock() + patience_s
        try:
            while True:
                left_s = patient_until_s - self._clock()
                stuck = left_s <= 0 or not member.healthy
                if stuck and self._best(errand, other_than=member) is not None:
                    self._leave(member, patience_s)
                await self._wait((task,), errand, RECHECK_S if stuck else left_s)
                if task.done():
                    return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))

    def _leave(self, member: Member, patience_s: float) -> NoReturn:
        why = member.trouble
        if not why:
            why = f"no progress within {patience_s:.1f} s"
            member.silent(why, patience_s)
        raise _LeftError(f"runtime {member.address}: {why}", Unavailability.ABSENT)

    def _judge(self, member: Member, errand: _Errand, failure: RuntimeFailure) -> None:
        """Hold a failed attempt against its runtime. Raises if asking another is of no use."""
        errand.last_error = failure
        if isinstance(failure, _LeftError):
            return
        cause = failure.cause if isinstance(failure, RuntimeUnavailableError) else None
        if cause is Unavailability.BUSY and isinstance(failure, RuntimeUnavailableError):
            member.busy(failure.retry_after_s)
            return
        if cause is Unavailability.ABSENT:
            member.lost(str(failure))
            return
        errand.excluded.add(member.address)
        if isinstance(failure, RuntimeRefusedError) and failure.reason != UNKNOWN_MODEL:
            # Its right; but another's bounds may be wider, if one is there to be asked.
            if self._best(errand) is None:
                raise failure
        elif cause is not Unavailability.OUT_OF_TIME:
            member.failed(str(failure))

    def _raise_broken_off(
        self, member: Member, errand: _Errand, failure: RuntimeFailure
    ) -> NoReturn:
        if isinstance(failure, RuntimeUnavailableError) or not self._candidates(errand):
            raise failure
        raise RuntimeUnavailableError(
            f"runtime {member.address} broke off: {failure}", Unavailability.FAILED
        ) from failure

    def _raise_unavailable(self, errand: _Errand) -> NoReturn:
        if errand.last_error is not None:
            raise errand.last_error
        troubles = [
            f"{member.address}: {member.trouble or 'busy'}" for member in self._candidates(errand)
        ]
        raise RuntimeUnavailableError("; ".join(troubles), Unavailability.ABSENT)

    async def _watch(self, member: Member) -> None:
        while True:
            await member.probe()
            await asyncio.sleep(member.next_probe_in_s())

    async def _wait(
        self, tasks: Sequence[asyncio.Task[Any]], errand: _Errand, timeout_s: float | None
    ) -> None:
        """Return when a task is done, something changed in the pool, or the time is up."""
        if errand.waker is None or errand.waker.done():
            errand.waker = asyncio.get_running_loop().create_future()
            self._wakers.add(errand.waker)
        awaited: set[asyncio.Future[Any]] = {errand.waker, *tasks}
        await asyncio.wait(awaited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    def _wake_all(self) -> None:
        wakers, self._wakers = self._wakers, set()
        for waker in wakers:
            if not waker.done():
                waker.set_result(None)

    def _forget_waker(self, errand: _Errand) -> None:
        if errand.waker is not None:
            self._wakers.discard(errand.waker)
            errand.waker = None


async def _next(events: AsyncGenerator[T, None]) -> T | None:
    """The next event, None at the end."""
    async for event in events:
        return event
    return None
