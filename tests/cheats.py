"""Runtimes that cheat: each forwards to an honest runtime, and tampers with Generate.

    python -m tests.cheats --upstream HOST:PORT --cheat tokens --port-file FILE

- tokens: one output token is another one, in the stream and in the result alike.
- seed: generated with a seed of the provider's own choice.
- model: generated with other sampling (greedy, or hot if greedy was asked), or by `--other-model`.
- silent: Generate never answers.
- slander: Verify finds every result false, until `--truth-file` exists. Generate is honest.

All else is forwarded honestly: a cheating provider is judged by others.
"""

import argparse
import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, cast

import grpc
from grpc_health.v1 import health_pb2_grpc

from assay.v1 import runtime_pb2, runtime_pb2_grpc

HOT_TEMPERATURE_MILLI = 2_000
ReplyT = TypeVar("ReplyT")
Context = grpc.aio.ServicerContext[Any, Any]


class Cheat(StrEnum):
    TOKENS = "tokens"
    SEED = "seed"
    MODEL = "model"
    SILENT = "silent"
    SLANDER = "slander"


def _left_s(context: Context) -> float | None:
    return cast("float | None", context.time_remaining())


async def _pass_on(error: grpc.aio.AioRpcError, context: Context) -> None:
    trailers = tuple(error.trailing_metadata() or ())
    await context.abort(error.code(), error.details() or "", trailers)


class ForwardedHealth(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """The upstream's health."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = health_pb2_grpc.HealthStub(channel)

    async def Check(self, request: Any, context: Context) -> Any:  # noqa: N802
        try:
            return await self._stub.Check(request, timeout=_left_s(context))
        except grpc.aio.AioRpcError as error:
            await _pass_on(error, context)


class CheatingRuntime(runtime_pb2_grpc.RuntimeServicer):
    """Forwards to an honest runtime, and tampers with what it generates."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        cheat: Cheat,
        other_model: bytes | None = None,
        truth_file: Path | None = None,
    ) -> None:
        self._stub = runtime_pb2_grpc.RuntimeStub(channel)
        self._truth_file = truth_file
        self._cheat = cheat
        self._other_model = other_model

    async def Generate(  # noqa: N802
        self, request: runtime_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[runtime_pb2.GenerateReply]:
        if self._cheat is Cheat.SILENT:
            await asyncio.Event().wait()
        asked = self._asked(request)
        vocabulary = await self._vocabulary(asked.model)
        first = True
        call = self._stub.Generate(asked, timeout=_left_s(context))
        try:
            async for reply in call:
                if self._cheat is Cheat.TOKENS:
                    if reply.HasField("finished"):
                        _change_first(reply.finished.token_ids, vocabulary)
                    elif first and reply.chunk.token_ids:
                        _change_first(reply.chunk.token_ids, vocabulary)
                        first = False
                yield reply
        except grpc.aio.AioRpcError as error:
            await _pass_on(error, context)
        finally:
            call.cancel()

    async def Verify(  # noqa: N802
        self, request: runtime_pb2.VerifyRequest, context: Context
    ) -> runtime_pb2.VerifyReply:
        reply: runtime_pb2.VerifyReply = await self._forward(self._stub.Verify, request, context)
        truthful = self._truth_file is not None and self._truth_file.exists()
        if self._cheat is Cheat.SLANDER and not truthful:
            reply.scores.replay_mismatches = reply.scores.positions
        return reply

    async def Tokenize(  # noqa: N802
        self, request: runtime_pb2.TokenizeRequest, context: Context
    ) -> runtime_pb2.TokenizeReply:
        return await self._forward(self._stub.Tokenize, request, context)

    async def Models(  # noqa: N802
        self, request: runtime_pb2.ModelsRequest, context: Context
    ) -> runtime_pb2.ModelsReply:
        return await self._forward(self._stub.Models, request, context)

    async def _forward(
        self, method: Callable[..., Awaitable[ReplyT]], request: object, context: Context
    ) -> ReplyT:
        try:
            return await method(request, timeout=_left_s(context))
        except grpc.aio.AioRpcError as error:
            await _pass_on(error, context)
            raise

    async def _vocabulary(self, model: bytes) -> int:
        models = (await self._stub.Models(runtime_pb2.ModelsRequest())).models
        return next((info.vocabulary for info in models if info.model == model), 1)

    def _asked(self, request: runtime_pb2.GenerateRequest) -> runtime_pb2.GenerateRequest:
        """What the upstream is asked instead of what the caller asked for."""
        asked = runtime_pb2.GenerateRequest()
        asked.CopyFrom(request)
        if self._cheat is Cheat.SEED:
            asked.seed = bytes(byte ^ 0xFF for byte in request.seed)
        elif self._cheat is Cheat.MODEL and self._other_model is not None:
            asked.model = self._other_model
        elif self._cheat is Cheat.MODEL:
            greedy = request.sampling.temperature_milli == 0
            asked.sampling.temperature_milli = HOT_TEMPERATURE_MILLI if greedy else 0
        return asked


def _change_first(token_ids: Any, vocabulary: int) -> None:
    if token_ids:
        token_ids[0] = (token_ids[0] + 1) % vocabulary


async def start_cheat(
    upstream: str,
    cheat: Cheat,
    listen: str = "127.0.0.1:0",
    other_model: bytes | None = None,
    truth_file: Path | None = None,
) -> tuple[grpc.aio.Server, grpc.aio.Channel, int]:
    """Start a cheating runtime in this process; the caller stops the server, closes the channel."""
    channel = grpc.aio.insecure_channel(upstream)
    server = grpc.aio.server()
    runtime_pb2_grpc.add_RuntimeServicer_to_server(
        CheatingRuntime(channel, cheat, other_model, truth_file), server
    )
    health_pb2_grpc.add_HealthServicer_to_server(ForwardedHealth(channel), server)
    port = server.add_insecure_port(listen)
    await server.start()
    return server, channel, port


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    other_model = bytes.fromhex(arguments.other_model) if arguments.other_model else None
    server, channel, port = await start_cheat(
        arguments.upstream,
        Cheat(arguments.cheat),
        arguments.listen,
        other_model,
        arguments.truth_file,
    )
    if arguments.port_file is not None:
        part = arguments.port_file.with_name(f"{arguments.port_file.name}.{os.getpid()}.part")
        part.write_text(f"{port}\n")
        part.replace(arguments.port_file)
    print(f"cheating ({arguments.cheat}) on port {port}", flush=True)
    await stop.wait()
    await server.stop(0)
    await channel.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--upstream", required=True, help="HOST:PORT of an honest runtime")
    parser.add_argument("--cheat", required=True, choices=[cheat.value for cheat in Cheat])
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--port-file", type=Path)
    parser.add_argument("--truth-file", type=Path, help="once it exists, slander ends")
    parser.add_argument("--other-model", help="hex id of another model the upstream serves")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
