"""A node's way to an inference runtime: deadlines, reconnecting, and nothing believed unchecked.

What can go wrong is one of four things, and a node treats them differently:
- RuntimeUnavailableError: no runtime, a busy one, a failing one, out of time. A verifier ABSTAINs.
- RuntimeRefusedError: the request itself is not allowed, for the reason given; UNKNOWN_MODEL means
  that this runtime cannot judge, so a verifier ABSTAINs.
- RuntimeReplyError: the reply cannot be true (see `runtime_replies`). A verifier ABSTAINs.
- A result: whatever it says is evidence, and never more than that.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2, health_pb2_grpc

from assay.v1 import inference_pb2, runtime_pb2, runtime_pb2_grpc
from chain.runtime_replies import (
    GenerationChecker,
    GenerationEvent,
    ModelInfo,
    ReplyFault,
    RuntimeReplyError,
    Verification,
    check_models,
    check_prompt_ids,
    check_verification,
)

T = TypeVar("T")

REPLY_BYTES_MAX = 4 << 20
RETRY_DELAY_FIRST_S = 0.1
RETRY_DELAY_MAX_S = 2.0
RETRY_DELAY_GROWTH = 2.0
RETRY_JITTER = 0.2
"""Each delay is stretched by up to this part of itself, so that many nodes do not return as one."""
HEALTH_DEADLINE_S = 2.0
STATUS_DETAILS_KEY = "grpc-status-details-bin"
STATUS_DETAILS_BYTES_MAX = 16 << 10
RUNTIME_ERROR_DOMAIN = "assay.runtime"

_REFUSED = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)


class Unavailability(StrEnum):
    """Why no answer is to be had."""

    ABSENT = "absent"
    """Not reached, starting or stopping."""
    BUSY = "busy"
    """Well, but it takes no more now."""
    OUT_OF_TIME = "out_of_time"
    FAILED = "failed"
    """It took the request and broke on it."""


_CAUSES = {
    grpc.StatusCode.UNAVAILABLE: Unavailability.ABSENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Unavailability.BUSY,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unavailability.OUT_OF_TIME,
}
_WORTH_RETRYING = frozenset({Unavailability.ABSENT, Unavailability.BUSY})


class RuntimeUnavailableError(Exception):
    """No answer is to be had now, which says nothing about the request or the claim."""

    def __init__(
        self,
        detail: str,
        cause: Unavailability = Unavailability.ABSENT,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.cause = cause
        self.retry_after_s = retry_after_s


class RuntimeRefusedError(Exception):
    """The runtime does not allow this request; `reason` is a word to switch on."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class _StatusDetails:
    reason: str
    retry_after_s: float | None


def _details(error: grpc.aio.AioRpcError) -> _StatusDetails:
    """What the runtime attached to its status; nothing when it is missing or malformed."""
    reason, retry_after_s = "", None
    for key, value in error.trailing_metadata() or ():
        if key != STATUS_DETAILS_KEY or len(value) > STATUS_DETAILS_BYTES_MAX:
            continue
        try:
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
                if detail.Unpack(info) and info.domain == RUNTIME_ERROR_DOMAIN:
                    reason = info.reason
                elif detail.Unpack(retry):
                    retry_after_s = max(0.0, retry.retry_delay.ToMilliseconds() / 1000)
        except DecodeError:
            continue
    return _StatusDetails(reason, retry_after_s)


def _translate(error: grpc.aio.AioRpcError) -> Exception:
    """The error of our own that belongs to a failed call."""
    code, text = error.code(), error.details() or ""
    details = _details(error)
    if code in _REFUSED:
        return RuntimeRefusedError(details.reason or code.name, text)
    # gRPC's own word for a message over our bound is the same code as a full queue's; only a
    # runtime attaches a reason, and only our own side says that it received too much.
    too_large = "CLIENT: Received message larger than max" in text
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and not details.reason and too_large:
        return RuntimeReplyError(ReplyFault.TOO_LARGE, text)
    return RuntimeUnavailableError(
        f"{details.reason or code.name}: {text}",
        _CAUSES.get(code, Unavailability.FAILED),
        details.retry_after_s,
    )


