"""`assay market` and `assay provider`, on a real network."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chain.addresses import encode_address
from chain.keys import Role
from chain.keystore import KdfCost, save_key
from chain.units import compute_units
from tests.builders import key
from tests.chain.cli.test_cli import assay, error_of, output_of
from tests.chain.gateway.tiny_network import TinyNetwork, tiny_genesis

CHEAP = KdfCost(passes=1, memory_kib=64, lanes=1)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyNetwork]:
    network = TinyNetwork(tiny_genesis("alice"))
    with network.running(tmp_path_factory.mktemp("market-network")) as running:
        yield running


@pytest.fixture
def paying(tmp_path: Path) -> tuple[str | Path, ...]:
    (tmp_path / "pass").write_text("secret\n")
    (tmp_path / "pass").chmod(0o600)
    save_key(tmp_path / "alice.json", key("alice"), Role.ACCOUNT, b"secret", CHEAP)
    return ("--key", tmp_path / "alice.json", "--passphrase-file", tmp_path / "pass")


def test_a_real_job_is_explained_by_every_node_and_drawn_again_alike(
    network: TinyNetwork, paying: tuple[str | Path, ...]
) -> None:
    asked = assay(
        "infer", "hello", "--raw", "--max-tokens", "2", "--node", network.nodes[0], *paying
    )
    assert asked.exit_code == 0, asked.output
    providers = [encode_address(key(f"account-{index}").public_key) for index in range(2)]
    for node in network.nodes:
        found = output_of(assay("market", "explain", "latest", "--node", node, "--json"))
        (choice,) = found["choices"]
        standings = {item["provider"]: item["standing"] for item in choice["candidates"]}
        assert standings == dict.fromkeys(providers, "WEIGHED")
        assert choice["provider"] in providers
        assert choice["redrawn"] is True
        assert choice["complete"] is True
    text = assay("market", "explain", "latest", "--node", network.nodes[0]).output
    assert "took part in the draw, " in text
    assert "drawn again: the same" in text


def test_a_job_that_nobody_knows_has_no_explanation(network: TinyNetwork) -> None:
    told = assay("market", "explain", "00" * 32, "--node", network.nodes[0], "--json")
    assert error_of(told)["reason"] == "UNKNOWN_JOB"


def test_a_provider_is_told_what_a_job_brought_it_and_why_another_got_it(
    network: TinyNetwork, paying: tuple[str | Path, ...]
) -> None:
    node = ("--node", network.nodes[0], "--json")
    asked = assay("infer", "why", "--raw", "--max-tokens", "2", *node, *paying)
    assert asked.exit_code == 0, asked.output
    names = [encode_address(key(f"account-{index}").public_key) for index in range(2)]
    told = {
        name: output_of(assay("provider", "why", "latest", "--provider", name, *node))
        for name in names
    }
    drawn = output_of(assay("query", "job", "latest", *node))["provider"]
    (other,) = set(names) - {drawn}
    assert (told[drawn]["code"], told[other]["code"]) == ("PAID", "NOT_DRAWN")
    assert told[drawn]["paid"] > told[other]["paid"] == 0
    earned = output_of(assay("provider", "earnings", "--provider", drawn, *node))
    assert earned["jobs"][0] == told[drawn]
    assert sum(day["paid"] for day in earned["days"].values()) == sum(
        item["paid"] for item in earned["jobs"]
    )


def test_a_verifier_is_told_what_judging_brought_it(
    network: TinyNetwork, paying: tuple[str | Path, ...]
) -> None:
    node = ("--node", network.nodes[0], "--json")
    asked = assay("infer", "who", "--raw", "--max-tokens", "2", *node, *paying)
    assert asked.exit_code == 0, asked.output
    codes = {
        output_of(assay("validator", "why", "latest", "--validator", index, *node))["code"]
        for index in ("0", "1")
    }
    assert codes == {"PAID", "OWN_ANSWER"}
    unknown = assay("validator", "why", "latest", "--validator", "9", *node)
    assert error_of(unknown)["reason"] == "NOT_A_VALIDATOR"


def test_the_same_job_at_two_offers_is_shown_side_by_side(network: TinyNetwork) -> None:
    node = ("--node", network.nodes[0], "--json")
    (model,) = output_of(assay("model", "list", *node))
    offers = model["offers"]
    asked = ("--input-tokens", "30", "--output-tokens", "7")
    rows = output_of(assay("market", "compare", *asked, *node))
    assert {row["provider"] for row in rows} == {offer["provider"] for offer in offers}
    seat_price = network.genesis.parameters.seat_price(30, 7)
    for row in rows:
        (offer,) = (item for item in offers if item["provider"] == row["provider"])
        tokens = 30 * offer["input_price"] + 7 * offer["output_price"]
        assert row["price"] == tokens + seat_price  # one seat on this network
        assert row["compute_units"] == compute_units(model["parameters"], 37)
        assert row["price_per_1000_units"] == row["price"] * 1000 // row["compute_units"]


def test_what_is_held_for_and_against_all_is_the_same_at_every_node(
    network: TinyNetwork, paying: tuple[str | Path, ...]
) -> None:
    asked = assay(
        "infer", "who", "--raw", "--max-tokens", "2", "--node", network.nodes[0], "--json", *paying
    )
    assert asked.exit_code == 0, asked.output
    shown = [
        output_of(assay("query", "standing", "--node", node, "--json")) for node in network.nodes
    ]
    assert shown[0] == shown[1]
    assert shown[0]["jobs_counted"] >= 1
    assert sum(item["passed"] for item in shown[0]["validators"]) == shown[0]["jobs_counted"]
    assert sum(item["completed"] for item in shown[0]["providers"]) == shown[0]["jobs_counted"]
    name = shown[0]["providers"][0]["provider"]
    (only,) = output_of(
        assay("query", "standing", "--provider", name, "--node", network.nodes[0], "--json")
    )["providers"]
    assert only["provider"] == name
    text = assay("query", "standing", "--node", network.nodes[0]).output
    assert "of 1000" in text.replace("\n", " ")


def test_a_chain_without_appeals_says_so(
    network: TinyNetwork, paying: tuple[str | Path, ...]
) -> None:
    node = ("--node", network.nodes[0])
    assert output_of(assay("query", "appeals", *node, "--json")) == []
    assert "no appeal is open" in assay("query", "appeals", *node).output
    job = output_of(assay("query", "job", "latest", *node, "--json"))
    assert job["appealed"] is False
    told = assay("query", "appeals", job["job"], *node, "--json")
    assert error_of(told)["reason"] == "UNKNOWN_JOB"
