"""`assay validator`: join the validators, change keys and stake, leave, come back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.message import Message

from assay.v1 import node_pb2, transactions_pb2
from chain.addresses import encode_address
from chain.cli.calls import (
    HomeOption,
    NodeOption,
    TimeoutOption,
    call_node,
    named_job,
    outcome_value,
    resolve,
    send,
)
from chain.cli.output import EXIT_USAGE, JsonOption, emit, errors_reported, fail
from chain.cli.provider import kept_receipt, reward_value
from chain.client import NodeClient
from chain.earnings import Reward, reward_of_verifier
from chain.genesis import split_address
from chain.keys import KeyPair, Role, new_mnemonic
from chain.keystore import KeystoreError, load_key, read_passphrase, write_private
from chain.parameters import GRAIN_PER_ASY
from chain.rejections import Rejection, RejectionReason
from chain.tls import load_identity
from chain.transactions import make_operation
from chain.validator_home import (
    KEYS_FOLDER,
    TLS_CERTIFICATE_FILE,
    TLS_KEY_FILE,
    create_validator,
    shown_keys,
)

app = typer.Typer(
    help="Join the validators, change keys and stake, leave, come back.", no_args_is_help=True
)
STAKE_ASY_MAX = (1 << 63) // GRAIN_PER_ASY

OperatorOption = Annotated[
    Path, typer.Option("--validator-home", help="The validator's home; its keys are in `keys`.")
]
PassphraseOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="File with the passphrase of the validator's keys."),
]
AmountOption = Annotated[
    int, typer.Option("--amount", min=1, max=STAKE_ASY_MAX, help="How much, in ASY.")
]


@dataclass(frozen=True, slots=True)
class Operator:
    """A validator's own keys."""

    account: KeyPair
    signing: KeyPair
    vrf: KeyPair
    certificate: bytes


