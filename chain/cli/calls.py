"""What verbs that talk to a node share: which node, whose key, and how a refusal is told."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from assay.v1 import node_pb2, transactions_pb2
from chain.addresses import parse_account, parse_id
from chain.cli.output import EXIT_USAGE, fail
from chain.client import NodeClient, NodeUnavailableError
from chain.dapp.nodes import NODES_MAX
from chain.devnet import DevnetError, load_devnet
from chain.genesis import Genesis, GenesisError, load
from chain.keys import KeyPair, Role
from chain.keystore import KeystoreError, load_key, read_passphrase
from chain.rejections import Rejection, RejectionReason

T = TypeVar("T")

NodeOption = Annotated[
    str, typer.Option("--node", help="HOST:PORT of a node's public gRPC.", show_default=False)
]
NodesOption = Annotated[
    list[str] | None,
    typer.Option("--node", help="HOST:PORT of a node's public gRPC; more to fail over to."),
]
HomeOption = Annotated[
    Path | None, typer.Option("--home", help="A devnet's home: its nodes, keys and genesis.")
]
KeyOption = Annotated[Path | None, typer.Option("--key", help="Key file of the paying account.")]
PassphraseOption = Annotated[
    Path | None, typer.Option("--passphrase-file", help="File with the key's passphrase.")
]
TimeoutOption = Annotated[float, typer.Option("--timeout", help="Seconds to wait for it.")]
AccountOption = Annotated[
    str,
    typer.Option(
        "--account", help="The account that pays, if --key is a session key of it (assay1… or hex)."
    ),
]


@dataclass(frozen=True, slots=True)
class Target:
    """A node, and what a devnet's home adds to it."""

    node: str
    key: Path | None
    passphrase_file: Path | None
    genesis: Path | None


def resolve(
    as_json: bool,
    home: Path | None,
    node: str,
    key: Path | None = None,
    passphrase_file: Path | None = None,
    genesis: Path | None = None,
) -> Target:
    """Which node and key a verb means; a devnet's home supplies what is not given."""
    if home is not None:
        try:
            devnet = load_devnet(home)
        except DevnetError as error:
            fail(as_json, "NO_DEVNET", str(error))
        return Target(
            node or devnet.nodes[0].public,
            key or home / devnet.user_key,
            passphrase_file or home / devnet.user_passphrase,
            genesis or home / devnet.genesis,
        )
    if not node:
        fail(
            as_json, "NO_NODE", "name a node with --node HOST:PORT, or a devnet with --home DIR", 2
        )
    return Target(node, key, passphrase_file, genesis)


def resolve_nodes(
    as_json: bool,
    home: Path | None,
    nodes: Sequence[str] | None,
    key: Path | None = None,
    passphrase_file: Path | None = None,
    genesis: Path | None = None,
) -> tuple[Target, tuple[str, ...]]:
    """The same for a verb that goes on with another node if one fails: those that are named, each
    once, or all of the devnet."""
    named = tuple(dict.fromkeys(address for item in nodes or () for address in item.split(",")))
    target = resolve(as_json, home, named[0] if named else "", key, passphrase_file, genesis)
    if home is not None and not named:
        named = tuple(item.public for item in load_devnet(home).nodes)
    if len(named) > NODES_MAX:
        fail(as_json, "USAGE", f"{len(named)} nodes are named, at most {NODES_MAX} are asked", 2)
    return target, named


def open_key(as_json: bool, target: Target) -> KeyPair:
    """The paying account's key."""
    if target.key is None:
        fail(as_json, "NO_KEY", "name the paying account with --key FILE", 2)
    try:
        passphrase = read_passphrase(target.passphrase_file)
        return load_key(target.key, passphrase, Role.ACCOUNT)
    except KeystoreError as error:
        fail(as_json, "BAD_KEY", str(error))


def parse_key(as_json: bool, text: str) -> bytes:
    """An account or another key as people write it; empty if there is no text."""
    if not text:
        return b""
    try:
        return parse_account(text)
    except Rejection as rejection:
        fail(as_json, rejection.reason.value, rejection.detail)


def parse_job(as_json: bool, text: str) -> bytes:
    """A job id as people write it."""
    try:
        return parse_id(text)
    except Rejection as rejection:
        fail(as_json, rejection.reason.value, rejection.detail, EXIT_USAGE)


async def named_job(as_json: bool, client: NodeClient, job: str) -> node_pb2.JobView:
    """The job with this id, or the newest. Raises Rejection."""
    if job != "latest":
        return await client.job(parse_job(as_json, job))
    jobs = await client.jobs(1)
    if not jobs:
        raise Rejection(RejectionReason.UNKNOWN_JOB, "no job yet")
    return jobs[0]


def open_genesis(as_json: bool, target: Target) -> Genesis | None:
    """The genesis to check receipts against, if one is named."""
    if target.genesis is None:
        return None
    try:
        return load(target.genesis)
    except GenesisError as error:
        fail(as_json, "BAD_GENESIS", str(error))


def call_node(address: str, as_json: bool, function: Callable[[NodeClient], Awaitable[T]]) -> T:
    """Run calls against one node; a refusal ends the command with its reason."""

    async def run() -> T:
        async with NodeClient(address) as client:
            return await function(client)

    return run_calls(as_json, run)


def run_calls(as_json: bool, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run calls; a refusal, or that no node answers, ends the command with its reason."""
    try:
        return asyncio.run(function())
    except Rejection as rejection:
        fail(as_json, rejection.reason.value, rejection.detail)
    except NodeUnavailableError as error:
        fail(as_json, "NODE_UNAVAILABLE", str(error))


def send(
    as_json: bool,
    target: Target,
    key: KeyPair,
    operations: Sequence[transactions_pb2.Op],
    timeout_s: float,
    account: bytes = b"",
) -> node_pb2.TransactionStatus:
    """Sign operations, submit them, and wait until that is final; a refusal ends the command."""

    async def run(client: NodeClient) -> node_pb2.TransactionStatus:
        signed = await client.sign(key, operations, account=account)
        return await client.wait(await client.submit(signed), timeout_s)

    status = call_node(target.node, as_json, run)
    if not status.accepted:
        fail(as_json, status.reason, f"transaction {status.id.hex()} failed at {status.height}")
    return status


def outcome_value(status: node_pb2.TransactionStatus) -> dict[str, str | int]:
    """An accepted transaction as JSON shows it."""
    return {"transaction": status.id.hex(), "height": status.height, "fee": status.fee}
