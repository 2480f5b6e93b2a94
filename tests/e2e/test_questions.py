"""Questions to a running devnet, from the prompt to a receipt that is checked offline."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from chain import receipt_files
from chain.addresses import encode_address
from chain.asking import ask
from chain.keys import KeyPair
from chain.receipts import ReceiptFault, ReceiptInvalid, verify_receipt
from tests.e2e.network import (
    COMMAND_BOUND_S,
    QUESTION,
    Network,
    check_equal_roots,
    client_of,
    command,
    in_process,
    output_of,
    refusal_of,
    request_for,
)

pytestmark = pytest.mark.timeout(900, method="signal")

FLIPS = 150
"""Positions of a receipt that are flipped, evenly spread; tests/chain flips every one."""
NODE_SERVICES = {
    f"assay.v1.{name}" for name in ("Transactions", "Inference", "Chain", "State", "Proofs")
}


@pytest.fixture(scope="module")
def answered(network: Network) -> tuple[dict[str, Any], Path]:
    """A question's JSON answer, and the receipt file it wrote."""
    path = network.home / "greedy.json"
    done = command(
        *("infer", "--home", network.home, QUESTION, "--max-tokens", "16"),
        *("--receipt", path, "--json"),
    )
    return output_of(done), path


def verify(network: Network, path: Path) -> CompletedProcess[str]:
    genesis = network.home / "genesis.json"
    return command("receipt", "verify", path, "--genesis", genesis, "--json")


def test_a_question_is_answered_verified_and_timed(
    answered: tuple[dict[str, Any], Path],
) -> None:
    answer, _ = answered
    assert answer["verdict"] == "VERIFIED"
    assert answer["verifiers"] == 3
    assert {seat["verdict"] for seat in answer["committee"]} == {"PASS"}
    assert answer["text"]
    assert len(bytes.fromhex(answer["job"])) == 32
    assert 0 < answer["ttft_ms"] < answer["verified_ms"]
    assert answer["receipt_checked"]


def test_its_receipt_verifies_offline_and_tells_the_same(
    network: Network, answered: tuple[dict[str, Any], Path]
) -> None:
    answer, path = answered
    told = output_of(verify(network, path))
    assert told["verdict"] == "VERIFIED"
    assert (told["job"], told["text"]) == (answer["job"], answer["text"])
    assert len(told["signers"]) >= 3


def flip_hex(text: str) -> str:
    return text[:-1] + ("0" if text[-1] != "0" else "1")


def change_token(receipt: dict[str, Any]) -> None:
    receipt["result"]["token_ids"][3] += 1


def change_result_bytes(receipt: dict[str, Any]) -> None:
    receipt["result"]["bytes"] = flip_hex(receipt["result"]["bytes"])


def change_text(receipt: dict[str, Any]) -> None:
    receipt["result"]["text"] += "!"


def change_verdict(receipt: dict[str, Any]) -> None:
    receipt["job"]["verdicts"][0]["verdict"] = "FAIL"


def change_status(receipt: dict[str, Any]) -> None:
    receipt["job"]["status"] = "REJECTED"


def change_payment(receipt: dict[str, Any]) -> None:
    receipt["job"]["payments"][0]["amount"] += 1


def change_header(receipt: dict[str, Any]) -> None:
    header = receipt["finality"]["header"]
    header["timestamp_ms"] += 1


def change_executed_root(receipt: dict[str, Any]) -> None:
    header = receipt["finality"]["header"]
    header["executed_root"] = flip_hex(header["executed_root"])


def change_signature(receipt: dict[str, Any]) -> None:
    signatures = receipt["finality"]["certificate"]["signatures"]
    signatures[-1] = flip_hex(signatures[-1])


def drop_signer(receipt: dict[str, Any]) -> None:
    certificate = receipt["finality"]["certificate"]
    certificate["signers"] = certificate["signers"][:2]
    certificate["signatures"] = certificate["signatures"][:2]


def change_previous_root(receipt: dict[str, Any]) -> None:
    receipt["inclusion"]["previous_root"] = flip_hex(receipt["inclusion"]["previous_root"])


def change_link(receipt: dict[str, Any]) -> None:
    link = receipt["inclusion"]["links"][0]
    link["receipts_root"] = flip_hex(link["receipts_root"])