def _readable(reply: T | None) -> T:
    """The reply; gRPC gives None for bytes that are no message of the schema."""
    if reply is None:
        raise RuntimeReplyError(ReplyFault.UNREADABLE, "the reply's bytes are no message")
    return reply


class InferenceRuntime(Protocol):
    """What the agents of a node ask: one runtime, or a pool of them."""

    async def ready(self) -> bool:
        """Whether tokens are produced."""
        ...

    async def models(self) -> tuple[ModelInfo, ...]:
        """What is served now."""
        ...

    def generate(
        self, request: runtime_pb2.GenerateRequest, deadline_s: float
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Yield Started, Chunks and Finished."""
        ...

    async def verify(
        self,
        request: runtime_pb2.GenerateRequest,
        claim: inference_pb2.InferenceResult,
        fingerprint_positions: Sequence[int],
        deadline_s: float,
    ) -> Verification:
        """Scores of a claimed result of `request`."""
        ...


class RuntimeClient:
    """One runtime, seen from the event loop it was made on. Close it, or use `async with`.

    With `retries` False whoever calls decides what to do about a runtime that is absent or busy:
    each call is one attempt.
    """

    def __init__(
        self,
        target: str,
        clock: Callable[[], float] = time.monotonic,
        jitter: random.Random | None = None,
        retries: bool = True,
    ) -> None:
        self.target = target
        self._retries = retries
        self._clock = clock
        self._jitter = jitter or random.Random()
        self._channel = grpc.aio.insecure_channel(
            target,
            options=[
                ("grpc.max_receive_message_length", REPLY_BYTES_MAX),
                ("grpc.max_send_message_length", REPLY_BYTES_MAX),
                ("grpc.initial_reconnect_backoff_ms", int(RETRY_DELAY_FIRST_S * 1000)),
                ("grpc.min_reconnect_backoff_ms", int(RETRY_DELAY_FIRST_S * 1000)),
                ("grpc.max_reconnect_backoff_ms", int(RETRY_DELAY_MAX_S * 1000)),
                # Our own retries know which calls may be repeated.
                ("grpc.enable_retries", 0),
            ],
        )
        self._stub = runtime_pb2_grpc.RuntimeStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._models: dict[bytes, ModelInfo] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._channel.close()

    async def ready(self) -> bool:
        """Whether the runtime says it produces tokens. False also when it can't be reached."""
        try:
            await self.check_health()
        except (RuntimeUnavailableError, RuntimeRefusedError, RuntimeReplyError):
            return False
        return True

    async def check_health(self, deadline_s: float = HEALTH_DEADLINE_S) -> None:
        """Return if the runtime says it produces tokens, or raise why it does not serve."""
        try:
            reply = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=deadline_s)
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from error
        status = cast(int, _readable(reply).status)
        if status != int(health_pb2.HealthCheckResponse.SERVING):
            raise RuntimeUnavailableError(
                "its health is not SERVING: no token from it yet, or none for too long",
                Unavailability.ABSENT,
            )

    async def models(self, deadline_s: float = 5.0) -> tuple[ModelInfo, ...]:
        """What the runtime serves. Durations `deadline_s` here and below are from now on."""

        async def attempt(left_s: float) -> tuple[ModelInfo, ...]:
            reply = await self._stub.Models(runtime_pb2.ModelsRequest(), timeout=left_s)
            return check_models(_readable(reply))

        models = await self._retrying(attempt, deadline_s)
        self._models = {model.model: model for model in models}
        return models

    async def tokenize(
        self, model: bytes, request_input: inference_pb2.InferenceInput, deadline_s: float
    ) -> tuple[int, ...]:
        """The prompt ids of an input."""
        info, left_s = await self._model(model, deadline_s)
        request = runtime_pb2.TokenizeRequest(model=model, input=request_input)

        async def attempt(left_s: float) -> tuple[int, ...]:
            reply = await self._stub.Tokenize(request, timeout=left_s)
            return check_prompt_ids(_readable(reply), info)

        return await self._retrying(attempt, left_s)

    async def verify(
        self,
        request: runtime_pb2.GenerateRequest,
        claim: inference_pb2.InferenceResult,
        fingerprint_positions: Sequence[int],
        deadline_s: float,
    ) -> Verification:
        """Scores of a claimed result of `request`, tried again until the deadline."""
        info, left_s = await self._model(request.model, deadline_s)
        message = runtime_pb2.VerifyRequest(
            model=request.model,
            input=request.input,
            sampling=request.sampling,
            seed=request.seed,
            claim=claim,
            fingerprint_positions=fingerprint_positions,
        )

        async def attempt(left_s: float) -> Verification:
            reply = await self._stub.Verify(message, timeout=left_s)
            return check_verification(
                _readable(reply),
                info,
                request.sampling.max_output_tokens,
                claim,
                fingerprint_positions,
            )

        return await self._retrying(attempt, left_s)

    async def generate(
        self, request: runtime_pb2.GenerateRequest, deadline_s: float
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Yield Started, Chunks and Finished. Close the iterator early to cancel the work.

        Tried again until the deadline as long as nothing has come back; after that, what fails,
        fails.
        """
        info, left_s = await self._model(request.model, deadline_s)
        ends_s = self._clock() + left_s
        delays_s = _Delays(self._jitter)
        while True:
            asked = request.sampling
            checker = GenerationChecker(info, asked.max_output_tokens, asked.min_tokens)
            call = self._stub.Generate(request, timeout=max(ends_s - self._clock(), 0.0))
            try:
                async for reply in call:
                    yield checker.accept(_readable(reply))
                checker.end()
                return
            except grpc.aio.AioRpcError as error:
                translated = _translate(error)
            finally:
                call.cancel()
            if checker.started is not None:
                raise translated
            await self._wait_or_raise(translated, ends_s, next(delays_s))

    async def _model(self, model: bytes, deadline_s: float) -> tuple[ModelInfo, float]:
        """The bounds of a model, asked for once, and how much of the deadline is left."""
        ends_s = self._clock() + deadline_s
        if model not in self._models:
            await self.models(deadline_s)
        info = self._models.get(model)
        if info is None:
            raise RuntimeRefusedError(
                "UNKNOWN_MODEL", f"the runtime at {self.target} does not serve model {model.hex()}"
            )
        return info, max(ends_s - self._clock(), 0.0)

    async def _retrying(self, attempt: Callable[[float], Awaitable[T]], deadline_s: float) -> T:
        ends_s = self._clock() + deadline_s
        delays_s = _Delays(self._jitter)
        while True:
            try:
                return await attempt(max(ends_s - self._clock(), 0.0))
            except grpc.aio.AioRpcError as error:
                translated = _translate(error)
            await self._wait_or_raise(translated, ends_s, next(delays_s))

    async def _wait_or_raise(self, error: Exception, ends_s: float, delay_s: float) -> None:
        if not isinstance(error, RuntimeUnavailableError) or error.cause not in _WORTH_RETRYING:
            raise error
        if not self._retries:
            raise error
        delay_s = max(delay_s, error.retry_after_s or 0.0)
        if self._clock() + delay_s >= ends_s:
            raise error
        await asyncio.sleep(delay_s)


class _Delays:
    """Growing delays with jitter, without end."""

    def __init__(self, jitter: random.Random) -> None:
        self._jitter = jitter
        self._next_s = RETRY_DELAY_FIRST_S

    def __next__(self) -> float:
        delay_s = self._next_s * (1 + RETRY_JITTER * self._jitter.random())
        self._next_s = min(self._next_s * RETRY_DELAY_GROWTH, RETRY_DELAY_MAX_S)
        return delay_s
