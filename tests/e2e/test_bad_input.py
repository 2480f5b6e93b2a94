"""What a running node refuses, each with the reason a client can switch on; it goes on unharmed."""

import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from assay.v1 import node_pb2, node_pb2_grpc, transactions_pb2
from chain.asking import ask
from chain.client import NodeClient
from chain.execution.jobs import PROMPT_BYTES_PER_TOKEN_MAX
from chain.keys import KeyPair
from chain.node.errors import rejection_of
from chain.rejections import Rejection, RejectionReason
from chain.transactions import WINDOW_BLOCKS, make_operation, sign_transaction
from ext.transactions import BODY_BYTES_MAX, signing_digest
from tests.e2e.network import (
    COMMAND_BOUND_S,
    Network,
    check_equal_roots,
    client_of,
    command,
    in_process,
    refusal_of,
    request_for,
)

pytestmark = pytest.mark.timeout(900, method="signal")

FEE = 10_000_000
OVER_U32 = 1 << 32
OVER_U64 = 1 << 64


@pytest.fixture
async def client(network: Network) -> AsyncIterator[NodeClient]:
    async with client_of(network, 1) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def unharmed(network: Network) -> Iterator[None]:
    """After all refusals the devnet answers as before."""
    yield
    done = command("infer", "--home", network.home, "Still there?", "--max-tokens", "4", "--json")
    assert done.returncode == 0, done.stderr


def signed_by(
    key: KeyPair,
    network: Network,
    *messages: transactions_pb2.Transfer | transactions_pb2.RequestInference,
    chain_id: str = "",
    valid_until_height: int = 0,
    max_fee: int = FEE,
) -> transactions_pb2.SignedTx:
    return sign_transaction(
        key.signing_key,
        chain_id or network.genesis.chain_id,
        [make_operation(message) for message in messages],
        valid_until_height,
        max_fee,
        secrets.randbits(64),
    )


def transfer(amount: int = 1) -> transactions_pb2.Transfer:
    return transactions_pb2.Transfer(to=KeyPair.generate().public_key, amount=amount)


async def refused(client: NodeClient, signed: transactions_pb2.SignedTx) -> Rejection:
    with pytest.raises(Rejection) as caught:
        await client.submit(signed)
    assert caught.value.detail
    return caught.value


async def refused_question(
    client: NodeClient, network: Network, request: transactions_pb2.RequestInference
) -> Rejection:
    with pytest.raises(Rejection) as caught:
        await ask(client, network.user, request, COMMAND_BOUND_S)
    assert caught.value.detail
    return caught.value


async def test_a_question_to_an_unknown_model(network: Network, client: NodeClient) -> None:
    request = await request_for(client)
    request.model = bytes(32)
    rejection = await refused_question(client, network, request)
    assert rejection.reason is RejectionReason.UNKNOWN_MODEL


async def test_a_prompt_of_more_bytes_than_any_context_holds(
    network: Network, client: NodeClient
) -> None:
    context = (await client.models())[0].context_tokens
    prompt = "x" * (context * PROMPT_BYTES_PER_TOKEN_MAX + 1)
    rejection = await refused_question(client, network, await request_for(client, prompt=prompt))
    # 128 KiB of prompt with 8,192 tokens of context: the transaction is too large as well.
    assert rejection.reason in {RejectionReason.PROMPT_TOO_LONG, RejectionReason.TOO_LARGE}


async def test_a_prompt_of_more_tokens_than_the_context_is_refused_before_it_costs_anything(
    network: Network, client: NodeClient
) -> None:
    before = await client.account(network.user.public_key)
    context = (await client.models())[0].context_tokens
    request = await request_for(client, prompt="gold " * (context + 1))
    rejection = await refused_question(client, network, request)
    assert rejection.reason is RejectionReason.PROMPT_TOO_LONG
    assert str(context) in rejection.detail
    assert (await client.account(network.user.public_key)).balance == before.balance


