"""`assay model`: models on chain, registered and offered; and packages on disk, by the runtime.

The runtime's verbs come through the entry points group `assay.model`, each a function that becomes
the verb of its entry's name. What is in a package is asked of its verb `show`, which checks every
file: there is one place that knows the format.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from assay.v1 import node_pb2, transactions_pb2
from chain.addresses import encode_address
from chain.asking import pick_model
from chain.calibrations import CalibrationError, read_pairs
from chain.cli.calls import (
    HomeOption,
    KeyOption,
    NodeOption,
    PassphraseOption,
    TimeoutOption,
    call_node,
    open_key,
    outcome_value,
    resolve,
    send,
)
from chain.cli.output import EXIT_FAILED, EXIT_USAGE, JsonOption, emit, fail
from chain.cli.packages import read_package
from chain.cli.plugins import add_plugins
from chain.client import NodeClient
from chain.model_audit import Check, check_package, check_reports, check_runtime
from chain.pairs import ARBITER_PROFILE, pair_message, pair_record
from chain.parameters import BASIS_POINTS
from chain.readable import render
from chain.records import CalibratedPair
from chain.runtime_client import (
    RuntimeClient,
    RuntimeRefusedError,
    RuntimeUnavailableError,
)
from chain.runtime_replies import ModelInfo, RuntimeReplyError
from chain.units import UNIT, price_of_units

PLUGIN_GROUP: Final = "assay.model"
PRICE_MAX: Final = (1 << 64) - 1

PackageArgument = Annotated[Path, typer.Argument(help="A model package; see `assay model pack`.")]
ModelArgument = Annotated[str, typer.Argument(help="Name or id; default: the only one.")]
ReportOption = Annotated[
    list[Path] | None,
    typer.Option("--report", help="Calibration report of a pair of profiles; repeatable."),
]


def build_app() -> typer.Typer:
    """The noun with all its verbs."""
    app = typer.Typer(no_args_is_help=True)
    app.callback()(_models)
    app.command("list")(list_command)
    app.command("register")(register_command)
    app.command("offer")(offer_command)
    app.command("audit")(audit_command)
    add_plugins(app, PLUGIN_GROUP, "assay model")
    return app


def _models() -> None:
    """Models on chain, and their packages on disk."""


def list_command(
    model: Annotated[str, typer.Argument(help="Name or id; default: all.")] = "",
    home: HomeOption = None,
    node: NodeOption = "",
    as_json: JsonOption = False,
) -> None:
    """Models on chain: who can verify whom, who offers them at what price, and who audits them."""

    async def ask(client: NodeClient) -> list[dict[str, Any]]:
        views = [await pick_model(client, model)] if model else await client.models()
        return [model_value(view, await client.offers(view.model)) for view in views]

    values = call_node(resolve(as_json, home, node).node, as_json, ask)
    text = "\n\n".join(map(_model_lines, values))
    emit(as_json, values, text or "no model is registered: assay model register PACKAGE")


def register_command(  # noqa: PLR0913, PLR0917 - one parameter an option
    package: PackageArgument,
    report: ReportOption = None,
    royalty_bps: Annotated[
        int, typer.Option(min=0, max=BASIS_POINTS, help="Of each job's price, to you; in 1/10,000.")
    ] = 0,
    quorum: Annotated[
        int, typer.Option(min=0, help="Fewest verdicts a ruling may rest on; 0: the chain's.")
    ] = 0,
    home: HomeOption = None,
    node: NodeOption = "",
    key: KeyOption = None,
    passphrase_file: PassphraseOption = None,
    timeout: TimeoutOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Register a package, whose every file is checked first. Its price (a parameter, 1 ASY) is
    burnt, and a registration never changes: give the reports of all pairs of profiles that shall
    verify each other. The built-in engine verifies itself without one."""
    target = resolve(as_json, home, node, key, passphrase_file)
    owner = open_key(as_json, target)
    found = read_package(as_json, package)
    try:
        pairs = read_pairs(report or [], found.model, ARBITER_PROFILE)
    except CalibrationError as error:
        fail(as_json, "BAD_REPORT", str(error))

    async def look(client: NodeClient) -> tuple[int, node_pb2.ModelView | None]:
        views = [view for view in await client.models() if view.model == found.model]
        return (await client.parameters()).model_price, views[0] if views else None

    price, standing = call_node(target.node, as_json, look)
    if standing is not None:
        fail(as_json, "MODEL_EXISTS", _standing_text(standing, pairs))
    operation = transactions_pb2.Op(
        register_model=transactions_pb2.RegisterModel(
            model=found.model,
            name=found.name,
            context_tokens=found.context_tokens,
            royalty_bps=royalty_bps,
            pairs=[pair_message(pair) for pair in pairs],
            quorum=quorum,
            parameters=found.parameters,
        )
    )
    status = send(as_json, target, owner, [operation], timeout)
    emit(
        as_json,
        outcome_value(status)
        | {
            "model": found.model.hex(),
            "name": found.name,
            "burnt": price,
            "pairs": [[pair.provider_profile, pair.verifier_profile] for pair in pairs],
        },
    )


