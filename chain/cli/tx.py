"""`assay tx`: sign and submit a transaction."""

from typing import Annotated

import typer

from assay.v1 import transactions_pb2
from chain.cli.calls import (
    AccountOption,
    HomeOption,
    KeyOption,
    NodeOption,
    PassphraseOption,
    TimeoutOption,
    open_key,
    outcome_value,
    parse_job,
    parse_key,
    resolve,
    send,
)
from chain.cli.output import JsonOption, emit, fail

app = typer.Typer(help="Sign and submit a transaction.", no_args_is_help=True)
AMOUNT_MAX = (1 << 64) - 1


@app.callback()
def _transactions() -> None:
    """Operations that need no view of their own."""


@app.command()
def transfer(  # noqa: PLR0913, PLR0917 - one parameter an option
    to: Annotated[str, typer.Argument(help="Receiver: an address (assay1…) or hex key.")],
    amount: Annotated[int, typer.Argument(help="Grain (1 ASY = 10^9 grain).", min=1)],
    home: HomeOption = None,
    node: NodeOption = "",
    key: KeyOption = None,
    passphrase_file: PassphraseOption = None,
    account: AccountOption = "",
    timeout: TimeoutOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Send grain to an account, and wait until that is final."""
    if amount > AMOUNT_MAX:
        fail(as_json, "USAGE", f"AMOUNT is {amount}, allowed are 1 to {AMOUNT_MAX}", 2)
    receiver, paying = parse_key(as_json, to), parse_key(as_json, account)
    target = resolve(as_json, home, node, key, passphrase_file)
    payer = open_key(as_json, target)
    operation = transactions_pb2.Op(transfer=transactions_pb2.Transfer(to=receiver, amount=amount))

    status = send(as_json, target, payer, [operation], timeout, paying)
    emit(as_json, outcome_value(status))


@app.command()
def appeal(
    job: Annotated[str, typer.Argument(help="The rejected job, in hexadecimal digits.")],
    home: HomeOption = None,
    node: NodeOption = "",
    key: KeyOption = None,
    passphrase_file: PassphraseOption = None,
    timeout: TimeoutOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Have the result of a job of yours, which was rejected, scored by the exact engine.

    This takes a bond of 1 ASY (a parameter) and a seat's price for each arbiter. It comes back if
    the result was true, with what the rejection cost; it is lost if it was false.
    """
    identity = parse_job(as_json, job)
    target = resolve(as_json, home, node, key, passphrase_file)
    provider = open_key(as_json, target)
    operation = transactions_pb2.Op(appeal=transactions_pb2.Appeal(job=identity))
    emit(as_json, outcome_value(send(as_json, target, provider, [operation], timeout, b"")))
