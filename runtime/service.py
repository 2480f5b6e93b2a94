"""The gRPC face of the runtime: Generate, Verify, Tokenize, Models, health and reflection.

Way of a request: message -> `requests` (checked values) -> `backend` (a model being served; it
queues, and has an engine do the work elsewhere) -> reply. The event loop only moves bytes.

Rules:
- A caller that goes away, or whose deadline passes, takes its work with it.
- Every request has an end: the caller's deadline or the service's wall-time limit, whichever is
  earlier.
- The status of a failed call carries google.rpc.ErrorInfo, and RetryInfo where waiting helps.
- Health answers SERVING only while tokens are produced (see `readiness`).
"""

import asyncio
import ipaddress
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from assay.v1 import runtime_pb2, runtime_pb2_grpc
from runtime import requests
from runtime.backend import Asked, Backend, Started
from runtime.engine import Completion, RequestError, Step
from runtime.readiness import Readiness, ReadinessBounds
from runtime.requests import Refusal, RefusalReason
from runtime.scheduler import (
    JobExpiredError,
    JobFailedError,
    QueueFullError,
    SchedulerStoppedError,
    Share,
    Workload,
)

SERVICE_NAME = runtime_pb2.DESCRIPTOR.services_by_name["Runtime"].full_name
OVERALL_HEALTH = ""
PROBES_RUNNING_MAX = 64
"""One probe an engine; a process does not hold more engines than this."""
TOKENIZE_RUNNING_LIMIT = 4
SPARE_CALLS = 256
"""Calls gRPC admits beyond those the queues hold: health, Models, and calls about to be refused."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """What one runtime takes on."""

    queue_limit: int = 64
    """Requests of one kind that may wait."""
    running_limit: int = 4
    """Generations, and verifications, that take turns; each holds a key-value cache."""
    wall_time_s: float = 600.0
    """No request takes longer than this, whatever its caller allows."""
    readiness: ReadinessBounds = field(default_factory=ReadinessBounds)

    def shares(self) -> dict[Workload, Share]:
        """The scheduler's bounds."""
        return {
            Workload.PROBE: Share(PROBES_RUNNING_MAX, 0),
            Workload.TOKENIZE: Share(TOKENIZE_RUNNING_LIMIT, self.queue_limit),
            Workload.VERIFY: Share(self.running_limit, self.queue_limit),
            Workload.GENERATE: Share(self.running_limit, self.queue_limit),
        }


@dataclass(frozen=True, slots=True)
class VerificationRequest:
    """A checked Verify request; the claim is as it came."""

    backend: Backend
    asked: Asked
    claim: Completion
    positions: tuple[int, ...]


def _chunk(steps: list[Step]) -> runtime_pb2.GenerateReply:
    return runtime_pb2.GenerateReply(
        chunk=runtime_pb2.GenerateReply.Chunk(
            token_ids=[step.token_id for step in steps],
            logprobs=[step.logprob for step in steps],
            text="".join(step.text for step in steps),
        )
    )


