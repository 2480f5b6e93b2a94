"""`assay light`: follow a chain's validators from genesis to the present, believing no node."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from chain import light
from chain.addresses import encode_address
from chain.cli.calls import HomeOption, NodeOption, call_node, open_genesis, resolve
from chain.cli.output import EXIT_USAGE, JsonOption, emit, errors_reported, fail
from chain.client import NodeClient
from chain.genesis import Genesis
from chain.genesis import load as load_genesis
from consensus.epochs import BoundaryInvalid
from consensus.values import ValidatorSet

app = typer.Typer(
    help="Follow a chain's validators from genesis on, believing no node.", no_args_is_help=True
)
GenesisOption = Annotated[
    Path | None, typer.Option(help="The genesis file that you trust; a devnet's home has one.")
]
KeptOption = Annotated[
    Path | None,
    typer.Option(help="File of the set followed to: read if it exists, then written."),
]


@app.command()
def follow(
    genesis: GenesisOption = None,
    validators: KeptOption = None,
    home: HomeOption = None,
    node: NodeOption = "",
    as_json: JsonOption = False,
) -> None:
    """Fetch the ends of all epochs from a node, check each with the set before, show the last."""
    with errors_reported(as_json):
        target = resolve(as_json, home, node, genesis=genesis)
        trusted = open_genesis(as_json, target)
        if trusted is None:
            fail(as_json, "NO_GENESIS", "name the genesis you trust with --genesis", EXIT_USAGE)
        kept = validators is not None and validators.exists()
        start = light.load(validators, trusted) if validators and kept else trusted.validator_set()
        reached = call_node(
            target.node, as_json, lambda client: follow_node(client, start, trusted)
        )
        if validators is not None:
            light.save(reached, trusted, validators)
        value = {"from_epoch": start.epoch} | set_value(reached, trusted)
        emit(as_json, value, "\n".join(set_lines(value)))


@app.command()
def show(
    validators: Annotated[Path, typer.Argument(help="A set that `follow` has kept.")],
    genesis: Annotated[Path, typer.Option(help="The genesis file that you trust.")],
    as_json: JsonOption = False,
) -> None:
    """Show a set that was followed to."""
    with errors_reported(as_json):
        trusted = load_genesis(genesis)
        value = set_value(light.load(validators, trusted), trusted)
        emit(as_json, value, "\n".join(set_lines(value)))


async def follow_node(client: NodeClient, trusted: ValidatorSet, genesis: Genesis) -> ValidatorSet:
    """The newest set that the node can prove. Raises BoundaryInvalid."""
    try:
        while page := await client.boundaries(trusted.epoch):
            trusted = light.follow(trusted, page, genesis.chain_id)
    except BoundaryInvalid as error:
        raise BoundaryInvalid(
            f"{error}; this node lies or is of another chain: ask another"
        ) from error
    return trusted


def set_value(validators: ValidatorSet, genesis: Genesis) -> dict[str, Any]:
    """A set as JSON shows it."""
    return {
        "chain_id": genesis.chain_id,
        "epoch": validators.epoch,
        "digest": validators.digest().hex(),
        "stake": validators.stake_total,
        "validators": [
            {
                "index": member.index,
                "account": encode_address(member.account),
                "signing_key": member.signing_key.hex(),
                "stake": member.stake,
            }
            for member in validators.members
        ],
    }


def set_lines(value: dict[str, Any]) -> Iterable[str]:
    """A set as people read it."""
    yield f"epoch {value['epoch']} of {value['chain_id']}, set {value['digest']}"
    for member in value["validators"]:
        yield f"{member['index']:>3}  {member['account']}  stake {member['stake']}"
