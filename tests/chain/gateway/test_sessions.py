"""API keys that are session keys on chain: what the gateway can't exceed, nor who has its files."""

import asyncio
import hashlib
from collections.abc import Coroutine
from typing import Any

import httpx2
from google.protobuf.message import Message
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from assay.v1 import node_pb2, transactions_pb2
from chain.asking import pick_model, price_ceiling
from chain.client import NodeClient
from chain.dapp.client import draft_request
from chain.gateway.access import Access, ApiKey
from chain.keys import KeyPair
from chain.parameters import GRAIN_PER_ASY
from chain.rejections import Rejection
from chain.transactions import make_operation
from tests.builders import key
from tests.chain.gateway.tiny_network import BOUND_S, MODEL, TinyNetwork

SECRET = "an agent's bearer"
TOKENS = 5


def access_of(session: KeyPair, granter: KeyPair) -> Access:
    """One API key, which stands for the session key and has no cap of the gateway's."""
    caller = ApiKey("agent", session, account=granter.public_key)
    return Access({hashlib.sha256(SECRET.encode()).digest(): caller})


def post(url: str, prompt: str = "to assay") -> httpx2.Response:
    question = {"model": MODEL, "prompt": prompt, "max_tokens": TOKENS}
    headers = {"authorization": f"Bearer {SECRET}"}
    return httpx2.post(f"{url}/v1/completions", json=question, headers=headers, timeout=BOUND_S)


async def asked(url: str) -> str:
    """The status of a question, which another thread waits for."""
    return str((await asyncio.to_thread(post, url)).status_code)


class Granter:
    """A fresh account with some money, and what it lets its session key do."""

    def __init__(self, network: TinyNetwork) -> None:
        self.network = network
        self.key = KeyPair.generate()
        self.send(key("alice"), pay(self.key.public_key, 10 * GRAIN_PER_ASY))

    def send(self, signer: KeyPair, *messages: Any, account: bytes = b"") -> str:
        """The reason why the transaction was refused, here or in its block; empty if not."""

        async def run(client: NodeClient) -> str:
            operations = [make_operation(message) for message in messages]
            try:
                signed = await client.sign(signer, operations, account=account)
                status = await client.wait(await client.submit(signed), BOUND_S)
            except Rejection as rejection:
                return str(rejection.reason)
            return status.reason

        return self.network.ask(run)

    def grant(self, session: KeyPair, operation_cap: int, total_cap: int) -> None:
        height = self.network.ask(NodeClient.status).height
        message = transactions_pb2.GrantSession(
            key=session.public_key,
            operation_cap=operation_cap,
            total_cap=total_cap,
            expires_at_height=height + 100_000,
            kinds=[
                transactions_pb2.OPERATION_KIND_TRANSFER,
                transactions_pb2.OPERATION_KIND_REQUEST_INFERENCE,
            ],
        )
        revoke = [transactions_pb2.RevokeSession(key=session.public_key)] * bool(self.sessions())
        assert self.send(self.key, *revoke, message) == ""

    def sessions(self) -> list[node_pb2.SessionView]:
        return list(self.network.ask(lambda client: client.sessions(self.key.public_key)))

    def price(self) -> int:
        """What the gateway offers for a question of these tests."""
        request = draft_request("to assay", max_tokens=TOKENS)

        async def run(client: NodeClient) -> int:
            model = await pick_model(client, MODEL)
            return await price_ceiling(client, await client.parameters(), model, request)

        return self.network.ask(run)

    def settled(self) -> int:
        """What the session has spent when none of its jobs is open."""

        async def run(client: NodeClient) -> None:
            final = {"VERIFIED", "REJECTED", "REFUNDED"}
            while {
                job.status
                for job in await client.jobs(1000)
                if job.requester == self.key.public_key
            } - final:
                await asyncio.sleep(0.05)

        self.network.ask(run)
        (session,) = self.sessions()
        return session.spent


def pay(receiver: bytes, amount: int) -> transactions_pb2.Transfer:
    return transactions_pb2.Transfer(to=receiver, amount=amount)


def test_an_api_key_is_held_to_its_session_by_the_chain(network: TinyNetwork) -> None:
    granter, session = Granter(network), KeyPair.generate()
    granter.grant(session, GRAIN_PER_ASY, 5 * GRAIN_PER_ASY)
    with network.gateway(access_of(session, granter.key)) as url:
        assert post(url).status_code == 200
        (job,) = network.jobs_of(granter.key)
        cost = granter.settled()
        assert cost > 0
        granter.grant(session, job.max_price + cost, job.max_price + cost)
        assert post(url).status_code == 200
        refused = post(url)
        assert (refused.status_code, refused.json()["error"]["code"]) == (402, "SESSION_TOTAL_CAP")
        assert (
            granter.send(granter.key, transactions_pb2.RevokeSession(key=session.public_key)) == ""
        )
        refused = post(url)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "UNKNOWN_SESSION")


routes = st.lists(
    st.sampled_from(["question", "question", "request", "request", "pay", "both"]),
    min_size=2,
    max_size=6,
)


@settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(routes=routes)
def test_questions_requests_and_payments_at_once_share_the_caps(
    network: TinyNetwork, routes: list[str]
) -> None:
    granter, session = Granter(network), KeyPair.generate()
    price = granter.price()
    total = 5 * price // 2
    granter.grant(session, 3 * price // 2, total)
    before = network.balance(granter.key)

    def by_hand(client: NodeClient, kind: str) -> Coroutine[Any, Any, str]:
        request = draft_request("to assay", max_tokens=TOKENS)
        request.max_price = price
        request.model = network.engine.package.model_id
        payment = pay(session.public_key, price // 2)
        messages: list[Message] = [] if kind == "pay" else [request]
        if kind != "request":
            messages.append(payment)

        async def run() -> str:
            operations = [make_operation(message) for message in messages]
            account = granter.key.public_key
            signed = await client.sign(session, operations, account=account)
            try:
                return (await client.wait(await client.submit(signed), BOUND_S)).reason
            except Rejection as rejection:
                return str(rejection.reason)

        return run()

    with network.gateway(access_of(session, granter.key)) as url:

        def at_once(kind: str, client: NodeClient) -> Coroutine[Any, Any, str]:
            return asked(url) if kind == "question" else by_hand(client, kind)

        async def all_of_them(client: NodeClient) -> list[str]:
            return await asyncio.gather(*(at_once(kind, client) for kind in routes))

        for outcome in network.ask(all_of_them):
            event(outcome)
        held = network.balance(granter.key)
        spent = granter.settled()
    assert before - held <= total
    assert before - network.balance(granter.key) == spent <= total
