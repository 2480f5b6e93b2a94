"""`assay validator`, on a real network."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from chain.addresses import encode_address
from chain.genesis import Genesis
from chain.keys import Role, new_mnemonic
from chain.keystore import KdfCost, save_key
from chain.parameters import GRAIN_PER_ASY
from chain.validator_home import create_validator
from tests.builders import genesis_validator, key
from tests.chain.cli.test_cli import assay, error_of, output_of
from tests.chain.gateway.tiny_network import VALIDATORS, TinyNetwork, tiny_genesis

CHEAP = KdfCost(passes=1, memory_kib=64, lanes=1)
LEAST_ASY = 2


def epoch_genesis() -> Genesis:
    """With an epoch that no test sees the end of."""
    plain = tiny_genesis("alice")
    rules = dataclasses.replace(
        plain.parameters, epoch_blocks=1_000_000, validator_stake_min=LEAST_ASY * GRAIN_PER_ASY
    )
    members = tuple(
        dataclasses.replace(
            genesis_validator(index, LEAST_ASY * GRAIN_PER_ASY),
            address=plain.validators[index].address,
        )
        for index in range(VALIDATORS)
    )
    return dataclasses.replace(plain, parameters=rules, validators=members)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyNetwork]:
    network = TinyNetwork(epoch_genesis())
    with network.running(tmp_path_factory.mktemp("validator-network")) as running:
        yield running


def test_a_newcomer_registers_bonds_moves_leaves_and_unbonds(
    network: TinyNetwork, tmp_path: Path
) -> None:
    (tmp_path / "pass").write_text("secret\n")
    (tmp_path / "pass").chmod(0o600)
    save_key(tmp_path / "alice.json", key("alice"), Role.ACCOUNT, b"secret", CHEAP)
    home = tmp_path / "newcomer"
    made = create_validator(home, 0, "127.0.0.1:1", 1, new_mnemonic(), b"secret", CHEAP)
    node = ("--node", network.nodes[0], "--json")
    secret = ("--passphrase-file", tmp_path / "pass")
    own = ("--validator-home", home, *node, *secret)

    def listed() -> dict[str, object]:
        found = output_of(assay("validator", "list", *node))
        assert found["epoch"] == 0
        (view,) = [
            view for view in found["validators"] if view["account"] == encode_address(made.account)
        ]
        return dict(view)

    amount = str(10 * GRAIN_PER_ASY)
    funded = ("--key", tmp_path / "alice.json", *secret, *node)
    output_of(assay("tx", "transfer", made.account.hex(), amount, *funded))
    register = ("validator", "register", "--address", "127.0.0.1:20777", *own)
    assert error_of(assay(*register, "--stake", "1"))["reason"] == "INSUFFICIENT_STAKE"
    registered = output_of(assay(*register, "--stake", str(LEAST_ASY)))
    assert registered["index"] == VALIDATORS
    assert (listed()["status"], listed()["index"], listed()["stake"]) == ("waiting", VALIDATORS, 0)
    output_of(assay("validator", "bond", "--amount", "3", *own))
    output_of(assay("validator", "rotate", "--address", "127.0.0.1:20778", *own))
    assert listed()["bonded"] == (LEAST_ASY + 3) * GRAIN_PER_ASY
    assert listed()["address"] == "127.0.0.1:20778"
    unbond = ("validator", "unbond", "--amount", str(LEAST_ASY + 3), *own)
    assert error_of(assay(*unbond))["reason"] == "INSUFFICIENT_STAKE"
    assert error_of(assay("validator", "unjail", *own))["reason"] == "BAD_VALIDATOR"
    output_of(assay("validator", "leave", *own))
    output_of(assay(*unbond))
    assert listed()["status"] == "unbonding"
