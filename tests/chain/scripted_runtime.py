"""A runtime that says what it is told to say, and the honest things it says by default."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2, health_pb2_grpc

from assay.v1 import inference_pb2, runtime_pb2, runtime_pb2_grpc
from chain.runtime_client import RUNTIME_ERROR_DOMAIN, STATUS_DETAILS_KEY
from tests.runtime.serving import LOOPBACK

MODEL = bytes(range(32))
HANG_S = 60.0
REQUEST = runtime_pb2.GenerateRequest(
    model=MODEL,
    input=inference_pb2.InferenceInput(text="x"),
    sampling=inference_pb2.Sampling(max_output_tokens=4),
    seed=bytes(32),
)
CLAIM = inference_pb2.InferenceResult(
    token_ids=[1, 2, 3],
    logprobs=[-1, -2, 0],
    finish_reason=inference_pb2.FINISH_REASON_LENGTH,
    input_tokens=1,
    text="abc",
    engine_profile="exact",
)
INFO = runtime_pb2.ModelInfo(
    model=MODEL, name="m", engine_profile="exact", context_tokens=16, vocabulary=10
)


def honest_replies() -> list[runtime_pb2.GenerateReply]:
    """Started, two chunks, a rest of text, finished."""
    reply = runtime_pb2.GenerateReply
    return [
        reply(started=reply.Started(input_tokens=1, engine_profile="exact")),
        reply(chunk=reply.Chunk(token_ids=[1, 2], logprobs=[-1, -2], text="a")),
        reply(chunk=reply.Chunk(token_ids=[3], logprobs=[0], text="b")),
        reply(chunk=reply.Chunk(text="c")),
        reply(finished=CLAIM),
    ]


def honest_verification() -> runtime_pb2.VerifyReply:
    scores = inference_pb2.Scores(
        positions=3, input_tokens=1, finish_plausible=True, text_matches=True
    )
    return runtime_pb2.VerifyReply(scores=scores, fingerprint=[-5], engine_profile="exact")


class ScriptedRuntime(runtime_pb2_grpc.RuntimeServicer, health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Says what it is told to say."""

    def __init__(self) -> None:
        self.replies = honest_replies()
        self.verification = honest_verification()
        self.models = [INFO]
        self.token_ids = [1, 2]
        self.silent = False
        """It takes requests and never answers them, while its health is well."""
        self.hung = False
        """It answers nothing at all."""
        self.healthy = True
        self.probes = 0
        self.late_probes = 0
        """So many of the next probes are not answered."""
        self.unavailable = 0
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.silent_after = -1
        """Generate stops after so many replies."""
        self.calls = 0
        self.under_way = 0
        self._free = asyncio.Event()
        self._free.set()

    def hold(self) -> None:
        """Take requests, and answer them at `release`."""
        self._free.clear()

    def release(self) -> None:
        self._free.set()

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        await self._answer(context)
        for number, reply in enumerate(self.replies):
            if number == self.silent_after:
                await asyncio.sleep(HANG_S)
            yield reply

    async def Verify(self, request: Any, context: Any) -> runtime_pb2.VerifyReply:  # noqa: N802
        await self._answer(context)
        return self.verification

    async def Tokenize(self, request: Any, context: Any) -> runtime_pb2.TokenizeReply:  # noqa: N802
        return runtime_pb2.TokenizeReply(token_ids=self.token_ids)

    async def Models(self, request: Any, context: Any) -> runtime_pb2.ModelsReply:  # noqa: N802
        await self._hang()
        return runtime_pb2.ModelsReply(models=self.models)

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.probes += 1
        await self._hang()
        if self.late_probes:
            self.late_probes -= 1
            await asyncio.sleep(HANG_S)
        status = health_pb2.HealthCheckResponse.ServingStatus
        value = status.SERVING if self.healthy else status.NOT_SERVING
        return health_pb2.HealthCheckResponse(status=value)

    async def _hang(self) -> None:
        while self.hung:
            await asyncio.sleep(0.01)

    async def _answer(self, context: Any) -> None:
        self.calls += 1
        self.under_way += 1
        try:
            await self._hang()
            await self._free.wait()
            if self.unavailable:
                self.unavailable -= 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
            if self.refusal is not None:
                await _refuse(context, *self.refusal)
            if self.silent:
                await asyncio.sleep(HANG_S)
        finally:
            self.under_way -= 1


async def _refuse(context: Any, code: grpc.StatusCode, reason: str) -> None:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=RUNTIME_ERROR_DOMAIN))
    later = any_pb2.Any()
    later.Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=60)))
    details = [detail, later] if code is grpc.StatusCode.RESOURCE_EXHAUSTED else [detail]
    status = status_pb2.Status(code=code.value[0], message="scripted", details=details)
    trailers = ((STATUS_DETAILS_KEY, status.SerializeToString()),)
    await context.abort(code, "scripted", trailers)


async def start_scripted(scripted: ScriptedRuntime, port: int = 0) -> tuple[grpc.aio.Server, str]:
    """Start it and return its server and target."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    runtime_pb2_grpc.add_RuntimeServicer_to_server(scripted, server)
    health_pb2_grpc.add_HealthServicer_to_server(scripted, server)
    bound = server.add_insecure_port(f"{LOOPBACK}:{port}")
    await server.start()
    return server, f"{LOOPBACK}:{bound}"


@asynccontextmanager
async def serving_scripted(*runtimes: ScriptedRuntime) -> AsyncIterator[list[str]]:
    """Yield the targets of scripted runtimes."""
    started = [await start_scripted(scripted) for scripted in runtimes]
    try:
        yield [target for _, target in started]
    finally:
        await asyncio.gather(*(server.stop(0) for server, _ in started))


@asynccontextmanager
async def serving_bytes(data: bytes, models: bytes | None = None) -> AsyncIterator[str]:
    """Yield the target of a runtime that answers every call, but Models, with the same bytes."""

    async def one(request: Any, context: Any) -> bytes:
        return data

    async def list_models(request: Any, context: Any) -> bytes:
        return data if models is None else models

    async def stream(request: Any, context: Any) -> AsyncIterator[bytes]:
        yield data

    unary: Any = grpc.unary_unary_rpc_method_handler(one)
    calls = {name: unary for name in ("Verify", "Tokenize")}
    calls["Models"] = grpc.unary_unary_rpc_method_handler(list_models)
    calls["Generate"] = grpc.unary_stream_rpc_method_handler(stream)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("assay.runtime.v1.Runtime", calls),
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": unary}),
        )
    )
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    await server.start()
    try:
        yield f"{LOOPBACK}:{port}"
    finally:
        await server.stop(0)
