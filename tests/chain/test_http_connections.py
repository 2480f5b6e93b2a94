"""Whoever holds a connection without asking, or without reading, does not keep it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from chain.http_connections import BoundedConnection

PIECE = bytes(256 << 10)
SLOW_S = 60.0
CONNECTIONS_MAX = 8


class Impatient(BoundedConnection):
    look_s = 0.1


async def small(_: Request) -> Response:
    return PlainTextResponse("x")


async def late(_: Request) -> Response:
    await asyncio.sleep(10 * Impatient.look_s)
    return PlainTextResponse("late")


async def endless(_: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0)  # so that it can be ended
            yield PIECE

    return StreamingResponse(pieces())


async def large(_: Request) -> Response:
    return Response(PIECE * 64)


@pytest.fixture
async def address() -> AsyncIterator[tuple[str, int]]:
    routes = [Route(f"/{handler.__name__}", handler) for handler in (small, late, endless, large)]
    config = uvicorn.Config(
        Starlette(routes=routes),
        http=Impatient,
        ws="none",
        lifespan="off",
        log_config=None,
        limit_concurrency=CONNECTIONS_MAX,
    )
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    yield listening.getsockname()
    server.should_exit = True
    await serving


async def until_over(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the server hangs up."""
    read = bytearray()
    async with asyncio.timeout(SLOW_S):
        with contextlib.suppress(ConnectionResetError):
            while data := await reader.read(1 << 16):
                read += data
    return bytes(read)


@pytest.mark.parametrize("sent", [b"", b"GET /small HTTP/1.1\r\nHost: x\r\n"])
async def test_a_connection_without_a_whole_request_ends(
    address: tuple[str, int], sent: bytes
) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(sent)
    assert await until_over(reader) == b""
    writer.close()


async def test_a_connection_that_asks_no_second_time_ends_whatever_it_dribbles(
    address: tuple[str, int],
) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /small HTTP/1.1\r\nHost: x\r\n\r\nGET /small HTTP/1.1\r\n")
    assert (await until_over(reader)).count(b"200 OK") == 1
    writer.close()


async def test_an_answer_may_take_its_time(address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await until_over(reader)).endswith(b"late")
    writer.close()


@pytest.mark.parametrize("path", [b"endless", b"large"])
async def test_who_does_not_read_an_answer_loses_the_connection(
    address: tuple[str, int], path: bytes
) -> None:
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(reader, address)
        await loop.sock_sendall(reader, b"GET /" + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(SLOW_S):
            while True:  # sends nothing that matters: a reset shows that the server is gone
                await asyncio.sleep(0.05)
                try:
                    reader.send(b"x")
                except (ConnectionResetError, BrokenPipeError):
                    break


async def test_who_reads_on_gets_all_of_it(address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"200 OK" in head
    assert await reader.readexactly(64 * len(PIECE)) == PIECE * 64
    writer.close()


async def test_connections_that_ask_for_nothing_make_room_for_one_that_does(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Impatient, "look_s", SLOW_S)
    idle = [await asyncio.open_connection(*address) for _ in range(2 * CONNECTIONS_MAX)]
    asking, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"200 OK" in await until_over(asking)
    for _, one in (*idle, (asking, writer)):
        one.close()
