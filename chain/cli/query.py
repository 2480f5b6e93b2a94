"""`assay query`: what the chain knows, as one node tells it."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from assay.v1 import node_pb2
from chain.addresses import encode_address, parse_account
from chain.asking import pick_model
from chain.cli.calls import (
    HomeOption,
    NodeOption,
    call_node,
    named_job,
    parse_job,
    parse_key,
    resolve,
)
from chain.cli.output import JsonOption, emit, fail
from chain.cli.validator import validator_line, validator_value
from chain.client import NodeClient
from chain.execution.standing import FULL
from chain.rejections import Rejection
from chain.units import compute_units
from consensus.verdicts import UNIT_BITS

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

    async def ask(client: NodeClient) -> tuple[node_pb2.JobView, int]:
        view = await named_job(as_json, client, job)
        return view, (await pick_model(client, view.model.hex())).parameters

    view, parameters = call_node(resolve(as_json, home, node).node, as_json, ask)
    tokens = view.input_tokens + view.output_tokens
    emit(as_json, job_value(view) | {"compute_units": compute_units(parameters, tokens)})


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
        "appealed": view.appealed,
        "max_price": view.max_price,
        "escrow": view.escrow,
        "requested_height": view.requested_height,
        "requested_ms": view.requested_ms,
        "answered_height": view.answered_height or None,
        "seed": view.seed.hex() or None,
        "input_tokens": view.input_tokens,
        "output_tokens": view.output_tokens,
        "committee": [_seat_value(seat) for seat in view.committee],
        "text": view.result.text if view.HasField("result") else None,
    }


def _seat_value(seat: node_pb2.SeatView) -> dict[str, Any]:
    return {
        "validator": seat.validator,
        "engine_profile": seat.engine_profile,
        "round": seat.round,
        "committed": seat.committed,
        "verdict": seat.verdict or None,
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


@app.command()
def standing(
    provider: Annotated[
        str, typer.Option("--provider", help="Only this account's offers (assay1… or hex).")
    ] = "",
    home: HomeOption = None,
    node: NodeOption = "",
    as_json: JsonOption = False,
) -> None:
    """What the state holds for and against providers and validators: standing, how far from
    ejection, seats and what was said with them, convictions."""
    account = parse_key(as_json, provider)
    reply = call_node(
        resolve(as_json, home, node).node,
        as_json,
        lambda client: client.standings(provider=account),
    )
    value: dict[str, Any] = {
        "providers": [_provider_value(view) for view in reply.providers],
        "validators": [_duties_value(view) for view in reply.validators],
        "jobs_counted": reply.jobs,
        "complete": reply.complete,
    }
    lines = [_provider_line(item) for item in value["providers"]] or ["nobody offers a model"]
    lines.append(f"seats on the committees of the {reply.jobs} newest settled jobs in state:")
    lines += [_duties_line(item) for item in value["validators"]]
    emit(as_json, value, "\n".join(lines))


@app.command()
def appeals(
    job: Annotated[
        str, typer.Argument(help="Of one job, open or ruled; default: all open ones.")
    ] = "",
    home: HomeOption = None,
    node: NodeOption = "",
    as_json: JsonOption = False,
) -> None:
    """Appeals to the exact engine: which step they are at and until when; how one was ruled."""
    identity = parse_job(as_json, job) if job else b""

    async def ask(client: NodeClient) -> list[node_pb2.AppealView]:
        if identity:
            return [await client.appeal(identity)]
        return list((await client.appeals()).appeals)

    found = [
        _appeal_value(view) for view in call_node(resolve(as_json, home, node).node, as_json, ask)
    ]
    emit(as_json, found, "\n".join(map(_appeal_line, found)) or "no appeal is open")


def _provider_value(view: node_pb2.ProviderStanding) -> dict[str, Any]:
    wealth = max(view.margin_log, view.distance_log)
    return {
        "model": view.model.hex(),
        "provider": encode_address(view.provider),
        "operator": view.operator,
        "capacity": view.capacity,
        "completed": view.completed,
        "failed": view.failed,
        "traps": view.traps,
        "standing": view.standing,
        "stake": view.stake,
        "evidence": {
            "jobs": view.jobs_bet_on,
            "margin_log": view.margin_log,
            "distance_log": view.distance_log,
            "limit_log": view.limit_log,
            "missing_log": max(0, view.limit_log - wealth),
        },
        "ejected_height": view.ejected_height or None,
        "held": view.held,
        "held_until_ms": view.held_until_ms or None,
        "open_appeals": view.open_appeals,
    }


def _provider_line(item: dict[str, Any]) -> str:
    evidence = item["evidence"]
    wealth = max(evidence["margin_log"], evidence["distance_log"])
    line = (
        f"provider  {item['provider']} of {item['model'][:8]}: standing {item['standing']} of "
        f"{FULL}, {item['completed']} completed, {item['failed']} failed, {item['traps']} traps"
    )
    if item["ejected_height"]:
        line += f"; EJECTED at height {item['ejected_height']}"
        if item["held"]:
            line += f", {item['held']} grain held until {_when(item['held_until_ms'])}"
    elif evidence["jobs"]:
        line += (
            f"; evidence {_nats(wealth)} of {_nats(evidence['limit_log'])} nats from "
            f"{evidence['jobs']} jobs, ejected in {_nats(evidence['missing_log'])} more"
        )
    else:
        line += "; no evidence is gathered"
    return line + (f"; {item['open_appeals']} appeals open" if item["open_appeals"] else "")


def _duties_value(view: node_pb2.ValidatorDuties) -> dict[str, Any]:
    return {
        "validator": view.validator,
        "account": encode_address(view.account),
        "seats": view.seats,
        "passed": view.passed,
        "failed": view.failed,
        "abstained": view.abstained,
        "voided": view.voided,
        "hidden": view.hidden,
        "silent": view.silent,
        "fault": view.fault or None,
        "convicted_height": view.convicted_height or None,
        "slashed": view.slashed,
    }


def _duties_line(item: dict[str, Any]) -> str:
    said = ("passed", "failed", "abstained", "voided", "hidden", "silent")
    line = f"validator {item['validator']}: {item['seats']} seats; "
    line += ", ".join(f"{item[name]} {name}" for name in said)
    if item["fault"]:
        line += f"; CONVICTED of {item['fault']} at height {item['convicted_height']}"
    return line


def _appeal_value(view: node_pb2.AppealView) -> dict[str, Any]:
    return {
        "job": view.job.hex(),
        "model": view.model.hex(),
        "provider": encode_address(view.provider),
        "status": view.status,
        "deadline_ms": view.deadline_ms or None,
        "bond": view.bond,
        "appealed_status": view.appealed_status,
        "arbiters": [_seat_value(seat) for seat in view.arbiters],
        "heard": [_seat_value(seat) for seat in view.heard],
        "ruled_height": view.ruled_height or None,
        "paid": view.paid,
    }


def _appeal_line(item: dict[str, Any]) -> str:
    line = f"job {item['job']}, {item['appealed_status']}: {item['status']}"
    if item["ruled_height"]:
        return line + f" at height {item['ruled_height']}, {item['paid']} grain paid"
    seats = item["arbiters"]
    done = sum(bool(seat["verdict"]) for seat in seats)
    committed = sum(seat["committed"] for seat in seats)
    return (
        f"{line} until {_when(item['deadline_ms'])}; of {len(seats)} arbiters {committed} have "
        f"committed, {done} revealed; bond {item['bond']} grain"
    )


def _when(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="seconds")


def _nats(value: int) -> str:
    return f"{value / (1 << UNIT_BITS):.1f}"
