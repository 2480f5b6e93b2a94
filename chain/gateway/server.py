"""The gateway as a process: sockets, signals, and the order in which things start and stop."""

import asyncio
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn

from chain.dapp.nodes import Nodes
from chain.gateway.access import Access, AccessFile
from chain.gateway.app import Gateway, GatewaySettings
from chain.gateway.book import Book
from chain.gateway.purchases import PurchaseLimits, Purchases
from chain.genesis import Genesis
from chain.http_connections import BoundedConnection
from chain.listening import open_socket

CONNECTIONS_A_JOB: Final = 4
"""Connections for each purchase that may be under way: retries, receipts, health."""
IDLE_S: Final = 30
STOP_WITHIN_S: Final = 5
HEADER_BYTES_MAX: Final = 32 * 1024
BACKLOG: Final = 128


@dataclass(frozen=True, slots=True)
class GatewayPlan:
    """What `assay gateway` was asked for."""

    nodes: Sequence[str]
    access: Access | AccessFile
    """Who may ask; a file is read anew when it changes."""
    genesis: Genesis | None = None
    """Receipts are checked against it, and nodes of other chains are not asked."""
    book: Path | None = None
    """None: in memory, forgotten at the end."""
    settings: GatewaySettings = field(default_factory=GatewaySettings)
    limits: PurchaseLimits = field(default_factory=PurchaseLimits)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError."""
    return open_socket(host, port, BACKLOG)


class _Server(uvicorn.Server):
    """uvicorn's own raises the signal again when it has served, and the process would end by it
    before the book and the nodes are closed."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; a second Ctrl-C does not wait for open connections."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


async def serve(
    plan: GatewayPlan,
    listening: socket.socket,
    started: Callable[[uvicorn.Server], None] = lambda server: None,
) -> None:
    """Serve until a signal, or until `should_exit` of the server that `started` was given.

    Raises BookError.
    """
    digest = b"" if plan.genesis is None else plan.genesis.digest()
    with Book(plan.book) as book:
        async with Nodes(plan.nodes, digest) as nodes, _followed(plan.access) as access:
            purchases = Purchases(nodes, book, plan.limits, plan.genesis)
            gateway = Gateway(nodes, purchases, access, plan.settings)
            config = uvicorn.Config(
                gateway.app(),
                http=BoundedConnection,
                ws="none",
                lifespan="on",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=plan.limits.jobs_max * CONNECTIONS_A_JOB,
                timeout_keep_alive=IDLE_S,
                timeout_graceful_shutdown=STOP_WITHIN_S,
                h11_max_incomplete_event_size=HEADER_BYTES_MAX,
            )
            server = _Server(config)
            started(server)
            await server.serve(sockets=[listening])


@asynccontextmanager
async def _followed(access: Access | AccessFile) -> AsyncGenerator[Access]:
    if isinstance(access, Access):
        yield access
        return
    following = asyncio.create_task(access.follow())
    try:
        yield access.access
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