@app.command()
def keys(
    validator_home: OperatorOption,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the keys of a validator that is in no genesis. Their backup words are written beside
    them: move these to a safe place."""
    with errors_reported(as_json):
        passphrase = _passphrase(as_json, passphrase_file)
        words = new_mnemonic()
        write_private(validator_home / KEYS_FOLDER / "mnemonic", f"{words}\n".encode())
        made = create_validator(validator_home, 0, "127.0.0.1:1", 1, words, passphrase)
        emit(
            as_json,
            {
                "account": encode_address(made.account),
                "signing_key": made.signing_key.hex(),
                "vrf_key": made.vrf_key.hex(),
                "keys": str(validator_home / KEYS_FOLDER),
            },
        )


@app.command()
def register(
    validator_home: OperatorOption,
    address: Annotated[str, typer.Option(help="HOST:PORT where its peers reach it.")],
    stake: Annotated[int, typer.Option(min=0, max=STAKE_ASY_MAX, help="ASY to stake with it.")] = 0,
    home: HomeOption = None,
    node: NodeOption = "",
    passphrase_file: PassphraseOption = None,
    timeout: TimeoutOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Make the home's account a candidate; one that has left comes back. It has a seat two epochs
    later at the earliest, if its stake is among the most."""
    with errors_reported(as_json):
        split_address(address)
        operator = _operator(as_json, validator_home, passphrase_file)
        shown = _shown(as_json, resolve(as_json, home, node).node, operator, operator, address)
        message = transactions_pb2.RegisterValidator(keys=shown, stake=stake * GRAIN_PER_ASY)
        value = _send(as_json, home, node, operator, [message], timeout)
        account = operator.account.public_key
        target = resolve(as_json, home, node).node
        index = call_node(target, as_json, lambda client: _index_of(client, account))
        emit(as_json, value | {"index": index})


@app.command()
def rotate(
    validator_home: OperatorOption,
    new_home: Annotated[
        Path | None, typer.Option(help="A home with the new keys; its account is not used.")
    ] = None,
    address: Annotated[str, typer.Option(help="A new HOST:PORT.")] = "",
    home: HomeOption = None,
    node: NodeOption = "",
    passphrase_file: PassphraseOption = None,
    timeout: TimeoutOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Change signing key, VRF key and certificate, the address, or all. New keys act from the set
    after the next: keep the old ones until then."""
    with errors_reported(as_json):
        if address:
            split_address(address)
        if new_home is None and not address:
            fail(as_json, "USAGE", "give --new-home, --address, or both", EXIT_USAGE)
        operator = _operator(as_json, validator_home, passphrase_file)
        if new_home is None:
            shown = transactions_pb2.ValidatorKeys(address=address)
        else:
            fresh = _operator(as_json, new_home, passphrase_file)
            target = resolve(as_json, home, node).node
            shown = _shown(as_json, target, operator, fresh, address)
        message = transactions_pb2.RotateValidator(keys=shown)
        emit(as_json, _send(as_json, home, node, operator, [message], timeout))


@app.command()
def bond(
    validator_home: OperatorOption,
    amount: AmountOption,
    home: HomeOption = None,
    node: NodeOption = "",
    passphrase_file: PassphraseOption = None,
    timeout: TimeoutOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Stake more."""
    operator = _operator(as_json, validator_home, passphrase_file)
    message = transactions_pb2.Stake(amount=amount * GRAIN_PER_ASY)
    emit(as_json, _send(as_json, home, node, operator, [message], timeout))


@app.command()
def unbond(
    validator_home: OperatorOption,
    amount: AmountOption,
    home: HomeOption = None,
    node: NodeOption = "",
    passphrase_file: PassphraseOption = None,
    timeout: TimeoutOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Unstake some. It returns after the unbonding epochs, and can be slashed until then."""
    operator = _operator(as_json, validator_home, passphrase_file)
    message = transactions_pb2.Unstake(amount=amount * GRAIN_PER_ASY)
    emit(as_json, _send(as_json, home, node, operator, [message], timeout))


@app.command()
def leave(
    validator_home: OperatorOption,
    home: HomeOption = None,
    node: NodeOption = "",
    passphrase_file: PassphraseOption = None,
    timeout: TimeoutOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Give up the seat. Keep the node running until `list` says it has none; then `unbond`."""
    operator = _operator(as_json, validator_home, passphrase_file)
    emit(
        as_json, _send(as_json, home, node, operator, [transactions_pb2.LeaveValidators()], timeout)
    )


@app.command()
def unjail(
    validator_home: OperatorOption,
    home: HomeOption = None,
    node: NodeOption = "",
    passphrase_file: PassphraseOption = None,
    timeout: TimeoutOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Be a candidate again after a jail term."""
    operator = _operator(as_json, validator_home, passphrase_file)
    emit(as_json, _send(as_json, home, node, operator, [transactions_pb2.Unjail()], timeout))


@app.command("list")
def list_(home: HomeOption = None, node: NodeOption = "", as_json: JsonOption = False) -> None:
    """Everybody registered: seated, waiting, leaving, jailed or gone."""
    page = call_node(
        resolve(as_json, home, node).node, as_json, lambda client: client.validator_page()
    )
    value = {
        "epoch": page.epoch,
        "epoch_blocks": page.epoch_blocks,
        "validators": [validator_value(view) for view in page.validators],
    }
    emit(as_json, value, "\n".join([_epoch_line(page), *map(validator_line, page.validators)]))


def validator_value(view: node_pb2.ValidatorView) -> dict[str, Any]:
    """A registered validator as JSON shows it."""
    return {
        "index": view.index,
        "account": encode_address(view.account),
        "signing_key": view.signing_key.hex(),
        "vrf_key": view.vrf_key.hex(),
        "stake": view.stake,
        "address": view.address,
        "fault": view.fault,
        "convicted_height": view.convicted_height,
        "status": view.status,
        "bonded": view.bonded,
        "unbonding": view.unbonding,
        "from_epoch": view.from_epoch if view.HasField("from_epoch") else None,
        "jailed_until_epoch": view.jailed_until_epoch,
    }


def validator_line(view: node_pb2.ValidatorView) -> str:
    """A registered validator as people read it."""
    notes = []
    if view.fault:
        notes.append(f"convicted of {view.fault}")
    elif view.jailed_until_epoch:
        notes.append(f"until epoch {view.jailed_until_epoch}")
    if not view.stake and view.HasField("from_epoch"):
        notes.append(f"seat from epoch {view.from_epoch}")
    if view.unbonding:
        notes.append(f"{view.unbonding} unbonding")
    line = f"{view.index:>3}  {encode_address(view.account)}  {view.status:<9}  stake {view.stake}"
    return "  ".join([line, view.address, *notes])


@app.command()
def why(
    job: Annotated[str, typer.Argument(help="Job id in hex, or 'latest'.")],
    validator: Annotated[int, typer.Option("--validator", min=0, help="The validator's id.")],
    home: HomeOption = None,
    node: NodeOption = "",
    as_json: JsonOption = False,
) -> None:
    """Why judging a job paid this validator what it paid, or nothing."""

    async def ask(client: NodeClient) -> tuple[node_pb2.JobView, Reward]:
        views = (await client.validator_page(validator)).validators
        if not views or views[0].index != validator:
            raise Rejection(
                RejectionReason.NOT_A_VALIDATOR, f"no validator has the id {validator}: list them"
            )
        view = await named_job(as_json, client, job)
        receipt = await kept_receipt(client, view)
        return view, reward_of_verifier(validator, views[0].account, view, receipt)

    view, reward = call_node(resolve(as_json, home, node).node, as_json, ask)
    emit(as_json, reward_value(view, reward) | {"validator": validator})


def _epoch_line(page: node_pb2.ValidatorsReply) -> str:
    if not page.epoch_blocks:
        return "one epoch for ever: the set is that of genesis"
    return f"epoch {page.epoch}, of {page.epoch_blocks} blocks"


def _passphrase(as_json: bool, file: Path | None) -> bytes:
    try:
        return read_passphrase(file)
    except KeystoreError as error:
        fail(as_json, "BAD_KEY", str(error))


def _operator(as_json: bool, home: Path, passphrase_file: Path | None) -> Operator:
    folder = home / KEYS_FOLDER
    with errors_reported(as_json):
        passphrase = _passphrase(as_json, passphrase_file)
        account, signing, vrf = (
            load_key(folder / f"{role.value}.json", passphrase, role)
            for role in (Role.ACCOUNT, Role.SIGNING, Role.VRF)
        )
        identity = load_identity(
            (folder / TLS_KEY_FILE).read_bytes(), (folder / TLS_CERTIFICATE_FILE).read_bytes()
        )
    return Operator(account, signing, vrf, identity.certificate_der)


def _shown(
    as_json: bool, node: str, owner: Operator, keys: Operator, address: str
) -> transactions_pb2.ValidatorKeys:
    async def chain_id(client: NodeClient) -> str:
        return (await client.status()).chain_id

    return shown_keys(
        call_node(node, as_json, chain_id),
        owner.account.public_key,
        keys.signing,
        keys.vrf,
        address,
        keys.certificate,
    )


def _send(
    as_json: bool,
    home: Path | None,
    node: str,
    operator: Operator,
    messages: Sequence[Message],
    timeout_s: float,
) -> dict[str, Any]:
    target = resolve(as_json, home, node)
    operations = [make_operation(message) for message in messages]
    status = send(as_json, target, operator.account, operations, timeout_s)
    return outcome_value(status) | {"account": encode_address(operator.account.public_key)}


async def _index_of(client: NodeClient, account: bytes) -> int | None:
    """The id that the account's validator was given."""
    start = 0
    while views := (await client.validator_page(start)).validators:
        for view in views:
            if view.account == account:
                return view.index
        start = views[-1].index + 1
    return None
