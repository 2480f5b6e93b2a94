"""`assay session`, on a real network."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chain.addresses import encode_address
from chain.keys import Role
from chain.keystore import KdfCost, save_key
from tests.builders import key
from tests.chain.cli.test_cli import assay, error_of, output_of
from tests.chain.gateway.tiny_network import MODEL, TinyNetwork, tiny_genesis

AGENT = key("agent").public_key


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyNetwork]:
    network = TinyNetwork(tiny_genesis("alice"))
    with network.running(tmp_path_factory.mktemp("session-network")) as running:
        yield running


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with the keys of alice and of an agent."""
    cost = KdfCost(passes=1, memory_kib=64, lanes=1)
    for name in ("alice", "agent"):
        save_key(tmp_path / f"{name}.json", key(name), Role.ACCOUNT, b"secret", cost)
    (tmp_path / "pass").write_text("secret\n")
    return tmp_path


def options(network: TinyNetwork, files: Path, name: str) -> tuple[str | Path, ...]:
    node = ("--node", network.nodes[0], "--json")
    return (*node, "--key", files / f"{name}.json", "--passphrase-file", files / "pass")


def test_a_session_key_is_granted_used_listed_and_revoked(
    network: TinyNetwork, files: Path
) -> None:
    alice, agent = options(network, files, "alice"), options(network, files, "agent")
    caps = ("--operation-cap", "1000000000", "--total-cap", "2000000000")
    allowed = ("--allow", "transfer", "--allow", "request-inference", "--model", MODEL)
    granted = output_of(assay("session", "grant", encode_address(AGENT), *caps, *allowed, *alice))
    assert granted["key"] == encode_address(AGENT)

    payer = encode_address(key("alice").public_key)
    paid = output_of(assay("tx", "transfer", AGENT.hex(), "7", "--account", payer, *agent))
    (listed,) = output_of(assay("session", "list", payer, *alice))
    assert listed["spent"] == 7 + paid["fee"]
    assert listed["left"] == 2_000_000_000 - listed["spent"]
    assert listed["allow"] == ["transfer", "request-inference"]
    assert len(listed["models"]) == 1
    (own,) = output_of(assay("session", "list", *alice))
    assert own["public_key"] == listed["public_key"] == AGENT.hex()

    output_of(assay("session", "revoke", AGENT.hex(), *alice))
    assert output_of(assay("session", "list", *alice)) == []
    refused = error_of(assay("tx", "transfer", AGENT.hex(), "7", "--account", payer, *agent))
    assert refused["reason"] == "UNKNOWN_SESSION"


def test_what_cannot_be_granted_is_told_before_it_costs_anything(
    network: TinyNetwork, files: Path
) -> None:
    alice = options(network, files, "alice")
    caps = ("--operation-cap", "5", "--total-cap", "4")
    grant = ("session", "grant", AGENT.hex())
    assert error_of(assay(*grant, *caps, *alice))["reason"] == "BAD_SESSION"
    unknown = error_of(assay(*grant, *caps, "--allow", "steal", *alice), code=2)
    assert "request-inference" in unknown["detail"]
