"""`assay model`, on a real network and with packages on disk."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chain.addresses import encode_address
from chain.calibrations import PINNED
from chain.keys import Role
from chain.keystore import KdfCost, save_key
from chain.pairs import ARBITER_PROFILE
from chain.parameters import GRAIN_PER_ASY
from chain.readable import render
from runtime.packages import ModelPackage, pack
from tests.builders import key
from tests.chain.cli.test_cli import assay, error_of, output_of
from tests.chain.gateway.tiny_network import MODEL, TinyNetwork, tiny_genesis
from tests.chain.node.agents import PROFILE
from tests.runtime.tiny_model import TinyModel, write_gguf

VLLM = "vllm-bfloat16-test"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyNetwork]:
    network = TinyNetwork(tiny_genesis("alice", "bob"))
    with network.running(tmp_path_factory.mktemp("model-network")) as running:
        yield running


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return packed(tmp_path_factory.mktemp("package"), "little")


def packed(folder: Path, name: str) -> ModelPackage:
    return pack(write_gguf(TinyModel(), folder / "tiny.gguf"), folder / "package", name=name)


@pytest.fixture(scope="module")
def registered(
    network: TinyNetwork, package: ModelPackage, tmp_path_factory: pytest.TempPathFactory
) -> ModelPackage:
    """The package, registered by alice with a pair more than the built-in one."""
    files = key_files(tmp_path_factory.mktemp("keys"))
    report = report_of(files / "pair.json", package)
    output_of(assay("model", "register", package.path, "--report", report, *by(network, files)))
    return package


def key_files(folder: Path) -> Path:
    cost = KdfCost(passes=1, memory_kib=64, lanes=1)
    for name in ("alice", "bob"):
        save_key(folder / f"{name}.json", key(name), Role.ACCOUNT, b"secret", cost)
    (folder / "pass").write_text("secret\n")
    (folder / "pass").chmod(0o600)
    return folder


def by(network: TinyNetwork, files: Path, name: str = "alice") -> tuple[str | Path, ...]:
    keys = ("--key", files / f"{name}.json", "--passphrase-file", files / "pass")
    return ("--node", network.nodes[0], "--json", *keys)


def report_of(path: Path, package: ModelPackage, distance_max: int = 300) -> Path:
    """A calibration report of vLLM's answers, checked by the built-in engine."""
    report = {
        "model": package.model_id.hex(),
        "provider_profile": VLLM,
        "verifier_profile": ARBITER_PROFILE,
        "thresholds": render(replace(PINNED, distance_max=distance_max)),
    }
    path.write_text(json.dumps(report))
    return path


def test_a_package_is_registered_once_and_listed(
    network: TinyNetwork, registered: ModelPackage, tmp_path: Path
) -> None:
    files = key_files(tmp_path)
    (listed,) = output_of(
        assay("model", "list", registered.manifest.name, "--node", network.nodes[0], "--json")
    )
    assert listed["model"] == registered.model_id.hex()
    assert listed["owner"] == encode_address(key("alice").public_key)
    profiles = [(pair["provider_profile"], pair["verifier_profile"]) for pair in listed["pairs"]]
    assert profiles == [(ARBITER_PROFILE, ARBITER_PROFILE), (VLLM, ARBITER_PROFILE)]
    every = output_of(assay("model", "list", "--node", network.nodes[0], "--json"))
    assert {model["name"] for model in every} >= {MODEL, registered.manifest.name}

    before = network.balance(key("bob"))
    again = error_of(assay("model", "register", registered.path, *by(network, files, "bob")))
    assert again["reason"] == "MODEL_EXISTS"
    assert encode_address(key("alice").public_key) in again["detail"]
    assert "OTHER pairs" in again["detail"]
    assert network.balance(key("bob")) == before


