"""The process of `assay node start`: the public server round a node, signals, health, logs."""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from chain import genesis as genesis_file
from chain.explorer.routes import explored
from chain.genesis import Genesis, GenesisError
from chain.listening import told, why_not
from chain.node.config import ConfigError, NodeConfig, load_config
from chain.node.http import open_pages, serving
from chain.node.node import Node
from chain.node.recovery import VOTES_FOLDER
from chain.node.services import add_services
from chain.node.signer import NodeKeys, load_keys
from chain.node.unreadable import RefuseUnreadable
from chain.rollback import put_back
from chain.snapshot_install import take_place
from chain.store import StoreError
from consensus.wal import FileDirectory, WalLocked

MESSAGE_BYTES_MAX = 8 * 1024 * 1024
STOP_GRACE_S = 2.0

logger = logging.getLogger(__name__)

_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.so_reuseport", 0),
]


class StartError(Exception):
    """The node can't start. The message says why and what to do."""


def run_node(home: Path) -> None:
    """Run a validator until SIGTERM or SIGINT. Raises StartError."""
    try:
        config = load_config(home)
        genesis = genesis_file.load(config.genesis)
        keys = load_keys(config.keys, genesis, config.validator)
    except (ConfigError, GenesisError) as error:
        raise StartError(str(error)) from error
    while uvloop.run(_serve(config, genesis, keys)):
        logger.info("a snapshot takes the place of the store")


def _put_store_in_place(config: NodeConfig, genesis: Genesis) -> None:
    """What a fetched snapshot or a rollback left to do. Raises StoreError, OSError, and WalLocked
    if a process is at work in this home: what looks like a leftover is then its own."""
    config.data.mkdir(parents=True, exist_ok=True)
    votes = FileDirectory(config.data / VOTES_FOLDER)
    try:
        put_back(config.data)
        take_place(config.data, genesis, config.validator)
    finally:
        votes.close()


async def _serve(config: NodeConfig, genesis: Genesis, keys: NodeKeys) -> bool:
    """Run the node until it ends; whether it must be started anew, on a store that was fetched."""
    try:
        _put_store_in_place(config, genesis)
        node = Node(config, genesis, keys)
    except (StoreError, WalLocked, OSError) as error:
        raise StartError(str(error)) from error
    server = grpc.aio.server(interceptors=(RefuseUnreadable(node.meter.refusal),), options=_OPTIONS)
    names = add_services(server, node)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection(
        (*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    _listen(server, config.public_listen)
    http = _listen_http(config.http.listen)
    running = asyncio.create_task(node.run())
    _stop_on_signals(running)
    await server.start()
    logger.info(
        "validator %d of %s: public %s", config.validator, genesis.chain_id, config.public_listen
    )
    for name in ("", *names):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        async with _pages(node, http) if http is not None else nullcontext():
            await running
    except asyncio.CancelledError:
        logger.info("stopping")
    except OSError as error:
        raise StartError(str(error)) from error
    finally:
        await checks.enter_graceful_shutdown()
        await server.stop(STOP_GRACE_S)
    return node.must_restart


@asynccontextmanager
async def _pages(node: Node, listening: socket.socket) -> AsyncIterator[None]:
    """The node's HTTP, the explorer with it, while the context lasts."""
    async with explored(node) as pages, serving(node, listening, pages):
        yield


def _listen(server: grpc.aio.Server, address: str) -> None:
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartError(_taken(address, why_not(address))) from error
    if port == 0:
        raise StartError(_taken(address, why_not(address)))


def _listen_http(address: str) -> socket.socket | None:
    if not address:
        return None
    try:
        return open_pages(address)
    except OSError as error:
        raise StartError(_taken(address, told(error), "listen in [http]")) from error


def _taken(address: str, why: str, setting: str = "public_listen") -> str:
    return (
        f"cannot listen on {address}: {why}; stop another process that has the port, or change "
        f"{setting} of node.toml"
    )


def _stop_on_signals(task: "asyncio.Task[None]") -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