@pytest.mark.parametrize("max_tokens", [0, 1_000_000, OVER_U32 - 1])
async def test_a_limit_of_tokens_that_no_answer_can_have(
    network: Network, client: NodeClient, max_tokens: int
) -> None:
    rejection = await refused_question(client, network, await request_for(client, max_tokens))
    assert rejection.reason is RejectionReason.MAX_TOKENS_OUT_OF_RANGE
    assert str(max_tokens) in rejection.detail


async def test_a_question_that_its_account_cannot_pay(network: Network, client: NodeClient) -> None:
    with pytest.raises(Rejection) as caught:
        await ask(client, KeyPair.generate(), await request_for(client), COMMAND_BOUND_S)
    assert caught.value.reason is RejectionReason.INSUFFICIENT_BALANCE


async def test_a_price_below_every_offer(network: Network, client: NodeClient) -> None:
    request = await request_for(client)
    request.max_price = 1
    rejection = await refused_question(client, network, request)
    assert rejection.reason is RejectionReason.PRICE_TOO_LOW


async def test_a_transfer_of_more_than_there_is(network: Network, client: NodeClient) -> None:
    height = (await client.status()).height
    signed = signed_by(network.user, network, transfer(1 << 60), valid_until_height=height + 9)
    assert (await refused(client, signed)).reason is RejectionReason.INSUFFICIENT_BALANCE


async def test_an_expired_transaction(network: Network, client: NodeClient) -> None:
    height = (await client.status()).height
    assert height > 1
    signed = signed_by(network.user, network, transfer(), valid_until_height=1)
    assert (await refused(client, signed)).reason is RejectionReason.EXPIRED


async def test_a_transaction_that_is_valid_for_too_long(
    network: Network, client: NodeClient
) -> None:
    height = (await client.status()).height + 2 * WINDOW_BLOCKS
    signed = signed_by(network.user, network, transfer(), valid_until_height=height)
    assert (await refused(client, signed)).reason is RejectionReason.TOO_FAR_AHEAD


async def test_a_replayed_transaction(network: Network, client: NodeClient) -> None:
    signed = await client.sign(network.user, [make_operation(transfer())])
    identity = await client.submit(signed)
    status = await client.wait(identity, COMMAND_BOUND_S)
    assert status.accepted
    assert (await refused(client, signed)).reason is RejectionReason.REPLAYED
    async with client_of(network, 2) as other:
        await other.wait(identity, COMMAND_BOUND_S)
        assert (await refused(other, signed)).reason is RejectionReason.REPLAYED


async def test_a_transaction_sent_to_two_nodes_at_once_counts_once(
    network: Network, client: NodeClient
) -> None:
    payment = transfer(777)
    signed = await client.sign(network.user, [make_operation(payment)])
    async with client_of(network, 3) as other:
        # Whichever comes second may be refused already, or be skipped at execution.
        outcomes = [*await client.submit_many([signed]), *await other.submit_many([signed])]
        assert outcomes[0].reason == ""
        await client.wait(outcomes[0].id, COMMAND_BOUND_S)
        later = await client.sign(network.user, [make_operation(transfer())])
        await client.wait(await client.submit(later), COMMAND_BOUND_S)
        await check_equal_roots(network)
        assert (await other.account(payment.to)).balance == 777


async def test_a_transaction_of_another_chain(network: Network, client: NodeClient) -> None:
    signed = signed_by(
        network.user, network, transfer(), chain_id="devnet-00000000", valid_until_height=100
    )
    rejection = await refused(client, signed)
    assert rejection.reason is RejectionReason.WRONG_CHAIN
    assert network.genesis.chain_id in rejection.detail


async def test_a_body_that_is_no_message(network: Network, client: NodeClient) -> None:
    signed = signed_by(network.user, network, transfer(), valid_until_height=100)
    signed.body = b"\xff" * 40
    assert (await refused(client, signed)).reason is RejectionReason.BAD_SIGNATURE
    digest = signing_digest(network.genesis.chain_id.encode(), signed.body)
    signed.signature = network.user.sign(digest)
    assert (await refused(client, signed)).reason is RejectionReason.MALFORMED


