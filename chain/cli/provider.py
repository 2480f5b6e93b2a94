"""`assay provider`: what jobs brought a provider, and why one brought nothing."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from assay.v1 import node_pb2
from chain.addresses import encode_address
from chain.cli.calls import HomeOption, NodeOption, call_node, named_job, parse_key, resolve
from chain.cli.output import JsonOption, emit
from chain.client import NodeClient
from chain.earnings import FINAL_NAMES, Reward, reward_of
from chain.parameters import Parameters
from chain.records import JobReceipt
from chain.rejections import Rejection, RejectionReason
from consensus.wire import decode

app = typer.Typer(help="What jobs brought a provider, and why.", no_args_is_help=True)
ProviderOption = Annotated[
    str, typer.Option("--provider", help="The provider's account (assay1… or hex).")
]
JOBS_MAX = 1_000
_UNTOLD = (RejectionReason.UNKNOWN_JOB, RejectionReason.NOT_READY, RejectionReason.PRUNED)


@app.command()
def why(
    job: Annotated[str, typer.Argument(help="Job id in hex, or 'latest'.")],
    provider: ProviderOption,
    home: HomeOption = None,
    node: NodeOption = "",
    as_json: JsonOption = False,
) -> None:
    """Why a job paid this provider what it paid, or nothing."""
    account = parse_key(as_json, provider)

    async def ask(client: NodeClient) -> tuple[node_pb2.JobView, Reward]:
        parameters = await client.parameters()
        view = await named_job(as_json, client, job)
        return view, await _reward(client, account, view, parameters)

    emit(as_json, reward_value(*call_node(resolve(as_json, home, node).node, as_json, ask)))


@app.command()
def earnings(
    provider: ProviderOption,
    limit: Annotated[
        int, typer.Option(min=1, max=JOBS_MAX, help="Of the chain's newest jobs, so many.")
    ] = 100,
    home: HomeOption = None,
    node: NodeOption = "",
    as_json: JsonOption = False,
) -> None:
    """What the chain's newest jobs brought this provider: by job and by day. Jobs leave the state
    some blocks after they are settled; what was slashed and fined is in the chain's events."""
    account = parse_key(as_json, provider)

    async def ask(client: NodeClient) -> list[tuple[node_pb2.JobView, Reward]]:
        parameters = await client.parameters()
        return [
            (view, await _reward(client, account, view, parameters))
            for view in await client.jobs(limit)
            if view.provider == account
        ]

    found = call_node(resolve(as_json, home, node).node, as_json, ask)
    jobs = [reward_value(view, reward) for view, reward in found]
    days: dict[str, dict[str, int]] = {}
    for item in jobs:
        day = days.setdefault(item["day"], {"jobs": 0, "paid": 0, "unpaid_jobs": 0, "open_jobs": 0})
        day["jobs"] += 1
        day["paid"] += item["paid"] or 0
        day["unpaid_jobs"] += item["paid"] == 0
        day["open_jobs"] += item["code"] == "PENDING"
    lines = [f"{item['job']}  {item['code']}  {item['paid']} grain" for item in jobs]
    lines += [
        f"{day}: {sums['jobs']} jobs, {sums['paid']} grain paid, {sums['unpaid_jobs']} unpaid, "
        f"{sums['open_jobs']} open"
        for day, sums in days.items()
    ]
    emit(
        as_json,
        {"provider": encode_address(account), "jobs": jobs, "days": days},
        "\n".join(lines) or f"none of the newest {limit} jobs is this provider's",
    )


async def _reward(
    client: NodeClient, account: bytes, view: node_pb2.JobView, parameters: Parameters
) -> Reward:
    try:
        choices = list((await client.explain(view.job)).choices)
    except Rejection as rejection:
        if rejection.reason not in _UNTOLD:
            raise
        choices = []
    receipt = await kept_receipt(client, view) if view.provider == account else None
    return reward_of(account, view, choices, receipt, parameters)


async def kept_receipt(client: NodeClient, view: node_pb2.JobView) -> JobReceipt | None:
    """The receipt of a job that is final, if the node can give it. Raises Rejection."""
    if view.status not in FINAL_NAMES:
        return None
    try:
        return decode(JobReceipt, (await client.receipt(view.job)).job_receipt)
    except Rejection as rejection:
        if rejection.reason not in _UNTOLD:
            raise
    return None


def reward_value(view: node_pb2.JobView, reward: Reward) -> dict[str, Any]:
    """A reward as JSON shows it."""
    asked = datetime.fromtimestamp(view.requested_ms / 1000, UTC)
    return {
        "job": view.job.hex(),
        "day": asked.date().isoformat(),
        "status": view.status,
        "code": reward.code,
        "detail": reward.detail,
        "advice": reward.advice,
        "paid": reward.paid,
    }
