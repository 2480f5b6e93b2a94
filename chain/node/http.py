"""The node's small HTTP server: metrics, liveness, readiness, and whatever pages are mounted.

It runs on the node's event loop, with few connections at a time: what it serves must be cheap, or
work on a thread. It only reads; whoever may read the chain may read all of it.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Final

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from chain.http_connections import BoundedConnection
from chain.listening import listen_address, open_socket
from chain.node.health import Finding, judge
from chain.node.metrics import NodeMetrics
from chain.node.node import Node

CONNECTIONS_MAX: Final = 128
IDLE_S: Final = 15
STOP_WITHIN_S: Final = 2
HEADER_BYTES_MAX: Final = 16 * 1024
BACKLOG: Final = 64

logger = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """The node minds signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


def build_app(metrics: NodeMetrics, pages: Sequence[BaseRoute] = ()) -> Starlette:
    """The server's own routes, and behind them `pages`: routes and mounts, `/` among them."""

    async def show_metrics(_: Request) -> Response:
        return Response(await metrics.render(), media_type=CONTENT_TYPE_LATEST)

    async def show_live(_: Request) -> Response:
        health = judge(await metrics.standing())
        return _verdict("alive", health.unlivable)

    async def show_ready(_: Request) -> Response:
        health = judge(await metrics.standing())
        return _verdict("ready", (*health.unlivable, *health.unready), health.notes)

    return Starlette(
        routes=[
            Route("/metrics", show_metrics),
            Route("/livez", show_live),
            Route("/readyz", show_ready),
            *pages,
        ]
    )


def _verdict(word: str, against: Sequence[Finding], notes: Sequence[Finding] = ()) -> JSONResponse:
    body = {
        word: not against,
        "reasons": [asdict(finding) for finding in against],
        "notes": [asdict(finding) for finding in notes],
    }
    return JSONResponse(body, status_code=503 if against else 200)


def open_pages(address: str) -> socket.socket:
    """A listening socket on HOST:PORT. Raises OSError, AddressFault."""
    return open_socket(*listen_address(address), backlog=BACKLOG)


@asynccontextmanager
async def serving(
    node: Node, listening: socket.socket, pages: Sequence[BaseRoute] = ()
) -> AsyncIterator[None]:
    """Serve a node's HTTP while the context lasts."""
    metrics = NodeMetrics(node)
    config = uvicorn.Config(
        build_app(metrics, pages),
        http=BoundedConnection,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=STOP_WITHIN_S,
        h11_max_incomplete_event_size=HEADER_BYTES_MAX,
    )
    server = _Server(config)
    tasks = [
        asyncio.create_task(server.serve(sockets=[listening])),
        asyncio.create_task(metrics.watch_loop()),
    ]
    logger.info("http://%s:%d serves /metrics, /livez, /readyz", *listening.getsockname()[:2])
    try:
        yield
    finally:
        server.should_exit = True
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
