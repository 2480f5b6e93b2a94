"""Bought once, whatever fails: nodes, connections, callers and the gateway itself."""

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from assay.v1 import node_pb2
from chain.dapp.client import AsyncClient
from chain.dapp.events import Accepted, Event, Progress, Settled, Tokens
from chain.dapp.nodes import Nodes
from chain.gateway.access import Access, ApiKey
from chain.gateway.book import Book
from chain.gateway.purchases import PurchaseLimits, Purchases
from chain.gateway.questions import parse_completion
from chain.node.streams import chunk_message
from chain.parameters import GRAIN_PER_ASY
from chain.rejections import Busy
from tests.builders import genesis, key
from tests.chain.gateway.tiny_network import BOUND_S, MODEL, TinyNetwork

NOWHERE = "127.0.0.1:1"
"""A node that nobody runs."""
TOKENS = 5
SECRET = "bob's bearer"
RETRY = {"x-stainless-retry-count": "1"}


def body(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": prompt, "max_tokens": TOKENS, **more}


def post(
    url: str, question: dict[str, Any], headers: dict[str, str] | None = None
) -> httpx2.Response:
    return httpx2.post(f"{url}/v1/completions", json=question, headers=headers, timeout=BOUND_S)


def get(url: str, path: str, headers: dict[str, str] | None = None) -> httpx2.Response:
    return httpx2.get(url + path, headers=headers, timeout=BOUND_S)


def answered(reply: httpx2.Response) -> dict[str, Any]:
    assert reply.status_code == 200, reply.text
    value: dict[str, Any] = reply.json()
    return value


def refused(reply: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    error: dict[str, Any] = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (status, code), reply.text
    assert error["message"]
    return error


def test_a_node_that_is_not_there_is_passed_over(network: TinyNetwork) -> None:
    nodes = (NOWHERE, network.nodes[1])
    with network.gateway(Access.for_anyone(key("alice")), nodes=nodes) as url:
        assert answered(post(url, body("gold")))["assay"]["status"] == "VERIFIED"
        health = get(url, "/healthz").json()
    assert (health["nodes"], health["answering"]) == (2, 1)


@pytest.mark.parametrize("cut_after", [0, 1, 3])
def test_a_connection_that_breaks_is_gone_on_with_elsewhere_and_paid_once(
    network: TinyNetwork, cut_after: int
) -> None:
    with network.gateway(Access.for_anyone(key("alice"))) as url:
        before = network.balance(key("alice"))
        known = {job.job for job in network.jobs_of(key("alice"))}
        network.faults[0].cut_after = cut_after
        network.faults[1].cut_after = cut_after
        answer = answered(post(url, body("silver")))
    (job,) = [job for job in network.jobs_of(key("alice")) if job.job not in known]
    assert job.job.hex() == answer["assay"]["job"]
    assert answer["choices"][0]["text"] == job.result.text
    cost = before - network.balance(key("alice"))
    assert answer["assay"]["paid"] < cost < answer["assay"]["paid"] + GRAIN_PER_ASY


def streamed(
    url: str, question: dict[str, Any], headers: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """The events of a streamed reply, without the last line."""
    with httpx2.stream(
        "POST", f"{url}/v1/completions", json=question, headers=headers, timeout=BOUND_S
    ) as reply:
        lines = [line for line in reply.iter_lines() if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_a_stream_that_breaks_behind_the_gateway_tells_no_token_twice(
    network: TinyNetwork,
) -> None:
    with network.gateway(Access.for_anyone(key("alice"))) as url:
        network.faults[0].cut_after = 4  # accepted, two statuses, and a piece of the answer
        with httpx2.stream(
            "POST", f"{url}/v1/completions", json=body("lead", stream=True), timeout=BOUND_S
        ) as reply:
            lines = [line for line in reply.iter_lines() if line.startswith("data: {")]
            job = bytes.fromhex(reply.headers["x-assay-job"])
    told = [json.loads(line.removeprefix("data: ")) for line in lines]
    text = "".join(item["choices"][0]["text"] for item in told)
    assert text == network.ask(lambda node: node.job(job)).result.text
    assert told[-1]["choices"][0]["finish_reason"] == "length"


def test_a_provider_that_streams_another_answer_than_it_submits_is_told_of(
    network: TinyNetwork,
) -> None:
    signers = {key(f"account-{index}").public_key: key(f"account-{index}") for index in range(2)}

    def lie(event: node_pb2.InferEvent) -> node_pb2.InferEvent:
        """As the provider itself would, with its signature."""
        chunk = event.tokens
        if event.WhichOneof("kind") == "tokens" and chunk.token_ids:
            chunk.token_ids[0] ^= 1
            message = chunk_message(network.genesis.chain_id, chunk)
            chunk.signature = signers[chunk.provider].sign(message)
        return event

    with network.gateway(Access.for_anyone(key("alice"))) as url:
        for faults in network.faults:
            faults.alter = lie
        refused_in = streamed(url, body("iron", stream=True), {"idempotency-key": "iron"})
        assert refused_in[-1]["error"]["code"] == "ANSWER_CHANGED"
        told = streamed(url, body("iron", stream=True), {"idempotency-key": "iron"})
    job = network.ask(lambda node: node.job(bytes.fromhex(told[-1]["assay"]["job"])))
    assert "".join(item["choices"][0]["text"] for item in told) == job.result.text


def test_tokens_go_on_from_another_node_while_the_answer_is_being_made(
    network: TinyNetwork,
) -> None:
    network.engine.hold_at = 3
    network.faults[0].cut_after = 3  # accepted, requested, assigned

    async def run() -> list[Event]:
        heard: list[Event] = []
        async with AsyncClient(network.nodes, key("alice"), network.genesis) as client:
            events = client.infer("cobalt", max_tokens=TOKENS)
            async with asyncio.timeout(BOUND_S), aclosing(events):
                async for event in events:
                    heard.append(event)
                    if isinstance(event, Tokens):
                        network.engine.release()
        return heard

    heard = asyncio.run(run())
    first = next(place for place, event in enumerate(heard) if isinstance(event, Tokens))
    before = heard[:first]
    assert [event.node for event in before if isinstance(event, Accepted)] == network.nodes
    assert {event.view.status for event in before if isinstance(event, Progress)} <= {
        "REQUESTED",
        "ASSIGNED",
    }
    settled = heard[-1]
    assert isinstance(settled, Settled)
    assert settled.result is not None
    told = "".join(event.text for event in heard if isinstance(event, Tokens))
    assert told == settled.result.text
    assert settled.checked


def alter_text(event: node_pb2.InferEvent) -> node_pb2.InferEvent:
    if event.WhichOneof("kind") == "tokens" and event.tokens.text:
        event.tokens.text = "lies" + event.tokens.text[4:]
    return event


def alter_receipt(event: node_pb2.InferEvent) -> node_pb2.InferEvent:
    if event.WhichOneof("kind") == "receipt":
        event.receipt.previous_root = bytes(32)
    return event


@pytest.mark.parametrize("alter", [alter_text, alter_receipt])
def test_a_node_that_alters_what_it_passes_on_is_not_believed(
    network: TinyNetwork, alter: Callable[[node_pb2.InferEvent], node_pb2.InferEvent]
) -> None:
    with network.gateway(Access.for_anyone(key("alice"))) as url:
        network.faults[0].alter = alter
        answer = answered(post(url, body("tin")))
    job = network.ask(lambda node: node.job(bytes.fromhex(answer["assay"]["job"])))
    assert answer["choices"][0]["text"] == job.result.text


def test_nodes_of_another_chain_are_not_asked(network: TinyNetwork) -> None:
    with network.gateway(Access.for_anyone(key("alice")), genesis=genesis()) as url:
        error = refused(post(url, body("gold")), 503, "NODE_UNAVAILABLE")
    assert "serves 'tiny-" in error["message"]


def test_busy_nodes_tell_when_to_come_again_and_nothing_is_bought(network: TinyNetwork) -> None:
    before = network.balance(key("alice"))
    with network.gateway(Access.for_anyone(key("alice"))) as url:
        network.faults[0].refusal = Busy("full", 2_100)
        network.faults[1].refusal = Busy("full", 7_000)
        reply = post(url, body("gold"))
    refused(reply, 429, "BUSY")
    assert reply.headers["retry-after"] == "3"
    assert reply.headers["x-should-retry"] == "true"
    assert network.balance(key("alice")) == before


def test_a_key_whose_question_was_refused_unsent_is_held_to_its_cap_when_it_asks_again(
    network: TinyNetwork, tmp_path: Path
) -> None:
    bearer = {"authorization": f"Bearer {SECRET}", "idempotency-key": "refused"}
    path = tmp_path / "book"
    with network.gateway(bobs(), book=path) as url:
        for faults in network.faults:
            faults.refusal = Busy("full", 2_100)
        refused(post(url, body("gold"), bearer), 429, "BUSY")
        for faults in network.faults:
            faults.mend()
    with network.gateway(bobs(spend_cap=1), book=path) as url:
        refused(post(url, body("gold"), bearer), 402, "SPEND_CAP_REACHED")
    before = network.balance(key("bob"))
    with network.gateway(bobs(), book=path) as url:
        answered(post(url, body("gold"), bearer))
    with Book(path) as book:
        assert book.committed("bob") == before - network.balance(key("bob")) > 0


def test_one_busy_node_is_passed_over(network: TinyNetwork) -> None:
    with network.gateway(Access.for_anyone(key("alice"))) as url:
        network.faults[0].refusal = Busy("full", 2_100)
        answered(post(url, body("gold")))
    assert network.faults[1].asked == 1


def test_an_idempotency_key_buys_once(network: TinyNetwork, open_gateway: str) -> None:
    named = {"idempotency-key": "one"}
    first = answered(post(open_gateway, body("zinc"), named))
    again = answered(post(open_gateway, body("zinc"), named))
    assert again["assay"] == first["assay"]
    assert again["choices"] == first["choices"]
    refused(post(open_gateway, body("iron"), named), 422, "IDEMPOTENCY_KEY_REUSED")
    other = answered(post(open_gateway, body("zinc"), {"idempotency-key": "two"}))
    assert other["assay"]["job"] != first["assay"]["job"]


def test_two_at_the_same_moment_with_one_idempotency_key_are_one_purchase(
    network: TinyNetwork, open_gateway: str
) -> None:
    replies: list[httpx2.Response] = []

    def ask() -> None:
        replies.append(post(open_gateway, body("cobalt"), {"idempotency-key": "twins"}))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND_S)
    assert len({answered(reply)["assay"]["job"] for reply in replies}) == 1


def test_an_idempotency_key_is_known_after_a_restart(network: TinyNetwork, tmp_path: Path) -> None:
    named = {"idempotency-key": "one"}
    answers = []
    for _ in range(2):
        with network.gateway(Access.for_anyone(key("alice")), book=tmp_path / "book") as url:
            answers.append(answered(post(url, body("zinc"), named)))
    assert answers[0]["assay"] == answers[1]["assay"]


def hang_up(network: TinyNetwork, url: str, question: dict[str, Any]) -> bytes:
    """Ask for a stream, and be gone before its first token; the job's id."""
    network.engine.hold()
    with httpx2.stream("POST", f"{url}/v1/completions", json=question, timeout=BOUND_S) as reply:
        assert reply.status_code == 200
        return bytes.fromhex(reply.headers["x-assay-job"])


def test_who_hangs_up_is_charged_once_and_a_retry_gets_the_same_answer(
    network: TinyNetwork, open_gateway: str
) -> None:
    question = body("nickel", stream=True)
    job = hang_up(network, open_gateway, question)
    network.engine.release()
    retried = post(open_gateway, question, RETRY)
    assert retried.headers["x-assay-job"] == job.hex()
    assert '"finish_reason": "length"' in retried.text
    anew = post(open_gateway, question, RETRY)  # its answer was delivered: a new question
    assert anew.headers["x-assay-job"] != job.hex()


def test_a_retry_joins_a_question_that_is_still_being_signed(network: TinyNetwork) -> None:
    async def run() -> tuple[bytes, bytes]:
        question = parse_completion(body("argon"), TOKENS)
        caller = ApiKey("alice", key("alice"), None, None)
        with Book() as book:
            async with Nodes(network.nodes) as nodes:
                purchases = Purchases(nodes, book, PurchaseLimits())
                first, second = await asyncio.gather(
                    purchases.buy(caller, question, b"digest", None, is_retry=False),
                    purchases.buy(caller, question, b"digest", None, is_retry=True),
                )
                await purchases.stop()
        return first.entry.job, second.entry.job

    first, second = network.call(run())
    assert first == second


def test_a_receipt_that_is_not_there_yet_says_when_to_ask_again(
    network: TinyNetwork, open_gateway: str
) -> None:
    job = hang_up(network, open_gateway, body("chromium", stream=True))
    try:
        early = get(open_gateway, f"/v1/receipts/{job.hex()}")
    finally:
        network.engine.release()
    refused(early, 409, "NOT_READY")
    assert int(early.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("job", "status", "code"), [("00" * 32, 404, "UNKNOWN_JOB"), ("latest", 400, "MALFORMED")]
)
def test_a_receipt_of_no_job(open_gateway: str, job: str, status: int, code: str) -> None:
    refused(get(open_gateway, f"/v1/receipts/{job}"), status, code)


def test_no_more_questions_are_taken_than_the_gateway_follows(network: TinyNetwork) -> None:
    limits = PurchaseLimits(jobs_max=1)
    with network.gateway(Access.for_anyone(key("alice")), limits=limits) as url:
        hang_up(network, url, body("copper", stream=True))
        reply = post(url, body("bronze"))
        network.engine.release()
    refused(reply, 429, "BUSY")
    assert int(reply.headers["retry-after"]) >= 1


def bobs(spend_cap: int | None = None, expires_s: float | None = None) -> Access:
    digest = hashlib.sha256(SECRET.encode()).digest()
    return Access({digest: ApiKey("bob", key("bob"), spend_cap, expires_s)})


def test_a_key_spends_its_own_account_up_to_its_cap(network: TinyNetwork, tmp_path: Path) -> None:
    bearer = {"authorization": f"Bearer {SECRET}"}
    path = tmp_path / "book"
    with network.gateway(bobs(), book=path) as url:
        refused(post(url, body("gold")), 401, "BAD_API_KEY")
        refused(get(url, "/v1/models"), 401, "BAD_API_KEY")
        before = network.balance(key("bob"))
        answered(post(url, body("gold"), bearer))
    with Book(path) as book:
        spent = book.committed("bob")
        assert not book.open_entries(1)
    assert spent == before - network.balance(key("bob"))
    with network.gateway(bobs(spend_cap=spent), book=path) as url:
        error = refused(post(url, body("gold"), bearer), 402, "SPEND_CAP_REACHED")
    assert f"{spent} are spent or reserved" in error["message"]
    assert network.balance(key("bob")) == before - spent
    with network.gateway(bobs(expires_s=1.0)) as url:
        refused(post(url, body("gold"), bearer), 401, "API_KEY_EXPIRED")


def test_what_a_gateway_left_open_is_settled_by_the_next(
    network: TinyNetwork, tmp_path: Path
) -> None:
    path = tmp_path / "book"
    bearer = {"authorization": f"Bearer {SECRET}"}
    before = network.balance(key("bob"))
    with network.gateway(bobs(), book=path) as url:
        network.engine.hold()
        with httpx2.stream(
            "POST",
            f"{url}/v1/completions",
            json=body("platinum", stream=True),
            headers=bearer,
            timeout=BOUND_S,
        ) as reply:
            job = bytes.fromhex(reply.headers["x-assay-job"])
    with Book(path) as book:
        (left,) = book.open_entries(10)
    assert left.job == job
    network.reconcile(path)  # under way: nothing to say yet
    with Book(path) as book:
        assert book.committed("bob") == left.most
    network.engine.release()
    network.reconcile(path, until_settled=True)
    with Book(path) as book:
        assert book.committed("bob") == before - network.balance(key("bob"))
