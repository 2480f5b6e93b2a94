"""Four validators as processes, and what may befall one of them."""

import asyncio
import enum
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chain.client import NodeClient, NodeUnavailableError
from chain.devnet import start_node
from tests.e2e.network import COMMAND_BOUND_S, POLL_S, Network, kill, record_node, until
from tests.faults.links import Links

CALL_WITHIN_S = 5.0
BEHIND_BLOCKS_MAX = 3
"""Who lags no more than this behind the others follows the chain."""


class Fault(enum.StrEnum):
    """What befalls a validator."""

    KILL = "kill"
    """SIGKILL; its end is a restart."""
    STOP = "stop"
    """SIGSTOP; its end is SIGCONT."""
    CUT = "cut"
    """No byte to or from its peers; clients reach it."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running network, its links, and a client of each node."""

    network: Network
    links: Links
    clients: list[NodeClient]

    def begin(self, fault: Fault, validator: int) -> None:
        """Let it happen."""
        record = self.network.nodes[validator].process
        assert record is not None
        if fault is Fault.KILL:
            kill(record)
        elif fault is Fault.STOP:
            os.kill(record.pid, signal.SIGSTOP)
        else:
            self.links.cut(validator)

    def end(self, fault: Fault, validator: int) -> None:
        """Let it be over."""
        node = self.network.nodes[validator]
        if fault is Fault.KILL:
            record_node(self.network, start_node(self.network.home, node))
        elif fault is Fault.STOP:
            assert node.process is not None
            os.kill(node.process.pid, signal.SIGCONT)
        else:
            self.links.heal(validator)

    async def height(self, *without: int) -> int:
        """The highest final block that any node, but for some, has executed."""
        clients = [client for index, client in enumerate(self.clients) if index not in without]
        statuses = await asyncio.gather(*(client.status() for client in clients))
        return max(status.height for status in statuses)

    async def grows(self, blocks: int, *without: int) -> None:
        """Return when the chain, as some see it, is so many blocks longer."""
        goal = await self.height(*without) + blocks

        async def grown() -> bool:
            return await self.height(*without) >= goal

        await until(grown)

    async def rejoined(self, validator: int) -> float:
        """Seconds until a validator votes, and follows the others."""
        began_s = time.monotonic()

        async def follows() -> bool:
            status = await self.clients[validator].status(CALL_WITHIN_S)
            others = await self.height(validator)
            return status.voting and status.height >= others - BEHIND_BLOCKS_MAX

        await until(follows)
        return time.monotonic() - began_s


@asynccontextmanager
async def linked(network: Network) -> AsyncIterator[Links]:
    """The links of a network that does not run yet."""
    async with Links(len(network.nodes)).opened(network) as links:
        yield links


@asynccontextmanager
async def watched(network: Network, links: Links) -> AsyncIterator[Cluster]:
    """A network that runs, once every node follows the chain."""
    clients = [NodeClient(node.public, CALL_WITHIN_S) for node in network.nodes]
    cluster = Cluster(network, links, clients)
    try:
        for client in clients:
            await until_answering(client)
        yield cluster
    finally:
        await asyncio.gather(*(client.__aexit__(None, None, None) for client in clients))


async def until_answering(client: NodeClient) -> None:
    """Return when a node says where it stands."""
    async with asyncio.timeout(COMMAND_BOUND_S):
        while True:
            try:
                await client.status(CALL_WITHIN_S)
                return
            except NodeUnavailableError:
                await asyncio.sleep(POLL_S)
