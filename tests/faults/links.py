"""The network between validators as TCP links that can be cut: one proxy for each direction."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import permutations

from chain.node.config import edit_config
from tests.e2e.network import Network

CHUNK_BYTES = 65_536


class Links:
    """What goes from one validator to another passes through a gate of theirs.

    A cut drops nothing and refuses nothing: bytes stop, as behind a router that is gone, and the
    ends find out by their own timeouts. What was under way arrives when the gate opens, unless the
    connection was given up meanwhile.
    """

    def __init__(self, count: int) -> None:
        self._gates = {pair: asyncio.Event() for pair in permutations(range(count), 2)}
        for gate in self._gates.values():
            gate.set()
        self._carrying: set[asyncio.Task[None]] = set()
        """One for each connection."""

    def cut(self, validator: int) -> None:
        """Nothing goes to or from a validator."""
        for pair, gate in self._gates.items():
            if validator in pair:
                gate.clear()

    def heal(self, validator: int) -> None:
        """Join it again."""
        for pair, gate in self._gates.items():
            if validator in pair:
                gate.set()

    @asynccontextmanager
    async def opened(self, network: Network) -> AsyncIterator["Links"]:
        """Listen, and have every validator dial these links instead of its peers."""
        servers: list[asyncio.Server] = []
        dialled: dict[int, dict[str, str]] = {node.index: {} for node in network.nodes}
        try:
            for (sender, receiver), gate in self._gates.items():
                server = await self._listen(network.nodes[receiver].peer, gate)
                servers.append(server)
                port = server.sockets[0].getsockname()[1]
                dialled[sender][str(receiver)] = f"127.0.0.1:{port}"
            for node in network.nodes:
                edit_config(network.home / node.home, peer_addresses=dialled[node.index])
            yield self
        finally:
            for server in servers:
                server.close()
            carrying = list(self._carrying)
            for task in carrying:
                task.cancel()
            await asyncio.gather(*carrying, return_exceptions=True)

    async def _listen(self, target: str, gate: asyncio.Event) -> asyncio.Server:
        host, port = target.rsplit(":", 1)

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there = None
            try:
                await gate.wait()
                there_reader, there = await asyncio.open_connection(host, int(port))
                ways = (_pump(gate, reader, there), _pump(gate, there_reader, writer))
                await _first_of(*map(asyncio.ensure_future, ways))
            except OSError:
                return
            finally:
                writer.close()
                if there is not None:
                    there.close()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(carry(reader, writer))
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)

        return await asyncio.start_server(accept, "127.0.0.1", 0)


async def _first_of(*ways: asyncio.Future[None]) -> None:
    """Return when one has ended; the others end with it."""
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()


async def _pump(
    gate: asyncio.Event, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        while data := await reader.read(CHUNK_BYTES):
            await gate.wait()
            writer.write(data)
            await writer.drain()
    except OSError:
        return