def offer_command(  # noqa: PLR0913, PLR0917 - one parameter an option
    model: ModelArgument = "",
    operator: Annotated[
        int | None,
        typer.Option(
            min=0, max=65_535, help="Validator at whose node you run; it never audits you."
        ),
    ] = None,
    input_price: Annotated[int, typer.Option(min=0, max=PRICE_MAX, help="Grain a token.")] = 0,
    output_price: Annotated[int, typer.Option(min=0, max=PRICE_MAX, help="Grain a token.")] = 0,
    capacity: Annotated[int, typer.Option(min=1, help="Jobs at once.")] = 1,
    profile: Annotated[
        str, typer.Option(help="Engine profile of your answers; default: the model's only one.")
    ] = "",
    stake: Annotated[
        int, typer.Option(min=0, max=PRICE_MAX, help="Grain to move into your stake before.")
    ] = 0,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take no more jobs.")] = False,
    home: HomeOption = None,
    node: NodeOption = "",
    key: KeyOption = None,
    passphrase_file: PassphraseOption = None,
    timeout: TimeoutOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Offer a model at a price, change the offer, or withdraw it. A node that provides does this
    by itself; a provider elsewhere needs it."""
    if not withdraw and operator is None:
        fail(as_json, "USAGE", "give --operator, or --withdraw", EXIT_USAGE)
    target = resolve(as_json, home, node, key, passphrase_file)
    provider = open_key(as_json, target)
    view = call_node(target.node, as_json, lambda client: pick_model(client, model))
    offer = transactions_pb2.SetOffer(model=view.model)
    if not withdraw:
        offer = transactions_pb2.SetOffer(
            model=view.model,
            input_price=input_price,
            output_price=output_price,
            capacity=capacity,
            operator=operator or 0,
            engine_profile=profile or _only_profile(as_json, view),
        )
    operations = [transactions_pb2.Op(set_offer=offer)]
    if stake:
        staking = transactions_pb2.Op(stake=transactions_pb2.Stake(amount=stake))
        operations.insert(0, staking)
    status = send(as_json, target, provider, operations, timeout)
    emit(
        as_json,
        outcome_value(status)
        | {
            "model": view.model.hex(),
            "provider": encode_address(provider.public_key),
            "input_price": offer.input_price,
            "output_price": offer.output_price,
            "capacity": offer.capacity,
            "engine_profile": offer.engine_profile,
        },
    )


def audit_command(
    model: ModelArgument = "",
    package: Annotated[
        Path | None, typer.Option(help="The package on disk; every file is read.")
    ] = None,
    runtime: Annotated[str, typer.Option(help="HOST:PORT of a runtime that serves it.")] = "",
    report: ReportOption = None,
    home: HomeOption = None,
    node: NodeOption = "",
    as_json: JsonOption = False,
) -> None:
    """Compare what is registered with a package on disk, with what a runtime serves, and with
    calibration reports. Ends with 1 if anything differs."""
    if package is None and not runtime and not report:
        fail(as_json, "USAGE", "give --package, --runtime, --report, or several", EXIT_USAGE)
    target = resolve(as_json, home, node)
    found = None if package is None else read_package(as_json, package)
    served = _served(as_json, runtime) if runtime else ()
    view = call_node(target.node, as_json, lambda client: pick_model(client, model))
    checks: list[Check] = []
    if found is not None:
        checks += check_package(view, found)
    if runtime:
        checks += check_runtime(view, served)
    checks += check_reports(view, report or [])
    value = {
        "model": view.model.hex(),
        "name": view.name,
        "agrees": all(check.agrees for check in checks),
        "checks": [
            {
                "check": check.name,
                "agrees": check.agrees,
                "registered": check.registered,
                "found": check.found,
                "advice": "" if check.agrees else check.advice,
            }
            for check in checks
        ],
    }
    emit(as_json, value, "\n".join(map(_check_line, checks)))
    if not value["agrees"]:
        raise typer.Exit(EXIT_FAILED)


def model_value(view: node_pb2.ModelView, offers: Sequence[node_pb2.OfferView]) -> dict[str, Any]:
    """A model as JSON shows it."""
    return {
        "model": view.model.hex(),
        "name": view.name,
        "owner": encode_address(view.owner),
        "context_tokens": view.context_tokens,
        "parameters": view.parameters,
        "royalty_bps": view.royalty_bps,
        "quorum": view.quorum,
        "pairs": [
            {
                "provider_profile": pair.provider_profile,
                "verifier_profile": pair.verifier_profile,
                "thresholds": render(pair_record(pair).thresholds),
            }
            for pair in view.pairs
        ],
        "verifiers": [
            {
                "validator": verifier.validator,
                "engine_profile": verifier.engine_profile,
                "abstained": verifier.abstained,
            }
            for verifier in view.verifiers
        ],
        "offers": [
            {
                "provider": encode_address(offer.provider),
                "operator": offer.operator,
                "engine_profile": offer.engine_profile,
                "input_price": offer.input_price,
                "output_price": offer.output_price,
                "input_per_1000_units": price_of_units(offer.input_price * UNIT, view.parameters),
                "output_per_1000_units": price_of_units(offer.output_price * UNIT, view.parameters),
                "capacity": offer.capacity,
                "open_jobs": offer.open_jobs,
                "completed": offer.completed,
                "failed": offer.failed,
            }
            for offer in offers
        ],
    }


def _model_lines(value: dict[str, Any]) -> str:
    """A model as people read it: a line for each pair, verifier and offer."""
    lines = [f"{name}  {item}" for name, item in value.items() if not isinstance(item, list)]
    lines += [
        f"pair  {pair['provider_profile']} verified with {pair['verifier_profile']}"
        for pair in value["pairs"]
    ]
    lines += [
        f"verifier  validator {item['validator']} with {item['engine_profile']}"
        + (f", abstained {item['abstained']} times in a row" if item["abstained"] else "")
        for item in value["verifiers"]
    ]
    lines += [
        f"offer  {item['provider']} at validator {item['operator']} with "
        f"{item['engine_profile']}: {item['input_price']} and {item['output_price']} grain a token "
        f"in and out ({item['input_per_1000_units']} and {item['output_per_1000_units']} for "
        f"1,000 compute units), {item['open_jobs']} of {item['capacity']} jobs open, "
        f"{item['completed']} completed, {item['failed']} failed"
        for item in value["offers"]
    ]
    return "\n".join(lines)


def _standing_text(view: node_pb2.ModelView, pairs: Sequence[CalibratedPair]) -> str:
    registered = [pair_record(pair) for pair in view.pairs]
    same = "with these pairs" if registered == list(pairs) else "with OTHER pairs or thresholds"
    return (
        f"{view.name} is registered already, by {encode_address(view.owner)}, {same}; nothing was "
        "spent. To serve it: assay model offer. Other pairs need another package"
    )


def _only_profile(as_json: bool, view: node_pb2.ModelView) -> str:
    profiles = sorted({pair.provider_profile for pair in view.pairs})
    if len(profiles) != 1:
        fail(as_json, "USAGE", f"give --profile, one of {', '.join(profiles)}", EXIT_USAGE)
    return profiles[0]


def _served(as_json: bool, address: str) -> tuple[ModelInfo, ...]:
    async def ask() -> tuple[ModelInfo, ...]:
        async with RuntimeClient(address) as runtime:
            return await runtime.models()

    try:
        return asyncio.run(ask())
    except (RuntimeUnavailableError, RuntimeRefusedError, RuntimeReplyError) as error:
        fail(
            as_json,
            "RUNTIME_UNAVAILABLE",
            f"{address}: {error}; start it with: assay runtime serve --model PACKAGE",
        )


def _check_line(check: Check) -> str:
    if check.agrees:
        return f"ok       {check.name}: {check.found:.80}"
    return (
        f"DIFFERS  {check.name}: registered is {check.registered}, found {check.found}; "
        f"{check.advice}"
    )
