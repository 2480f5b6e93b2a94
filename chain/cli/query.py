"""`assay query`: what the chain knows, as one node tells it."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from assay.v1 import node_pb2
from chain.addresses import encode_address, parse_account
from chain.cli.calls import HomeOption, NodeOption, call_node, parse_job, resolve
from chain.cli.output import JsonOption, emit, fail
from chain.cli.validator import validator_line, validator_value
from chain.client import NodeClient
from chain.rejections import Rejection

app = typer.Typer(help="What the chain knows, as one node tells it.", no_args_is_help=True)


@app.command()
def account(
    account: Annotated[str, typer.Argument(help="An address (assay1…) or public key in hex.")],
    home: HomeOption = None,
    node: NodeOption = "",
    as_json: JsonOption = False,
) -> None:
    """Balance and stake of an account."""
    try:
        key = parse_account(account)
    except Rejection as rejection:
        fail(as_json, rejection.reason.value, rejection.detail)
    view = call_node(resolve(as_json, home, node).node, as_json, lambda client: client.account(key))
    emit(
        as_json,
        {
            "account": encode_address(view.account),
            "public_key": view.account.hex(),
            "balance": view.balance,
            "stake": view.stake,
            "unbonding": view.unbonding,
            "unbonding_until_ms": view.unbonding_until_ms,
        },
    )


@app.command()
def job(
    job: Annotated[str, typer.Argument(help="Job id in hex, or 'latest'.")],
    home: HomeOption = None,
    node: NodeOption = "",
    as_json: JsonOption = False,
) -> None:
    """One job: status, provider, committee, result."""

    async def ask(client: NodeClient) -> node_pb2.JobView | None:
        if job != "latest":
            return await client.job(parse_job(as_json, job))
        jobs = await client.jobs(1)
        return jobs[0] if jobs else None

    view = call_node(resolve(as_json, home, node).node, as_json, ask)
    if view is None:
        fail(as_json, "UNKNOWN_JOB", "no job yet")
    emit(as_json, job_value(view))


def job_value(view: node_pb2.JobView) -> dict[str, Any]:
    """A job as JSON shows it."""
    return {
        "job": view.job.hex(),
        "status": view.status,
        "requester": encode_address(view.requester),
        "model": view.model.hex(),
        "provider": encode_address(view.provider) if view.provider else None,
        "operator": view.operator if view.provider else None,
        "engine_profile": view.engine_profile or None,
        "attempts": view.attempts,
        "max_price": view.max_price,
        "escrow": view.escrow,
        "requested_height": view.requested_height,
        "requested_ms": view.requested_ms,
        "answered_height": view.answered_height or None,
        "seed": view.seed.hex() or None,
        "input_tokens": view.input_tokens,
        "output_tokens": view.output_tokens,
        "committee": [
            {
                "validator": seat.validator,
                "engine_profile": seat.engine_profile,
                "round": seat.round,
                "committed": seat.committed,
                "verdict": seat.verdict or None,
            }
            for seat in view.committee
        ],
        "text": view.result.text if view.HasField("result") else None,
    }


@app.command()
def validators(home: HomeOption = None, node: NodeOption = "", as_json: JsonOption = False) -> None:
    """The validators: the same as `assay validator list`, without the epoch."""
    views = call_node(
        resolve(as_json, home, node).node, as_json, lambda client: client.validators()
    )
    emit(as_json, [validator_value(view) for view in views], "\n".join(map(validator_line, views)))


@app.command()
def block(
    height: Annotated[int, typer.Argument(help="Height; 0 is the newest.", min=0)] = 0,
    home: HomeOption = None,
    node: NodeOption = "",
    as_json: JsonOption = False,
) -> None:
    """An executed block."""
    view = call_node(
        resolve(as_json, home, node).node, as_json, lambda client: client.block(height)
    )
    when = datetime.fromtimestamp(view.timestamp_ms / 1000, UTC)
    emit(
        as_json,
        {
            "height": view.height,
            "view": view.view,
            "digest": view.digest.hex(),
            "parent": view.parent.hex(),
            "proposer": view.proposer,
            "timestamp_ms": view.timestamp_ms,
            "time": when.isoformat(timespec="milliseconds"),
            "transactions": view.transactions,
            "signers": view.signers,
            "execution_root": view.execution_root.hex(),
            "state_root": view.state_root.hex(),
            "receipts_root": view.receipts_root.hex(),
            "events_root": view.events_root.hex(),
        },
    )