async def test_an_empty_transaction(client: NodeClient) -> None:
    rejection = await refused(client, transactions_pb2.SignedTx())
    assert rejection.reason in {RejectionReason.BAD_ADDRESS, RejectionReason.MALFORMED}


async def test_a_transaction_without_operations(network: Network, client: NodeClient) -> None:
    signed = signed_by(network.user, network, valid_until_height=100)
    assert (await refused(client, signed)).reason is RejectionReason.NO_OPERATIONS


async def test_a_transaction_with_too_many_operations(network: Network, client: NodeClient) -> None:
    payments = [transfer() for _ in range(257)]
    signed = signed_by(network.user, network, *payments, valid_until_height=100)
    assert (await refused(client, signed)).reason is RejectionReason.TOO_MANY_OPERATIONS


async def test_a_transaction_that_is_too_large(network: Network, client: NodeClient) -> None:
    signed = signed_by(network.user, network, transfer(), valid_until_height=100)
    signed.body += bytes(BODY_BYTES_MAX)
    assert (await refused(client, signed)).reason is RejectionReason.TOO_LARGE


@pytest.mark.parametrize("flipped", ["signature", "public_key", "body"])
async def test_a_signature_that_does_not_hold(
    network: Network, client: NodeClient, flipped: str
) -> None:
    signed = await client.sign(network.user, [make_operation(transfer())])
    data = bytearray(getattr(signed, flipped))
    data[-1] ^= 1
    setattr(signed, flipped, bytes(data))
    reason = (await refused(client, signed)).reason
    assert reason is RejectionReason.BAD_SIGNATURE


async def test_a_fee_below_what_it_costs(network: Network, client: NodeClient) -> None:
    height = (await client.status()).height
    signed = signed_by(network.user, network, transfer(), valid_until_height=height + 9, max_fee=1)
    assert (await refused(client, signed)).reason is RejectionReason.FEE_TOO_LOW


async def test_infer_takes_questions_only(network: Network, client: NodeClient) -> None:
    signed = await client.sign(network.user, [make_operation(transfer())])
    with pytest.raises(Rejection) as caught:
        async for _ in client.infer(signed, COMMAND_BOUND_S):
            pass
    assert caught.value.reason is RejectionReason.MALFORMED
    assert "transfer" in caught.value.detail


async def test_jobs_and_blocks_that_do_not_exist(client: NodeClient) -> None:
    for identity in (bytes(32), b"", b"short"):
        with pytest.raises(Rejection) as caught:
            await client.job(identity)
        assert caught.value.reason is RejectionReason.UNKNOWN_JOB
        with pytest.raises(Rejection) as caught:
            await client.receipt(identity)
        assert caught.value.reason is RejectionReason.UNKNOWN_JOB
    for height in (1 << 40, (1 << 64) - 1):
        with pytest.raises(Rejection) as caught:
            await client.block(height)
        assert caught.value.reason is RejectionReason.NOT_FOUND
    with pytest.raises(Rejection) as caught:
        await client.account(b"short")
    assert caught.value.reason is RejectionReason.BAD_ADDRESS


async def test_one_bad_transaction_of_many_is_refused_alone(
    network: Network, client: NodeClient
) -> None:
    good = await client.sign(network.user, [make_operation(transfer())])
    bad = await client.sign(network.user, [make_operation(transfer())])
    bad.signature = bytes(64)
    outcomes = await client.submit_many([bad, good])
    assert [outcome.reason for outcome in outcomes] == ["BAD_SIGNATURE", ""]
    assert (await client.wait(outcomes[1].id, COMMAND_BOUND_S)).accepted


async def test_too_many_transactions_in_one_call(network: Network) -> None:
    request = node_pb2.SubmitManyRequest(transactions=[transactions_pb2.SignedTx()] * 4_097)
    async with grpc.aio.insecure_channel(network.nodes[1].public) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await node_pb2_grpc.TransactionsStub(channel).SubmitMany(request)
    rejection = rejection_of(caught.value)
    assert rejection is not None
    assert rejection.reason is RejectionReason.TOO_LARGE