def test_a_registration_burns_its_price_and_says_so(network: TinyNetwork, tmp_path: Path) -> None:
    files = key_files(tmp_path)
    other = packed(tmp_path, "other")
    before = network.balance(key("bob"))
    done = output_of(assay("model", "register", other.path, *by(network, files, "bob")))
    assert before - network.balance(key("bob")) == done["burnt"] + done["fee"]
    assert done["burnt"] == GRAIN_PER_ASY


def test_what_is_no_package_or_no_report_of_it_registers_nothing(
    network: TinyNetwork, package: ModelPackage, tmp_path: Path
) -> None:
    files = key_files(tmp_path)
    before = network.balance(key("bob"))
    asked = ("model", "register", package.path, *by(network, files, "bob"))
    foreign = tmp_path / "foreign.json"
    foreign.write_text(json.dumps({"model": "00" * 32}))
    assert error_of(assay(*asked, "--report", foreign))["reason"] == "BAD_REPORT"
    broken = ("model", "register", tmp_path, *by(network, files, "bob"))
    assert error_of(assay(*broken))["reason"] == "BAD_PACKAGE"
    assert network.balance(key("bob")) == before


def test_a_model_is_offered_changed_and_withdrawn(network: TinyNetwork, tmp_path: Path) -> None:
    files = key_files(tmp_path)
    offer = ("model", "offer", MODEL, *by(network, files, "bob"))
    priced = ("--operator", "1", "--input-price", "5", "--output-price", "50")
    assert error_of(assay(*offer, *priced))["reason"] == "INSUFFICIENT_STAKE"
    stake = ("--stake", str(2000 * GRAIN_PER_ASY))
    made = output_of(assay(*offer, *priced, *stake))
    assert (made["capacity"], made["engine_profile"]) == (1, PROFILE)
    output_of(assay(*offer, *priced, "--capacity", "3"))

    def own() -> dict[str, object]:
        listed = output_of(assay("model", "list", MODEL, "--node", network.nodes[0], "--json"))
        (found,) = [item for item in listed[0]["offers"] if item["provider"] == made["provider"]]
        return dict(found)

    assert (own()["capacity"], own()["output_price"], own()["operator"]) == (3, 50, 1)
    output_of(assay(*offer, "--withdraw"))
    assert own()["capacity"] == 0
    assert error_of(assay(*offer), code=2)["reason"] == "USAGE"


def test_an_audit_agrees_with_what_was_registered(
    network: TinyNetwork, registered: ModelPackage, tmp_path: Path
) -> None:
    audit = ("model", "audit", registered.manifest.name, "--node", network.nodes[0], "--json")
    report = report_of(tmp_path / "pair.json", registered)
    found = output_of(assay(*audit, "--package", registered.path, "--report", report))
    assert found["agrees"]
    assert {check["agrees"] for check in found["checks"]} == {True}
    served = ("model", "audit", MODEL, "--node", network.nodes[0], "--json")
    assert output_of(assay(*served, "--runtime", network.runtime))["agrees"]


def test_an_audit_names_what_differs_and_ends_with_1(
    network: TinyNetwork, registered: ModelPackage, tmp_path: Path
) -> None:
    audit = ("model", "audit", registered.manifest.name, "--node", network.nodes[0], "--json")
    other = packed(tmp_path, "other")
    looser = report_of(tmp_path / "looser.json", registered, distance_max=301)
    for option, value, check in (
        ("--package", other.path, "package.model"),
        ("--runtime", network.runtime, "runtime.model"),
        ("--report", looser, f"report looser.json, thresholds of {VLLM} and {ARBITER_PROFILE}"),
    ):
        result = assay(*audit, option, value)
        assert result.exit_code == 1
        (differs,) = [item for item in json.loads(result.stdout)["checks"] if not item["agrees"]]
        assert differs["check"] == check
        assert differs["advice"]
    assert error_of(assay(*audit), code=2)["reason"] == "USAGE"
    nowhere = error_of(assay(*audit, "--runtime", "127.0.0.1:1"))
    assert nowhere["reason"] == "RUNTIME_UNAVAILABLE"
