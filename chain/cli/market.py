"""`assay market`: what a job costs where, and why one went where it did."""

from typing import Annotated, Any

import typer

from assay.v1 import node_pb2
from chain.addresses import encode_address
from chain.asking import pick_model
from chain.cli.calls import HomeOption, NodeOption, call_node, parse_job, resolve
from chain.cli.output import JsonOption, emit, fail
from chain.client import NodeClient
from chain.execution.choices import WHY, Standing, redraw
from chain.parameters import Parameters
from chain.units import compute_units, price_of_units

app = typer.Typer(help="What jobs cost, and who is drawn for them.", no_args_is_help=True)
TOKENS_MAX = 1 << 24

_MEANINGS = {standing.name: why for standing, why in WHY.items()}


@app.command()
def explain(
    job: Annotated[str, typer.Argument(help="Job id in hex, or 'latest'.")],
    home: HomeOption = None,
    node: NodeOption = "",
    as_json: JsonOption = False,
) -> None:
    """Why each attempt of a job went to its provider, and to no other: offers as they stood then,
    and the draw done anew from the beacon."""

    async def ask(client: NodeClient) -> node_pb2.Explanation | None:
        if job != "latest":
            return await client.explain(parse_job(as_json, job))
        jobs = await client.jobs(1)
        return await client.explain(jobs[0].job) if jobs else None

    view = call_node(resolve(as_json, home, node).node, as_json, ask)
    if view is None:
        fail(as_json, "UNKNOWN_JOB", "no job yet")
    value = explanation_value(view)
    emit(as_json, value, "\n".join(_lines(value)))


@app.command()
def compare(
    model: Annotated[str, typer.Argument(help="Name or id; default: the only one.")] = "",
    input_tokens: Annotated[int, typer.Option(min=1, max=TOKENS_MAX)] = 100,
    output_tokens: Annotated[int, typer.Option(min=1, max=TOKENS_MAX)] = 100,
    home: HomeOption = None,
    node: NodeOption = "",
    as_json: JsonOption = False,
) -> None:
    """The same job at each open offer for a model: what it would cost if all of its tokens are
    used, the cheapest first. The chain draws by more than the price: see `explain`."""

    async def ask(client: NodeClient) -> tuple[int, list[node_pb2.OfferView], Parameters]:
        view = await pick_model(client, model)
        offers = list(await client.offers(view.model))
        return view.parameters, offers, await client.parameters()

    weights, offers, parameters = call_node(resolve(as_json, home, node).node, as_json, ask)
    units = compute_units(weights, input_tokens + output_tokens)
    seats = parameters.committee_size * parameters.seat_price(input_tokens, output_tokens)
    rows = sorted(
        (
            _cost(offer, input_tokens, output_tokens, seats, units)
            for offer in offers
            if offer.capacity
        ),
        key=lambda row: (row["price"], row["provider"]),
    )
    lines = [
        f"{row['provider']}  {row['price']} grain: {row['input']} for input, {row['output']} for "
        f"output, {row['verification']} for verification; "
        f"{row['price_per_1000_units']} for 1,000 of {row['compute_units']} compute units; "
        f"{row['free']} jobs free, "
        f"{row['completed']} completed, {row['failed']} failed, {row['engine_profile']}"
        for row in rows
    ]
    emit(as_json, rows, "\n".join(lines) or "there is no open offer for this model")


def _cost(
    offer: node_pb2.OfferView, input_tokens: int, output_tokens: int, verification: int, units: int
) -> dict[str, Any]:
    taken, made = input_tokens * offer.input_price, output_tokens * offer.output_price
    return {
        "provider": encode_address(offer.provider),
        "price": taken + made + verification,
        "input": taken,
        "output": made,
        "verification": verification,
        "compute_units": units,
        "price_per_1000_units": price_of_units(taken + made + verification, units),
        "free": max(0, offer.capacity - offer.open_jobs),
        "completed": offer.completed,
        "failed": offer.failed,
        "engine_profile": offer.engine_profile,
    }


def explanation_value(view: node_pb2.Explanation) -> dict[str, Any]:
    """An explanation as JSON shows it."""
    return {
        "job": view.job.hex(),
        "choices": [_choice_value(view.job, choice) for choice in view.choices],
        "now": _choice_value(view.job, view.now) if view.HasField("now") else None,
    }


def _choice_value(job: bytes, choice: node_pb2.Explanation.Choice) -> dict[str, Any]:
    return {
        "attempt": choice.attempt,
        "height": choice.height,
        "beacon": choice.beacon.hex(),
        "provider": encode_address(choice.provider) if choice.provider else None,
        "redrawn": _redrawn(job, choice),
        "complete": choice.complete,
        "escrow": choice.escrow,
        "max_output_tokens": choice.max_output_tokens,
        "stake_min": choice.stake_min,
        "candidates": [
            {
                "provider": encode_address(item.provider),
                "standing": item.standing,
                "why": _MEANINGS.get(item.standing, "this assay does not know the reason"),
                "weight": int(item.weight),
                "input_price": item.input_price,
                "output_price": item.output_price,
                "price_needed": int(item.price_needed),
                "capacity": item.capacity,
                "open_jobs": item.open_jobs,
                "completed": item.completed,
                "failed": item.failed,
                "stake": item.stake,
                "operator": item.operator,
                "engine_profile": item.engine_profile,
            }
            for item in choice.candidates
        ],
    }


def _redrawn(job: bytes, choice: node_pb2.Explanation.Choice) -> bool | None:
    """Whether the beacon draws this provider from these weights; None where nobody was drawn, or
    not all weights are written down."""
    if not choice.provider:
        return None
    weighed = [item for item in choice.candidates if item.standing == Standing.WEIGHED.name]
    try:
        place = redraw(
            job,
            choice.beacon,
            choice.attempt,
            [int(item.weight) for item in weighed],
            choice.complete,
        )
    except ValueError:
        return None
    return place is not None and weighed[place].provider == choice.provider


def _lines(value: dict[str, Any]) -> list[str]:
    lines = [f"job {value['job']}"]
    for choice in value["choices"]:
        drawn = {True: "drawn again: the same", False: "DRAWN AGAIN: ANOTHER", None: ""}
        lines.append(
            f"attempt {choice['attempt']} at height {choice['height']}: "
            f"{choice['provider'] or 'nobody could take it'}  {drawn[choice['redrawn']]}".rstrip()
        )
        lines += _candidate_lines(choice)
    if value["now"] is not None:
        lines.append("it waits for a provider; offers stand like this now:")
        lines += _candidate_lines(value["now"])
    return lines


def _candidate_lines(choice: dict[str, Any]) -> list[str]:
    total = sum(item["weight"] for item in choice["candidates"])
    lines = []
    for item in choice["candidates"]:
        part = f", {100 * item['weight'] // total}% of the weight" if item["weight"] else ""
        mark = "*" if item["provider"] == choice["provider"] else " "
        lines.append(
            f"{mark} {item['provider']}: {item['why']}{part}; {item['input_price']} and "
            f"{item['output_price']} grain a token, needs {item['price_needed']} of an escrow of "
            f"{choice['escrow']}; {item['open_jobs']} of {item['capacity']} jobs open, "
            f"{item['completed']} completed, {item['failed']} failed, stake {item['stake']} of at "
            f"least {choice['stake_min']}"
        )
    if not choice["complete"]:
        lines.append("  more offers stood than are written down")
    return lines
