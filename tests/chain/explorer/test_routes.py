"""What a browser is answered by a real node."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from assay.v1 import transactions_pb2
from chain.addresses import encode_address
from chain.client import NodeClient
from chain.explorer import feed
from chain.explorer.routes import Explorer
from chain.node.http import open_pages, serving
from chain.node.node import steady_clock_ms
from chain.node.rate_limit import RateLimit
from tests.builders import key
from tests.chain.node.running_node import RICH, running_node, solitary_genesis
from tests.chain.node.test_http import free_port

BOUND_S = 120.0


@asynccontextmanager
async def explored(
    folder: Path, page: Path | None = None, rates: RateLimit | None = None
) -> AsyncIterator[tuple[httpx2.AsyncClient, NodeClient]]:
    genesis = solitary_genesis("alice")
    with open_pages(f"127.0.0.1:{free_port()}") as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with running_node(folder / "node", genesis) as (node, client):
            explorer = Explorer(node, steady_clock_ms(), page or folder / "none", rates)
            following = asyncio.create_task(explorer.run())
            try:
                async with (
                    serving(node, listening, explorer.routes()),
                    httpx2.AsyncClient(base_url=url, timeout=BOUND_S) as http,
                ):
                    yield http, client
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)


async def pay(client: NodeClient) -> tuple[str, int]:
    """A transfer's id and block."""
    transfer = transactions_pb2.Transfer(to=key("bob").public_key, amount=5)
    signed = await client.sign(key("alice"), [transactions_pb2.Op(transfer=transfer)])
    identity = await client.submit(signed)
    return identity.hex(), (await client.wait(identity, BOUND_S)).height


async def read(http: httpx2.AsyncClient, path: str, status: int = 200) -> Any:
    answer = await http.get(f"/api/{path}")
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


@pytest.mark.timeout(300)
async def test_a_transfer_is_found_from_every_side(tmp_path: Path) -> None:
    async with explored(tmp_path) as (http, client):
        identity, height = await pay(client)
        one = await read(http, f"transactions/{identity}")
        listed = (await read(http, "transactions?limit=5"))["transactions"]
        block = await read(http, f"blocks/{height}")
        blocks = await read(http, f"blocks?before={height + 1}&limit=1")
        poor = await read(http, f"accounts/{encode_address(key('bob').public_key)}")
        rich = await read(http, f"accounts/{key('alice').public_key.hex()}")
        status = await read(http, "status")
        validators = await read(http, "validators")
    assert one == {
        "id": identity,
        "height": height,
        "accepted": True,
        "reason": "",
        "fee": one["fee"],
    }
    assert [item["id"] for item in listed] == [identity]
    assert [item["id"] for item in block["transaction_list"]] == [identity]
    assert [item["height"] for item in blocks] == [height]
    assert poor["balance"] == "5"
    assert int(rich["balance"]) == RICH - 5 - int(one["fee"])
    assert int(status["height"]) >= height
    assert [item["this_node"] for item in validators["validators"]] == [True]


@pytest.mark.timeout(300)
async def test_what_is_not_there_or_no_id_is_refused_with_a_reason(tmp_path: Path) -> None:
    async with explored(tmp_path) as (http, _):
        for path, status, reason in (
            ("blocks/999999", 404, "NOT_FOUND"),
            ("blocks/-1", 400, "MALFORMED"),
            ("blocks/1e3", 400, "MALFORMED"),
            (f"blocks/{'9' * 19}", 400, "MALFORMED"),
            (f"transactions/{'0' * 64}", 404, "NOT_FOUND"),
            (f"transactions/{'0' * 62}", 400, "MALFORMED"),
            (f"jobs/{'0' * 64}", 404, "UNKNOWN_JOB"),
            (f"jobs/{'0' * 64}/receipt", 404, "UNKNOWN_JOB"),
            (f"jobs/{'0' * 64}/tokens", 404, "UNKNOWN_JOB"),
            (f"jobs/{'g' * 64}", 400, "MALFORMED"),
            ("accounts/assay1qqqq", 400, "BAD_ADDRESS"),
            ("blocks?limit=101", 400, "TOO_LARGE"),
            ("blocks?limit=0", 400, "TOO_LARGE"),
            ("transactions?before=x", 400, "MALFORMED"),
        ):
            refusal = await read(http, path, status)
            assert (refusal["reason"], path) == (reason, path)
            assert refusal["detail"]


@pytest.mark.timeout(300)
async def test_who_asks_too_often_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with explored(tmp_path, rates=RateLimit(per_second=0.001, burst=3)) as (http, _):
        answers = [await http.get("/api/genesis") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[3].json()["reason"] == "BUSY"
        assert int(answers[3].headers["retry-after"]) > 900
        assert (await http.get("/metrics")).status_code == 200


@pytest.mark.timeout(300)
async def test_a_node_without_the_page_says_how_to_build_it(tmp_path: Path) -> None:
    async with explored(tmp_path) as (http, _):
        answer = await http.get("/")
    assert answer.status_code == 503
    assert "make web" in answer.text


@pytest.mark.timeout(300)
async def test_the_page_may_reach_no_host_but_its_own(tmp_path: Path) -> None:
    page = tmp_path / "page"
    page.mkdir()
    (page / "index.html").write_text("<title>the page</title>")
    (page / "index-1a2b.js").write_text("1")
    (tmp_path / "secret.html").write_text("not of the page")
    async with explored(tmp_path, page) as (http, _):
        start, script = await http.get("/"), await http.get("/index-1a2b.js")
        for path in ("/secret.html", "/..%2fsecret.html", "/node.toml"):
            assert (await http.get(path)).status_code == 404
    assert start.text == "<title>the page</title>"
    policy = start.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "'unsafe" not in policy
    assert start.headers["cache-control"] == "no-cache"
    assert "immutable" in script.headers["cache-control"]
    assert script.headers["content-type"].startswith("text/javascript")


@pytest.mark.timeout(300)
async def test_listeners_hear_of_each_block_and_charts_have_it(tmp_path: Path) -> None:
    async with explored(tmp_path) as (http, client):
        async with http.stream("GET", "/api/events") as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "event: hello"
            _, height = await pay(client)
            heard: dict[str, Any] = {}
            async for line in lines:
                if line.startswith("data: ") and '"digest"' in line:
                    heard = json.loads(line.removeprefix("data: "))
                    if heard["height"] >= height:
                        break
        points = {point["height"]: point for point in await read(http, "chart")}
    assert heard["height"] >= height
    assert points[height]["transactions"] == 1
    assert any(point["executed_after_ms"] is not None for point in points.values())


@pytest.mark.timeout(300)
async def test_a_listener_that_does_not_read_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "QUEUED_MAX", 1)
    async with running_node(tmp_path, solitary_genesis("alice")) as (node, client):
        following = feed.Feed(node, steady_clock_ms())
        task = asyncio.create_task(following.run())
        news = following.listen()
        assert (await anext(news)).startswith("event: hello")
        waiting = asyncio.ensure_future(anext(news))
        await asyncio.sleep(0)  # it listens now
        while not waiting.done():
            await pay(client)
        for _ in range(3):
            await pay(client)
        async with asyncio.timeout(BOUND_S):
            left = [item async for item in news]
        assert len(left) <= 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
