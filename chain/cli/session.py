"""`assay session`: keys that act for an account, within caps and until a height."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from assay.v1 import node_pb2, transactions_pb2
from chain.addresses import encode_address
from chain.asking import pick_model
from chain.cli.calls import (
    HomeOption,
    KeyOption,
    NodeOption,
    PassphraseOption,
    Target,
    TimeoutOption,
    call_node,
    open_key,
    outcome_value,
    parse_key,
    resolve,
    send,
)
from chain.cli.output import JsonOption, emit, fail
from chain.client import NodeClient
from chain.keys import KeyPair

app = typer.Typer(
    help="Keys that act for an account: within caps, until a height.", no_args_is_help=True
)
AMOUNT_MAX = (1 << 64) - 1
EXPIRES_IN_BLOCKS = 100_000
KINDS = {
    name.removeprefix("OPERATION_KIND_").lower().replace("_", "-"): number
    for name, number in transactions_pb2.OperationKind.items()
    if number != transactions_pb2.OPERATION_KIND_UNSPECIFIED
}
"""Operations by the names that people write."""
_NAMES = {number: name for name, number in KINDS.items()}

SessionKeyArgument = Annotated[
    str, typer.Argument(help="The session key: its address (assay1…) or public key in hex.")
]


@app.command()
def grant(  # noqa: PLR0913, PLR0917 - one parameter an option
    session_key: SessionKeyArgument,
    operation_cap: Annotated[
        int,
        typer.Option(
            "--operation-cap", min=1, help="Grain one operation may cost, with its part of the fee."
        ),
    ],
    total_cap: Annotated[
        int, typer.Option("--total-cap", min=1, help="Grain all together, fees included.")
    ],
    expires_in: Annotated[
        int, typer.Option("--expires-in", min=1, help="Blocks from now that it acts for.")
    ] = EXPIRES_IN_BLOCKS,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow", help=f"An operation it may do, of {', '.join(KINDS)}; again for more."
        ),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="A model it may name; default: any.")
    ] = None,
    recipient: Annotated[
        list[str] | None, typer.Option("--recipient", help="Whom it may pay; default: anybody.")
    ] = None,
    home: HomeOption = None,
    node: NodeOption = "",
    key: KeyOption = None,
    passphrase_file: PassphraseOption = None,
    timeout: TimeoutOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Let a key act for the account of --key. Without --allow it may ask for inferences only."""
    names = allow or ["request-inference"]
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        fail(as_json, "USAGE", f"--allow {unknown[0]}: give one of {', '.join(KINDS)}", 2)
    if max(operation_cap, total_cap) > AMOUNT_MAX:
        fail(as_json, "USAGE", f"a cap is above {AMOUNT_MAX}, which is the most there can be", 2)
    target = resolve(as_json, home, node, key, passphrase_file)
    granter = open_key(as_json, target)
    message = transactions_pb2.GrantSession(
        key=parse_key(as_json, session_key),
        operation_cap=operation_cap,
        total_cap=total_cap,
        kinds=sorted({KINDS[name] for name in names}),
        recipients=sorted({parse_key(as_json, text) for text in recipient or ()}),
    )
    status = send_grant(as_json, target, granter, message, model or (), expires_in, timeout)
    value = {
        **outcome_value(status),
        "account": encode_address(granter.public_key),
        "key": encode_address(message.key),
        "expires_at_height": message.expires_at_height,
    }
    emit(as_json, value)


def send_grant(
    as_json: bool,
    target: Target,
    granter: KeyPair,
    message: transactions_pb2.GrantSession,
    model_names: Sequence[str],
    expires_in: int,
    timeout_s: float,
) -> node_pb2.TransactionStatus:
    """Put models by their names and the last height into a grant, send it, wait until it is final.
    A refusal ends the command."""

    async def look_up(client: NodeClient) -> tuple[int, set[bytes]]:
        models = {(await pick_model(client, name)).model for name in model_names}
        return (await client.status()).height, models

    height, models = call_node(target.node, as_json, look_up)
    message.expires_at_height = min(height + expires_in, AMOUNT_MAX)
    message.models.extend(sorted(models))
    operation = transactions_pb2.Op(grant_session=message)
    return send(as_json, target, granter, [operation], timeout_s)


@app.command()
def revoke(
    session_key: SessionKeyArgument,
    home: HomeOption = None,
    node: NodeOption = "",
    key: KeyOption = None,
    passphrase_file: PassphraseOption = None,
    timeout: TimeoutOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """End a session key of the account of --key. What it has asked for already goes on."""
    target = resolve(as_json, home, node, key, passphrase_file)
    granter = open_key(as_json, target)
    message = transactions_pb2.RevokeSession(key=parse_key(as_json, session_key))
    operation = transactions_pb2.Op(revoke_session=message)
    emit(as_json, outcome_value(send(as_json, target, granter, [operation], timeout)))


@app.command("list")
def list_(
    account: Annotated[
        str, typer.Argument(help="Whose (assay1… or hex); default: that of --key.")
    ] = "",
    home: HomeOption = None,
    node: NodeOption = "",
    key: KeyOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """The session keys of an account, and what they have spent."""
    target = resolve(as_json, home, node, key, passphrase_file)
    granter = parse_key(as_json, account) or open_key(as_json, target).public_key

    async def ask(client: NodeClient) -> tuple[int, Sequence[node_pb2.SessionView]]:
        return (await client.status()).height, await client.sessions(granter)

    height, views = call_node(target.node, as_json, ask)
    found = [session_value(view, height) for view in views]
    lines = [
        f"{item['key']}  spent {item['spent']} of {item['total_cap']} grain, "
        f"at most {item['operation_cap']} an operation; {', '.join(item['allow'])}; "
        f"{item['blocks_left']} blocks left"
        for item in found
    ]
    emit(as_json, found, "\n".join(lines) or f"no session keys of {encode_address(granter)}")


def session_value(view: node_pb2.SessionView, height: int) -> dict[str, Any]:
    """A session as JSON shows it; `height` is the chain's."""
    return {
        "key": encode_address(view.key),
        "public_key": view.key.hex(),
        "operation_cap": view.operation_cap,
        "total_cap": view.total_cap,
        "spent": view.spent,
        "left": view.total_cap - view.spent,
        "expires_at_height": view.expires_at_height,
        "blocks_left": max(0, view.expires_at_height - height),
        "allow": [_NAMES.get(kind, str(kind)) for kind in view.kinds],
        "models": [model.hex() for model in view.models],
        "recipients": [encode_address(key) for key in view.recipients],
    }
