"""`assay mcp`: a chain's inference as tools for agents, over standard input and output."""

import asyncio
import functools
import inspect
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chain.agent_tools import FAILURES, AgentTools, told
from chain.cli.calls import (
    AccountOption,
    HomeOption,
    KeyOption,
    NodesOption,
    PassphraseOption,
    open_genesis,
    open_key,
    parse_key,
    resolve_nodes,
)
from chain.cli.output import fail
from chain.dapp.client import AsyncClient
from chain.rejections import Rejection, RejectionReason

if TYPE_CHECKING:
    from mcp.server import MCPServer
    from mcp.server.mcpserver import Context

INSTRUCTIONS = (
    "Asks language models on the Assay chain. Validators verify each answer; every answer has a "
    "receipt that verify_receipt checks. Asking costs money: see balance."
)


def command(
    node: NodesOption = None,
    home: HomeOption = None,
    key: KeyOption = None,
    passphrase_file: PassphraseOption = None,
    account: AccountOption = "",
    genesis: Annotated[
        Path | None, typer.Option("--genesis", help="Genesis to check every receipt against.")
    ] = None,
    uncapped: Annotated[
        bool, typer.Option("--uncapped", help="Spend the account of --key itself; no session key.")
    ] = False,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to a receipt.")] = 600.0,
) -> None:
    """Serve an MCP client: infer, verify_receipt, balance, job_status.

    Name the account with --account and give its session key with --key: an agent is told what to
    do by whatever it reads, and the chain bounds what that can cost.
    """
    if not 1 <= timeout <= 86_400:
        fail(True, "USAGE", f"--timeout is {timeout}, allowed are 1 to 86,400", 2)
    if bool(account) == uncapped:
        detail = (
            "name the account that pays with --account and a session key of it with --key (assay "
            "session grant makes one), or say --uncapped"
        )
        fail(True, "NO_SESSION", detail, 2)
    target, nodes = resolve_nodes(True, home, node, key, passphrase_file, genesis)
    trusted = open_genesis(True, target)
    if trusted is None:
        fail(True, "NO_GENESIS", "name the genesis to check receipts against with --genesis", 2)
    payer, paying = open_key(True, target), parse_key(True, account)

    async def run() -> None:
        async with AsyncClient(nodes, payer, trusted, paying or None) as client:
            server = make_server(AgentTools(client, trusted, timeout))
            await server.run_stdio_async()

    try:
        asyncio.run(run())
    except ImportError as error:
        fail(True, "NO_MCP", f"{error}: pip install 'assay-chain[mcp]'", 2)
    except KeyboardInterrupt:
        sys.exit(130)


def make_server(tools: AgentTools) -> "MCPServer[Any]":
    """The tools as an MCP server. Raises ImportError without the extra `mcp`."""
    from mcp.server import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import ToolAnnotations

    class Strict(MCPServer[Any]):
        """The library drops arguments that no tool has: a misspelt `max_price` would bound
        nothing."""

        async def call_tool(
            self, name: str, arguments: dict[str, Any], context: "Context[Any, Any] | None" = None
        ) -> Any:
            if name in taken and (unknown := sorted(set(arguments) - set(taken[name]))):
                detail = (
                    f"{unknown[0][:80]!r} is no argument; {name} takes {', '.join(taken[name])}"
                )
                raise ToolError(told(Rejection(RejectionReason.MALFORMED, detail)))
            return await super().call_tool(name, arguments, context)

    taken: dict[str, tuple[str, ...]] = {}
    server = Strict("assay", instructions=INSTRUCTIONS)
    looks = ToolAnnotations(read_only_hint=True)
    spends = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False)
    for tool, hints in (
        (tools.infer, spends),
        (tools.verify_receipt, looks),
        (tools.balance, looks),
        (tools.job_status, looks),
    ):
        taken[tool.__name__] = tuple(inspect.signature(tool).parameters)
        server.tool(annotations=hints)(_telling(tool))
    return server


def _telling(
    tool: Callable[..., Awaitable[dict[str, Any]]],
) -> Callable[..., Awaitable[dict[str, Any]]]:
    """The tool, which says why it failed instead of breaking off."""
    from mcp.server.mcpserver.exceptions import ToolError

    @functools.wraps(tool)
    async def run(*arguments: Any, **named: Any) -> dict[str, Any]:
        try:
            return await tool(*arguments, **named)
        except FAILURES as error:
            raise ToolError(told(error)) from error

    return run
