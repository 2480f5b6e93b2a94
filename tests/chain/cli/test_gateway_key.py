"""`assay gateway key`, on a real network with a running gateway."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from chain.addresses import encode_address
from chain.gateway.access import AccessFile
from chain.keys import KeyPair, Role
from chain.keystore import KdfCost, save_key
from tests.builders import key
from tests.chain.cli.test_cli import assay, error_of, output_of
from tests.chain.gateway.tiny_network import BOUND_S, MODEL, TinyNetwork, tiny_genesis

CAP = 1_000_000_000


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyNetwork]:
    network = TinyNetwork(tiny_genesis("alice"))
    with network.running(tmp_path_factory.mktemp("gateway-key-network")) as running:
        yield running


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with alice's key and that of a session which nobody granted."""
    cost = KdfCost(passes=1, memory_kib=64, lanes=1)
    save_key(tmp_path / "alice.json", key("alice"), Role.ACCOUNT, b"secret", cost)
    save_key(tmp_path / "stray.json", KeyPair.generate(), Role.ACCOUNT, b"secret", cost)
    (tmp_path / "pass").write_text("secret\n")
    return tmp_path


def status_of(url: str, secret: str) -> int:
    return httpx2.post(
        f"{url}/v1/completions",
        json={"model": MODEL, "prompt": "to assay", "max_tokens": 5},
        headers={"authorization": f"Bearer {secret}"},
        timeout=BOUND_S,
    ).status_code


def until(url: str, secret: str, status: int) -> None:
    """Wait until the running gateway answers with it."""
    end = time.monotonic() + BOUND_S
    while (found := status_of(url, secret)) != status:
        assert time.monotonic() < end, found
        time.sleep(0.2)


def test_a_running_gateway_follows_keys_as_they_are_created_and_revoked(
    network: TinyNetwork, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = ("--api-keys", files / "keys.toml", "--node", network.nodes[0], "--json")
    alice = (*file, "--key", files / "alice.json", "--passphrase-file", files / "pass")
    caps = ("--operation-cap", str(CAP), "--total-cap", str(2 * CAP))
    first = output_of(assay("gateway", "key", "create", "first", *caps, *alice))
    taken = assay("gateway", "key", "create", "first", *caps, *alice)
    assert error_of(taken)["reason"] == "BAD_API_KEYS"
    text = (files / "keys.toml").read_text()
    assert first["api_key"] not in text
    with network.gateway(AccessFile(files / "keys.toml", None), book=files / "book") as url:
        assert status_of(url, first["api_key"]) == 200
        second = output_of(assay("gateway", "key", "create", "second", *caps, *alice))
        until(url, second["api_key"], 200)

        ended = output_of(assay("gateway", "key", "revoke", "first", *alice))
        assert (ended["file"], ended["session"]) == ("revoked", "revoked")
        until(url, first["api_key"], 401)
        assert status_of(url, second["api_key"]) == 200

        (files / "keys.toml").write_text("[[key")
        end = time.monotonic() + BOUND_S
        while "stay as they were" not in caplog.text:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert status_of(url, second["api_key"]) == 200
    (files / "keys.toml").write_text(f"# of mine\n{text}")
    again = output_of(assay("gateway", "key", "revoke", "first", *alice))
    assert again["session"] == "none"
    assert (files / "keys.toml").read_text().startswith("# of mine\n")
    (listed,) = output_of(assay("gateway", "key", "list", *file))
    assert (listed["name"], listed["state"]) == ("first", "revoked")


def test_caps_and_last_block_of_a_created_key_are_held_by_the_chain(
    network: TinyNetwork, files: Path
) -> None:
    file = ("--api-keys", files / "keys.toml", "--node", network.nodes[0], "--json")
    alice = (*file, "--key", files / "alice.json", "--passphrase-file", files / "pass")

    def created(name: str, operation_cap: int, *more: str) -> str:
        caps = ("--operation-cap", str(operation_cap), "--total-cap", str(2 * CAP), *more)
        made = output_of(assay("gateway", "key", "create", name, *caps, *alice))
        return str(made["api_key"])

    wide, narrow = created("wide", CAP), created("narrow", 1)
    brief = created("brief", CAP, "--expires-in", "2")
    with network.gateway(AccessFile(files / "keys.toml", None), book=files / "book") as url:
        assert status_of(url, narrow) == 402
        assert status_of(url, wide) == 200  # takes more than two blocks
        assert status_of(url, brief) == 403
    listed = output_of(assay("gateway", "key", "list", *file))
    states = {item["name"]: item["state"] for item in listed}
    assert (states["wide"], states["brief"]) == ("live", "not granted on chain")


def test_what_the_chain_holds_of_an_api_key_is_listed(network: TinyNetwork, files: Path) -> None:
    file = ("--api-keys", files / "keys.toml", "--node", network.nodes[0], "--json")
    alice = (*file, "--key", files / "alice.json", "--passphrase-file", files / "pass")
    stray = ("--session-key", files / "stray.json", "--session-passphrase-file", files / "pass")
    refused = assay("gateway", "key", "create", "agent", *stray, *alice)
    assert error_of(refused)["reason"] == "UNKNOWN_SESSION"
    assert error_of(assay("gateway", "key", "create", "agent", *alice), 2)["reason"] == "USAGE"

    caps = ("--operation-cap", str(CAP), "--total-cap", str(2 * CAP), "--model", MODEL)
    made = output_of(assay("gateway", "key", "create", "agent", *caps, *alice))
    own = ("--session-key", files / "api-keys" / "agent.json")
    passphrase = ("--session-passphrase-file", files / "api-keys" / "agent.pass")
    output_of(assay("gateway", "key", "create", "twin", *own, *passphrase, *alice))
    agent, twin = output_of(assay("gateway", "key", "list", *file))
    assert agent["state"] == twin["state"] == "live"
    assert agent["session_key"] == twin["session_key"] == made["session_key"]
    assert agent["account"] == encode_address(key("alice").public_key)
    held = agent["session"]
    assert (held["operation_cap"], held["left"], held["allow"]) == (
        CAP,
        2 * CAP,
        ["request-inference"],
    )
    shared = output_of(assay("gateway", "key", "revoke", "agent", *alice))
    assert shared["session"] == "shared"
    output_of(assay("session", "revoke", made["session_key"], *alice[2:]))
    states = [item["state"] for item in output_of(assay("gateway", "key", "list", *file))]
    assert states == ["revoked", "not granted on chain"]
    unknown = assay("gateway", "key", "revoke", "nobody", *alice)
    assert error_of(unknown)["reason"] == "BAD_API_KEYS"
