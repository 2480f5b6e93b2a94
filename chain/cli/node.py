"""`assay node`: run a validator, and ask one how it is."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from assay.v1 import node_pb2
from chain.cli.calls import NodeOption, call_node
from chain.cli.output import JsonOption, emit, fail
from chain.client import NodeClient

app = typer.Typer(help="Run a validator, and ask one how it is.", no_args_is_help=True)


@app.command()
def start(
    home: Annotated[Path, typer.Option("--home", help="The validator's home, with node.toml.")],
    as_json: JsonOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log every step.")] = False,
) -> None:
    """Run a validator in the foreground until SIGTERM or Ctrl-C."""
    from chain.node.server import StartError, run_node

    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    try:
        run_node(home)
    except StartError as error:
        fail(as_json, "CANNOT_START", str(error))


@app.command()
def status(node: NodeOption, as_json: JsonOption = False) -> None:
    """Where a node stands: height, view, peers, runtime."""

    async def ask(client: NodeClient) -> node_pb2.StatusReply:
        return await client.status()

    reply = call_node(node, as_json, ask)
    emit(as_json, status_value(reply))


def status_value(reply: node_pb2.StatusReply) -> dict[str, object]:
    """A status as JSON shows it."""
    return {
        "chain_id": reply.chain_id,
        "validator": reply.validator,
        "height": reply.height,
        "final_height": reply.final_height,
        "view": reply.view,
        "timestamp_ms": reply.timestamp_ms,
        "execution_root": reply.execution_root.hex(),
        "state_root": reply.state_root.hex(),
        "voting": reply.voting,
        "detail": reply.detail,
        "peers": {peer.validator: peer.connected for peer in reply.peers},
        "runtime_ready": reply.runtime_ready,
        "runtimes": [
            {
                "address": runtime.address,
                "healthy": runtime.healthy,
                "detail": runtime.detail,
                "in_flight": runtime.in_flight,
                "queued": runtime.queued,
                "running": runtime.running,
                "models": [model.hex() for model in runtime.models],
            }
            for runtime in reply.runtimes
        ],
        "open_jobs": reply.open_jobs,
        "pending_transactions": reply.pending_transactions,
        "version": reply.version,
    }
