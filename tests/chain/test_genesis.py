"""A genesis is read strictly, names its chain, and binds certificates to keys."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chain import genesis as genesis_module
from chain.addresses import encode_address
from chain.execution import Ledger
from chain.genesis import Genesis, GenesisAccount, GenesisError, load, make_genesis, save
from chain.parameters import SUPPLY_MAX, Parameters
from consensus.wire import decode, encode
from tests.builders import genesis, genesis_validator, key, tls_identity


def spoiled(spoil: Callable[[dict[str, Any]], Any]) -> str:
    data = genesis_module.to_json(genesis())
    spoil(data)
    with pytest.raises(GenesisError) as caught:
        genesis_module.from_json(data)
    return str(caught.value)


def test_a_file_gives_back_the_genesis(tmp_path: Path) -> None:
    path = tmp_path / "genesis.json"
    save(genesis(), path)
    again = load(path)
    assert again == genesis()
    assert again.digest() == genesis().digest()
    assert [entry.name for entry in tmp_path.iterdir()] == ["genesis.json"]


def test_the_canonical_encoding_gives_back_the_genesis() -> None:
    assert decode(Genesis, encode(genesis())) == genesis()


def test_the_chain_id_carries_the_digest() -> None:
    assert genesis().chain_id == f"test-{genesis().digest().hex()[:8]}"
    assert genesis("other").digest() != genesis().digest()


def test_order_and_white_space_do_not_change_the_chain() -> None:
    data = genesis_module.to_json(genesis())
    turned = json.loads(json.dumps(dict(reversed(data.items()))))
    assert genesis_module.from_json(turned).digest() == genesis().digest()


def test_any_other_value_is_another_chain() -> None:
    seen = {genesis().digest()}
    for change in (
        {"genesis_time_ms": 1},
        {"treasury": key("alice").public_key},
        {"accounts": ()},
        {"parameters": Parameters(reveal_quorum=1)},
        {"validators": tuple(genesis_validator(index) for index in range(3))},
    ):
        seen.add(dataclasses.replace(genesis(), **change).digest())
    assert len(seen) == 6


def test_the_validator_set_is_that_of_epoch_0() -> None:
    members = genesis().validator_set()
    assert (members.epoch, members.stake_total, members.quorum_stake) == (0, 400, 267)
    assert members.by_account[key("account-2").public_key] == 2


def test_balances_come_in_order_of_key() -> None:
    names = [key(name).public_key for name in "abcdef"]
    made = make_genesis(
        "x", 0, Parameters(), genesis().validators, dict.fromkeys(names, 5), names[0]
    )
    assert list(made.balances()) == sorted(names)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data.update(extra=1), "genesis.extra: unknown field"),
        (lambda data: data.pop("treasury"), "genesis.treasury: missing"),
        (lambda data: data.update(version=2), "version 2, this program reads version 1"),
        (lambda data: data.update(name="Test"), "name 'Test': give 1 to 32 of lower-case"),
        (lambda data: data.update(name=""), "name ''"),
        (lambda data: data.update(genesis_time_ms=1.0), "genesis_time_ms: expected an integer"),
        (lambda data: data.update(genesis_time_ms=-1), "genesis_time_ms: -1 is not in 0"),
        (lambda data: data.update(treasury="assay1q"), "genesis.treasury: 'assay1q' is no account"),
        (lambda data: data["parameters"].update(x=1), "genesis.parameters.x: unknown field"),
        (lambda data: data["parameters"].pop("slash_bps"), "genesis.parameters.slash_bps: missing"),
        (lambda data: data["parameters"].update(slash_bps=10_001), "slash_bps is 10001"),
        (lambda data: data["validators"].clear(), "0 validators, allowed are 1 to 128"),
        (lambda data: data["validators"].reverse(), "list them in order, from 0"),
        (lambda data: data["validators"][1].update(stake=0), "validators[1].stake is 0"),
        (lambda data: data["validators"][1].update(stake=1 << 62), "validators[1].stake: "),
        (lambda data: data["validators"][0].update(address="localhost"), "give HOST:PORT"),
        (lambda data: data["validators"][0].update(address="h:0"), "has port '0': give 1 to 65535"),
        (lambda data: data["validators"][0].update(address="h:080"), "has port '080'"),
        (lambda data: data["validators"][0].update(address="h :80"), "give HOST:PORT"),
        (lambda data: data["validators"][0].update(binding="00" * 64), "is not signing_key's"),
        (lambda data: data["validators"][0].update(certificate="none"), "no PEM certificate"),
        (
            lambda data: data["validators"][0].update(
                certificate=data["validators"][1]["certificate"]
            ),
            "validators[0].binding is not signing_key's signature over this certificate",
        ),
        (
            lambda data: data["validators"][0].update(vrf_key=data["validators"][0]["signing_key"]),
            "must be three different keys",
        ),
        (
            lambda data: data["validators"][1].update(account=data["validators"][0]["account"]),
            "two validators share one account",
        ),
        (
            lambda data: data["validators"][1].update(address=data["validators"][0]["address"]),
            "two validators share one address",
        ),
        (lambda data: data["accounts"].update({"x": 1}), "'x' is no account"),
        (
            lambda data: data["accounts"].update({key("alice").public_key.hex(): 1}),
            "is named twice",
        ),
        (
            lambda data: data["accounts"].update(
                {encode_address(key("bob").public_key): SUPPLY_MAX}
            ),
            "balances sum to",
        ),
        (
            lambda data: data["accounts"].update(
                {encode_address(key("bob").public_key): SUPPLY_MAX + 1}
            ),
            f"{SUPPLY_MAX + 1} is not in 0 to {SUPPLY_MAX}",
        ),
    ],
)
def test_a_wrong_genesis_is_refused_with_the_place(
    spoil: Callable[[dict[str, Any]], Any], message: str
) -> None:
    assert message in spoiled(spoil)


def test_a_genesis_issues_no_more_than_a_ledger_can_hold() -> None:
    bob = key("bob").public_key

    def issue(amount: int, parameters: Parameters) -> Genesis:
        validators = tuple(
            dataclasses.replace(genesis_validator(index), stake=parameters.validator_stake_min)
            for index in range(4)
        )
        return make_genesis("x", 0, parameters, validators, {bob: amount}, bob)

    fixed, epochs = Parameters(), Parameters(epoch_blocks=64)
    stake = 4 * epochs.validator_stake_min
    for parameters, most in ((fixed, SUPPLY_MAX), (epochs, SUPPLY_MAX - stake)):
        made = issue(most, parameters)
        members = made.validator_set()
        ledger = Ledger.from_genesis("x", parameters, members, made.balances(), bob)
        assert ledger.supply().issued == SUPPLY_MAX
        with pytest.raises(GenesisError, match=f"sum to {SUPPLY_MAX + 1} grain"):
            issue(most + 1, parameters)


def test_a_certificate_with_bytes_behind_it_is_refused() -> None:
    signing = key("signing-0")
    certificate = tls_identity(0).certificate_der + b"\0"
    member = dataclasses.replace(
        genesis_validator(0),
        certificate=certificate,
        binding=signing.sign(genesis_module.binding_message(certificate)),
    )
    with pytest.raises(GenesisError, match=r"validators\[0\]\.certificate "):
        dataclasses.replace(genesis(), validators=(member,))


def test_accounts_are_in_order_and_once() -> None:
    twice = (GenesisAccount(bytes(32), 1), GenesisAccount(bytes(32), 1))
    with pytest.raises(GenesisError, match="rising order"):
        dataclasses.replace(genesis(), accounts=twice)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"name":1,"name":2}', b'{"a":NaN}'])
def test_a_file_that_is_no_genesis_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "genesis.json"
    path.write_bytes(content)
    with pytest.raises(GenesisError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(GenesisError, match="No such file or directory; give the chain's genesis"):
        load(tmp_path / "none.json")
