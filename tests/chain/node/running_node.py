"""A real validator in this process, alone in its network, behind a real gRPC server."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc

from chain.client import NodeClient
from chain.genesis import Genesis, make_genesis
from chain.node.config import NodeConfig
from chain.node.node import Node
from chain.node.server import MESSAGE_BYTES_MAX
from chain.node.services import add_services
from chain.node.signer import NodeKeys
from chain.node.unreadable import RefuseUnreadable
from chain.parameters import GRAIN_PER_ASY, Parameters
from tests.builders import genesis_validator, key, tls_identity

RICH = 1_000 * GRAIN_PER_ASY
CALL_BOUND_S = 60.0
"""The node shares its event loop with the test, and the machine with other tests."""


def solitary_genesis(*accounts: str, validators: int = 1) -> Genesis:
    """A chain of one validator, or of more that are not running; each named account is rich."""
    return make_genesis(
        name="alone",
        genesis_time_ms=1_750_000_000_000,
        parameters=Parameters(),
        validators=tuple(
            replace(genesis_validator(index), address=f"127.0.0.1:{_free_port()}")
            for index in range(validators)
        ),
        balances={key(name).public_key: RICH for name in accounts},
        treasury=key("treasury").public_key,
    )


@asynccontextmanager
async def running_node(
    folder: Path, genesis: Genesis, **settings: object
) -> AsyncIterator[tuple[Node, NodeClient]]:
    """The node, and a client of its public port."""
    folder.mkdir(exist_ok=True)
    config = NodeConfig.model_validate({"validator": 0, "data": folder, **settings})
    keys = NodeKeys(key("signing-0"), key("vrf-0"), key("account-0"), tls_identity(0))
    node = Node(config, genesis, keys)
    options = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ]
    server = grpc.aio.server(interceptors=(RefuseUnreadable(node.meter.refusal),), options=options)
    add_services(server, node)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    running = asyncio.create_task(node.run())
    try:
        async with NodeClient(f"127.0.0.1:{port}", CALL_BOUND_S) as client:
            yield node, client
            if running.done():
                await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop(None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
