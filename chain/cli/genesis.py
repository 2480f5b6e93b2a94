"""`assay genesis`: declare validators, put a genesis together, look at one."""

import json
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from chain import readable
from chain.addresses import encode_address, parse_account
from chain.cli.keys import (
    PassphraseDescriptorOption,
    PassphraseFileOption,
    ask_passphrase,
    read_words,
)
from chain.cli.output import EXIT_USAGE, JsonOption, emit, errors_reported, fail
from chain.genesis import (
    FILE_BYTES_MAX,
    Genesis,
    GenesisError,
    GenesisValidator,
    load,
    make_genesis,
    save,
    split_address,
    validator_from_json,
    validator_to_json,
)
from chain.keys import new_mnemonic
from chain.keystore import write_private
from chain.parameters import GRAIN_PER_ASY, Parameters
from chain.validator_home import create_validator
from consensus.values import VALIDATORS_MAX

MNEMONIC_FILE_NAME: Final = "mnemonic"

app = typer.Typer(help="Declare validators and put a genesis together.", no_args_is_help=True)


@app.command()
def declare(  # noqa: PLR0913, PLR0917  (options of a verb)
    home: Annotated[Path, typer.Option(help="The validator's home; keys go to its `keys`.")],
    index: Annotated[int, typer.Option(min=0, max=VALIDATORS_MAX - 1, help="Its place.")],
    address: Annotated[str, typer.Option(help="HOST:PORT where its peers reach it.")],
    output: Annotated[Path, typer.Option(help="Where to write the declaration.")],
    stake: Annotated[int, typer.Option(min=1, help="Voting weight, in ASY.")] = 1,
    from_mnemonic: Annotated[
        Path | None, typer.Option(help="File with backup words; else new ones are made.")
    ] = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseDescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a validator's keys and the declaration that a genesis needs of it.

    New backup words are written to HOME/keys/mnemonic: move them to a safe place.
    """
    with errors_reported(as_json):
        split_address(address)
        passphrase = ask_passphrase(as_json, passphrase_file, passphrase_fd, new=True)
        if from_mnemonic is None:
            words = new_mnemonic()
            write_private(home / "keys" / MNEMONIC_FILE_NAME, f"{words}\n".encode())
        else:
            words = read_words(from_mnemonic)
        member = create_validator(home, index, address, stake * GRAIN_PER_ASY, words, passphrase)
        declaration = validator_to_json(member)
        output.write_text(json.dumps(declaration, indent=2) + "\n", encoding="utf-8")
        emit(
            as_json,
            {"declaration": str(output), "account": declaration["account"], "index": index},
        )


@app.command()
def create(
    name: Annotated[str, typer.Option(help="The chain's name: lower case, digits, '-'.")],
    declaration: Annotated[list[Path], typer.Option(help="A validator's declaration; repeat.")],
    output: Annotated[Path, typer.Option(help="Where to write the genesis.")],
    treasury: Annotated[str, typer.Option(help="The treasury's account.")],
    account: Annotated[
        list[str] | None, typer.Option(help="ACCOUNT=GRAIN, a first balance; repeat.")
    ] = None,
    parameters: Annotated[
        Path | None, typer.Option(help="JSON file of parameters that differ from the defaults.")
    ] = None,
    time_ms: Annotated[
        int | None, typer.Option(min=0, help="Genesis time in unix milliseconds; default now.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put a genesis together from the validators' declarations."""
    with errors_reported(as_json):
        if output.exists():
            fail(as_json, "FILE", f"{output} exists and is not overwritten", EXIT_USAGE)
        members = sorted(
            (_read_declaration(path) for path in declaration), key=lambda member: member.index
        )
        genesis = make_genesis(
            name=name,
            genesis_time_ms=time.time_ns() // 1_000_000 if time_ms is None else time_ms,
            parameters=_read_parameters(parameters),
            validators=tuple(members),
            balances=_read_balances(account or []),
            treasury=parse_account(treasury),
        )
        save(genesis, output)
        emit(as_json, {"file": str(output), **_summary(genesis)})


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A genesis file.")], as_json: JsonOption = False
) -> None:
    """Check a genesis file wholly and show what it says."""
    with errors_reported(as_json):
        emit(as_json, _summary(load(file)))


def _summary(genesis: Genesis) -> dict[str, Any]:
    return {
        "chain_id": genesis.chain_id,
        "digest": genesis.digest().hex(),
        "genesis_time_ms": genesis.genesis_time_ms,
        "validators": len(genesis.validators),
        "quorum_stake": genesis.validator_set().quorum_stake,
        "accounts": len(genesis.accounts),
        "supply": sum(genesis.balances().values()),
        "treasury": encode_address(genesis.treasury),
    }


def _read_object(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(FILE_BYTES_MAX)
    try:
        return readable.parse_object(data.decode())
    except (readable.ReadableError, UnicodeDecodeError) as error:
        raise GenesisError(f"{path}: {error}") from error


def _read_declaration(path: Path) -> GenesisValidator:
    try:
        return validator_from_json(_read_object(path), "declaration")
    except readable.ReadableError as error:
        raise GenesisError(f"{path}: {error}") from error


def _read_parameters(path: Path | None) -> Parameters:
    if path is None:
        return Parameters()
    changed = _read_object(path)
    try:
        values = {**readable.render(Parameters()), **changed}
        return readable.parse(Parameters, values, "parameters")
    except readable.ReadableError as error:
        raise GenesisError(f"{path}: {error}") from error


def _read_balances(texts: list[str]) -> dict[bytes, int]:
    balances: dict[bytes, int] = {}
    for text in texts:
        who, separator, amount = text.partition("=")
        if not separator or not (amount.isascii() and amount.isdigit()):
            raise GenesisError(f"--account {text!r}: give ACCOUNT=GRAIN")
        key = parse_account(who)
        if key in balances:
            raise GenesisError(f"--account {who} is given twice")
        balances[key] = int(amount)
    return balances