@asynccontextmanager
async def _told(context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
    """End the call with the status that belongs to what went wrong inside the block."""
    try:
        yield
        return
    except Refusal as error:
        refusal = error
    except RequestError as error:
        refusal = requests.engine_refusal(error)
    except QueueFullError as error:
        refusal = requests.queue_full(error)
    except JobExpiredError:
        refusal = Refusal(
            RefusalReason.DEADLINE_PASSED,
            "the request ran out of time",
            "its deadline, or the runtime's wall-time limit",
            "allow more time or ask for fewer tokens",
            grpc.StatusCode.DEADLINE_EXCEEDED,
        )
    except SchedulerStoppedError:
        refusal = Refusal(
            RefusalReason.STOPPING,
            "the runtime is stopping",
            "no new work",
            "use another runtime or try again later",
            grpc.StatusCode.UNAVAILABLE,
        )
    except JobFailedError as error:
        # Told to its caller in a word; what exactly was raised is for the operator's log.
        _log.exception("a request failed inside the engine")
        refusal = Refusal(
            RefusalReason.ENGINE_FAILED,
            f"the engine raised {type(error.__cause__).__name__}",
            "an answer",
            "report it with the runtime's log",
            grpc.StatusCode.INTERNAL,
        )
    await context.abort(refusal.code, str(refusal), requests.trailing_metadata(refusal))


class RuntimeService(runtime_pb2_grpc.RuntimeServicer):
    """Answers the calls of assay.runtime.v1.Runtime."""

    def __init__(self, backends: Mapping[bytes, Backend], limits: ServiceLimits) -> None:
        self._backends = dict(backends)
        self._limits = limits

    async def Generate(  # noqa: N802 - the name in the schema
        self,
        request: runtime_pb2.GenerateRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[runtime_pb2.GenerateReply]:
        """Stream Started, Chunks and the finished result."""
        async with _told(context):
            backend, asked = self._read_asked(request)
            sent_text = ""
            async with aclosing(backend.generate(asked, self._deadline_s(context))) as events:
                async for event in events:
                    match event:
                        case Started(input_tokens):
                            yield runtime_pb2.GenerateReply(
                                started=runtime_pb2.GenerateReply.Started(
                                    input_tokens=input_tokens, engine_profile=backend.profile
                                )
                            )
                        case Completion():
                            rest = event.text[len(sent_text) :]
                            if rest:
                                chunk = runtime_pb2.GenerateReply.Chunk(text=rest)
                                yield runtime_pb2.GenerateReply(chunk=chunk)
                            yield runtime_pb2.GenerateReply(finished=requests.write_result(event))
                        case steps:
                            reply = _chunk(steps)
                            sent_text += reply.chunk.text
                            yield reply

    async def Verify(  # noqa: N802 - the name in the schema
        self,
        request: runtime_pb2.VerifyRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> runtime_pb2.VerifyReply:
        """Score a claim."""
        async with _told(context):
            read = self._read_verification(request)
            return requests.write_verification(
                await read.backend.verify(
                    read.asked, read.claim, read.positions, self._deadline_s(context)
                )
            )
        raise AssertionError("a refused call was aborted above")

    async def Tokenize(  # noqa: N802 - the name in the schema
        self,
        request: runtime_pb2.TokenizeRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> runtime_pb2.TokenizeReply:
        """The ids of an input."""
        async with _told(context):
            backend = self._backend(request.model)
            asked = requests.read_input(request.input, backend.context_tokens)
            return runtime_pb2.TokenizeReply(
                token_ids=await backend.tokenize(asked, self._deadline_s(context))
            )
        raise AssertionError("a refused call was aborted above")

    async def Models(  # noqa: N802 - the name in the schema
        self,
        request: runtime_pb2.ModelsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> runtime_pb2.ModelsReply:
        """What this runtime serves, and how busy it is."""
        return runtime_pb2.ModelsReply(
            models=[self._info(model, backend) for model, backend in self._backends.items()]
        )

    def _info(self, model: bytes, backend: Backend) -> runtime_pb2.ModelInfo:
        manifest = backend.package.manifest
        loads = [backend.load(kind) for kind in (Workload.GENERATE, Workload.VERIFY)]
        return runtime_pb2.ModelInfo(
            model=model,
            name=manifest.name,
            architecture=manifest.architecture,
            engine_profile=backend.profile,
            context_tokens=backend.context_tokens,
            vocabulary=backend.vocabulary,
            parameters=manifest.parameters,
            queued=sum(load.waiting for load in loads),
            running=sum(load.running for load in loads),
            queue_limit=self._limits.queue_limit,
        )

    def _backend(self, model: bytes) -> Backend:
        backend = self._backends.get(requests.read_model_id(model))
        if backend is None:
            names = ", ".join(known.hex() for known in self._backends)
            raise Refusal(
                RefusalReason.UNKNOWN_MODEL,
                f"model {model.hex()}",
                f"this runtime serves {names}",
                "start it with this model's package or use another runtime",
                grpc.StatusCode.NOT_FOUND,
            )
        return backend

    def _read_asked(
        self, request: runtime_pb2.GenerateRequest | runtime_pb2.VerifyRequest
    ) -> tuple[Backend, Asked]:
        backend = self._backend(request.model)
        if not request.HasField("sampling"):
            requests.refuse(
                RefusalReason.MISSING_SAMPLING,
                "a request without sampling",
                "one with it",
                "set sampling, at least its max_output_tokens",
            )
        return backend, Asked(
            input=requests.read_input(request.input, backend.context_tokens),
            sampling=requests.read_sampling(request.sampling, backend.context_tokens),
            seed=requests.read_seed(request.seed),
        )

    def _read_verification(self, request: runtime_pb2.VerifyRequest) -> VerificationRequest:
        backend, asked = self._read_asked(request)
        if not request.HasField("claim"):
            requests.refuse(
                RefusalReason.MISSING_CLAIM,
                "a request without a claim",
                "one with it",
                "set claim to the result to be scored",
            )
        return VerificationRequest(
            backend=backend,
            asked=asked,
            claim=requests.read_claim(request.claim),
            positions=requests.read_positions(request.fingerprint_positions),
        )

    def _deadline_s(self, context: grpc.aio.ServicerContext[Any, Any]) -> float:
        # None when the caller set no deadline, whatever the type says.
        left_s = cast("float | None", context.time_remaining())
        limit_s = self._limits.wall_time_s
        return time.monotonic() + (limit_s if left_s is None else min(left_s, limit_s))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on this host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class RuntimeServer:
    """A runtime's whole server: models, calls, health, reflection. Starts and stops once."""

    def __init__(self, backends: Mapping[bytes, Backend], limits: ServiceLimits) -> None:
        self._limits = limits
        self._backends = dict(backends)
        self._readiness = Readiness(backends, limits.readiness)
        self._service = RuntimeService(backends, limits)
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._monitor: asyncio.Task[None] | None = None
        self._became_ready = asyncio.Event()
        self._died = asyncio.Event()
        self._serving: bool | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, begin the first probe, and return the port. Raises OSError if it is in use."""
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", requests.MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", requests.MAX_MESSAGE_BYTES),
                # Without this two runtimes could share a port, and callers would reach either.
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=SPARE_CALLS
            + sum(s.running_limit + s.queue_limit for s in self._limits.shares().values()),
        )
        runtime_pb2_grpc.add_RuntimeServicer_to_server(self._service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        reflection.enable_server_reflection(
            (SERVICE_NAME, health_name, reflection.SERVICE_NAME), server
        )
        try:
            bound_port = server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise OSError(f"cannot listen on {host}:{port}: {error}") from error
        if bound_port == 0:
            raise OSError(f"cannot listen on {host}:{port}: the port is in use")
        await self._show(False, "starting")
        for backend in self._backends.values():
            await backend.start()
        await server.start()
        self._server = server
        self._monitor = asyncio.create_task(self._watch_readiness())
        return bound_port

    async def wait_ready(self) -> None:
        """Return once every engine has produced a token."""
        await self._became_ready.wait()

    async def wait_dead(self) -> str:
        """Return why, once an engine has died for good; the process is of no more use."""
        await self._died.wait()
        return self._death()

    def _death(self) -> str:
        return next((why for b in self._backends.values() if (why := b.death())), "")

    async def stop(self, grace_s: float) -> None:
        """Turn health red, let calls under way finish for `grace_s`, then end what is left."""
        if self._monitor is not None:
            self._monitor.cancel()
            await asyncio.gather(self._monitor, return_exceptions=True)
        await self._health.enter_graceful_shutdown()
        if self._server is not None:
            await self._server.stop(grace_s)
        await self._readiness.close()
        for backend in self._backends.values():
            await backend.stop()

    async def _watch_readiness(self) -> None:
        while True:
            self._readiness.send_probes()
            trouble = self._readiness.trouble()
            await self._show(not trouble, trouble)
            if not trouble:
                self._became_ready.set()
            if self._death():
                self._died.set()
            await asyncio.sleep(self._limits.readiness.check_interval_s)

    async def _show(self, ready: bool, reason: str) -> None:
        if ready == self._serving:
            return
        starting, self._serving = self._serving is None, ready
        status = health_pb2.HealthCheckResponse.ServingStatus
        value = status.SERVING if ready else status.NOT_SERVING
        for name in (OVERALL_HEALTH, SERVICE_NAME):
            await self._health.set(name, value)
        if ready:
            _log.info("ready")
        elif not starting:
            _log.warning("not ready: %s", reason)
