"""`assay tx`: sign and submit a transaction."""

from typing import Annotated

import typer

from assay.v1 import node_pb2, transactions_pb2
from chain.addresses import parse_account
from chain.cli.calls import (
    HomeOption,
    KeyOption,
    NodeOption,
    PassphraseOption,
    call_node,
    open_key,
    resolve,
)
from chain.cli.output import JsonOption, emit, fail
from chain.client import NodeClient
from chain.rejections import Rejection

app = typer.Typer(help="Sign and submit a transaction.", no_args_is_help=True)
AMOUNT_MAX = (1 << 64) - 1


@app.callback()
def _transactions() -> None:
    """Keep `transfer` a verb of its own though it is the only one."""


@app.command()
def transfer(
    to: Annotated[str, typer.Argument(help="Receiver: an address (assay1…) or hex key.")],
    amount: Annotated[int, typer.Argument(help="Grain (1 ASY = 10^9 grain).", min=1)],
    home: HomeOption = None,
    node: NodeOption = "",
    key: KeyOption = None,
    passphrase_file: PassphraseOption = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for it.")] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Send grain to an account, and wait until that is final."""
    if amount > AMOUNT_MAX:
        fail(as_json, "USAGE", f"AMOUNT is {amount}, allowed are 1 to {AMOUNT_MAX}", 2)
    try:
        receiver = parse_account(to)
    except Rejection as rejection:
        fail(as_json, rejection.reason.value, rejection.detail)
    target = resolve(as_json, home, node, key, passphrase_file)
    payer = open_key(as_json, target)
    operation = transactions_pb2.Op(transfer=transactions_pb2.Transfer(to=receiver, amount=amount))

    async def run(client: NodeClient) -> node_pb2.TransactionStatus:
        signed = await client.sign(payer, [operation])
        return await client.wait(await client.submit(signed), timeout)

    status = call_node(target.node, as_json, run)
    if not status.accepted:
        fail(as_json, status.reason, f"transaction {status.id.hex()} failed at {status.height}")
    emit(
        as_json,
        {"transaction": status.id.hex(), "height": status.height, "fee": status.fee},
    )