def lengthen_path(receipt: dict[str, Any]) -> None:
    receipt["inclusion"]["path"].append({"sibling": "00" * 32, "sibling_is_left": False})


def change_request(receipt: dict[str, Any]) -> None:
    receipt["request"]["bytes"] = flip_hex(receipt["request"]["bytes"])


CHANGES: dict[Callable[[dict[str, Any]], None], ReceiptFault] = {
    change_token: ReceiptFault.UNREADABLE,
    change_text: ReceiptFault.UNREADABLE,
    change_result_bytes: ReceiptFault.UNREADABLE,
    change_request: ReceiptFault.UNREADABLE,
    change_verdict: ReceiptFault.NOT_IN_BLOCK,
    change_status: ReceiptFault.NOT_IN_BLOCK,
    change_payment: ReceiptFault.NOT_IN_BLOCK,
    lengthen_path: ReceiptFault.NOT_IN_BLOCK,
    change_link: ReceiptFault.NOT_IN_BLOCK,
    change_previous_root: ReceiptFault.EXECUTION_MISMATCH,
    change_executed_root: ReceiptFault.EXECUTION_MISMATCH,
    change_header: ReceiptFault.HEADER_MISMATCH,
    drop_signer: ReceiptFault.NO_QUORUM,
    change_signature: ReceiptFault.BAD_SIGNATURE,
}
SHOWN_BY_COMMAND = (change_token, change_verdict, change_header, change_signature)


def changed_file(original: Path, change: Callable[[dict[str, Any]], None], folder: Path) -> Path:
    receipt = json.loads(original.read_text())
    change(receipt)
    path = folder / "changed.json"
    path.write_text(json.dumps(receipt))
    return path


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_receipt_proves_nothing(
    network: Network,
    answered: tuple[dict[str, Any], Path],
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
) -> None:
    path = changed_file(answered[1], change, tmp_path)
    with pytest.raises(ReceiptInvalid) as caught:
        verify_receipt(receipt_files.read(path), network.genesis)
    assert caught.value.reason is CHANGES[change]


@pytest.mark.parametrize("change", SHOWN_BY_COMMAND)
def test_the_command_says_no_to_a_changed_receipt(
    network: Network,
    answered: tuple[dict[str, Any], Path],
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
) -> None:
    path = changed_file(answered[1], change, tmp_path)
    genesis = network.home / "genesis.json"
    refusal = refusal_of(in_process("receipt", "verify", path, "--genesis", genesis, "--json"))
    assert refusal["reason"] == CHANGES[change].value
    assert refusal["detail"]