@pytest.mark.parametrize("method", ["Transactions/Submit", "Chain/Status", "Inference/Infer"])
async def test_bytes_that_are_no_message_at_all(network: Network, method: str) -> None:
    async with grpc.aio.insecure_channel(network.nodes[1].public) as channel:
        streams = method == "Inference/Infer"
        make: Any = channel.unary_stream if streams else channel.unary_unary
        call = make(f"/assay.v1.{method}")(b"\xff" * 5, timeout=COMMAND_BOUND_S)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (call.read() if streams else call)
        rejection = rejection_of(caught.value)
        assert rejection is not None
        assert rejection.reason is RejectionReason.MALFORMED
        assert f"assay.v1.{method}" in rejection.detail
        reply = await node_pb2_grpc.ChainStub(channel).Status(node_pb2.StatusRequest())
        assert reply.chain_id == network.genesis.chain_id


async def test_a_message_beyond_the_transport_bound(network: Network) -> None:
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(network.nodes[1].public, options=options) as channel:
        stub = node_pb2_grpc.TransactionsStub(channel)
        huge = transactions_pb2.SignedTx(body=bytes(9 << 20))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Submit(node_pb2.SubmitRequest(transaction=huge), timeout=COMMAND_BOUND_S)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert rejection_of(caught.value) is None
        reply = await node_pb2_grpc.ChainStub(channel).Status(node_pb2.StatusRequest())
        assert reply.chain_id == network.genesis.chain_id


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--model", "no-such-model"), "UNKNOWN_MODEL"),
        (("--max-tokens", "0"), "MAX_TOKENS_OUT_OF_RANGE"),
        (("--max-price", "1"), "PRICE_TOO_LOW"),
        (("--max-price", str(OVER_U64 - 1)), "INSUFFICIENT_BALANCE"),
        (("--temperature", "9"), "BAD_SAMPLING"),
        (("--min-tokens", "129"), "BAD_SAMPLING"),
        (("--logprob-ceiling", "20.001"), "BAD_SAMPLING"),
        (("--provider", "assay1nonsense"), "BAD_ADDRESS"),
    ],
)
def test_the_command_tells_the_nodes_reason(
    network: Network, options: tuple[str, ...], reason: str
) -> None:
    done = in_process("infer", "--home", network.home, "Hello", *options, "--json")
    assert refusal_of(done)["reason"] == reason


@pytest.mark.parametrize(
    "options",
    [
        ("--max-tokens", str(OVER_U32)),
        ("--max-price", str(OVER_U64)),
        ("--temperature", "1e9"),
        ("--temperature", "nan"),
        ("--min-tokens", str(OVER_U32)),
        ("--min-tokens", "-1"),
        ("--logprob-ceiling", "-0.5"),
        ("--logprob-ceiling", "nan"),
        ("--top-k", str(OVER_U32)),
        ("--answer-within", "1e9"),
    ],
)
def test_numbers_that_no_request_can_hold_are_refused_before_anything_is_asked(
    network: Network, options: tuple[str, ...]
) -> None:
    done = in_process("infer", "--home", network.home, "Hello", *options, "--json")
    refusal = refusal_of(done, code=2)
    assert refusal["reason"] == "USAGE"
    assert options[0] in refusal["detail"]


def test_a_transfer_of_more_grain_than_a_transfer_can_hold(network: Network) -> None:
    done = in_process(
        *("tx", "transfer", "00" * 32, str(OVER_U64), "--home", network.home, "--json"),
    )
    assert refusal_of(done, code=2)["reason"] == "USAGE"


def test_a_node_that_is_not_there(network: Network) -> None:
    done = command("query", "validators", "--node", "127.0.0.1:1", "--json")
    refusal = refusal_of(done)
    assert refusal["reason"] == "NODE_UNAVAILABLE"
    assert "127.0.0.1:1" in refusal["detail"]


async def test_all_validators_still_agree(network: Network) -> None:
    await check_equal_roots(network)