def test_any_flipped_byte_of_the_protobuf_form_proves_nothing(
    network: Network, answered: tuple[dict[str, Any], Path]
) -> None:
    data = receipt_files.dump_protobuf(receipt_files.read(answered[1]))
    verify_receipt(receipt_files.load(data), network.genesis)
    step = max(1, len(data) // FLIPS)
    for position in range(0, len(data), step):
        flipped = bytearray(data)
        flipped[position] ^= 1 << (position % 8)
        with pytest.raises(ReceiptInvalid):
            verify_receipt(receipt_files.load(bytes(flipped)), network.genesis)


def test_an_answer_at_temperature_is_verified_and_tokens_stream_as_text(
    network: Network,
) -> None:
    done = command(
        *("infer", "--home", network.home, "Name three metals.", "--max-tokens", "16"),
        *("--temperature", "0.8"),
    )
    assert done.returncode == 0, done.stderr
    streamed, _, told = done.stdout.partition("\nVERIFIED by 3 validators")
    job = output_of(in_process("query", "job", "latest", "--home", network.home, "--json"))
    assert told
    assert job["status"] == "VERIFIED"
    assert job["text"].rstrip("\n") == streamed.rstrip("\n")


def test_two_providers_give_the_same_tokens_for_the_same_seed(
    network: Network, tmp_path: Path
) -> None:
    results = []
    for provider, gateway in ((0, 1), (3, 2)):
        path = tmp_path / f"receipt-{provider}.json"
        answer = output_of(
            command(
                *("infer", "--home", network.home, "--node", network.nodes[gateway].public),
                *(QUESTION, "--max-tokens", "12", "--temperature", "0.8", "--seed", "7"),
                *("--provider", encode_address(network.account(provider))),
                *("--receipt", path, "--json"),
            )
        )
        assert answer["verdict"] == "VERIFIED"
        assert answer["provider"] == network.account(provider).hex()
        results.append(receipt_files.read(path).result)
    assert results[0] is not None
    assert results[0] == results[1]


def test_an_answer_of_at_least_so_many_tokens_under_a_ceiling_is_verified(
    network: Network, tmp_path: Path
) -> None:
    path = tmp_path / "receipt.json"
    answer = output_of(
        command(
            *("infer", "--home", network.home, "Say yes.", "--max-tokens", "16"),
            *("--min-tokens", "16", "--logprob-ceiling", "1.5", "--temperature", "0.8"),
            *("--receipt", path, "--json"),
        )
    )
    assert (answer["verdict"], answer["output_tokens"]) == ("VERIFIED", 16)
    sampling = json.loads(path.read_text())["request"]["sampling"]
    assert (sampling["min_tokens"], sampling["logprob_ceiling_milli"]) == (16, 1_500)


async def test_other_seeds_give_other_tokens(network: Network) -> None:
    results = set()
    for seed in (b"\x01" * 32, b"\x02" * 32):
        async with client_of(network) as client:
            request = await request_for(client, 16, temperature_milli=1_000, seed=seed)
            answer = await ask(client, network.user, request, COMMAND_BOUND_S)
        results.add(answer.receipt.result)
    assert len(results) == 2


def test_a_transfer_arrives(network: Network) -> None:
    receiver = KeyPair.generate().public_key
    sent = output_of(
        command(
            *("tx", "transfer", encode_address(receiver), "12345"),
            *("--home", network.home, "--json"),
        )
    )
    assert sent["fee"] > 0
    for node in network.nodes[:2]:
        account = output_of(
            in_process("query", "account", receiver.hex(), "--node", node.public, "--json")
        )
        assert account["balance"] == 12_345


def test_the_chain_tells_what_it_knows(
    network: Network, answered: tuple[dict[str, Any], Path]
) -> None:
    def query(*arguments: str) -> Any:
        return output_of(in_process("query", *arguments, "--home", network.home, "--json"))

    job = query("job", answered[0]["job"])
    assert (job["status"], job["text"]) == ("VERIFIED", answered[0]["text"])
    assert job["escrow"] == 0
    (model,) = output_of(in_process("model", "list", "--home", network.home, "--json"))
    assert [verifier["validator"] for verifier in model["verifiers"]] == [0, 1, 2, 3]
    assert {offer["operator"] for offer in model["offers"]} == {0, 1, 2, 3}
    validators = query("validators")
    assert [item["index"] for item in validators] == [0, 1, 2, 3]
    block = query("block", str(answered[0]["height"]))
    assert block["height"] == answered[0]["height"]
    assert block["signers"] >= 3


def test_the_status_of_all_validators_is_shown(network: Network) -> None:
    shown = output_of(command("devnet", "status", "--home", network.home, "--json"))
    assert [item["validator"] for item in shown] == [0, 1, 2, 3]
    assert all(item["running"] and item["voting"] and item["runtime_ready"] for item in shown)
    assert all(set(item["peers"].values()) == {True} for item in shown)


def test_a_running_devnet_is_not_started_twice(network: Network) -> None:
    done = command(
        *("devnet", "start", "--home", network.home, "--model", network.home, "--detach"), "--json"
    )
    refusal = refusal_of(done)
    assert refusal["reason"] == "CANNOT_START"
    assert "4 of its nodes run already" in refusal["detail"]


async def test_every_service_is_healthy_and_described(network: Network) -> None:
    address = network.nodes[1].public
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", *sorted(NODE_SERVICES)):
            reply = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
    with grpc.insecure_channel(address) as plain:
        described = ProtoReflectionDescriptorDatabase(plain)
        assert set(described.get_services()) >= NODE_SERVICES


async def test_all_validators_agree_on_what_was_executed(network: Network) -> None:
    block = await check_equal_roots(network)
    assert block.height > 0
