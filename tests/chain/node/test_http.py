"""What a real node serves over HTTP, read by a real client."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route

from assay.v1 import transactions_pb2
from chain.client import NodeClient
from chain.node.http import open_pages, serving
from chain.rejections import Rejection
from tests.builders import key
from tests.chain.node.running_node import running_node, solitary_genesis

NAME = re.compile(
    r"assay_[a-z]+_[a-z_]+_"
    r"(seconds|bytes|blocks|views|epochs|total|batches|transactions|requests|calls|jobs|fds|state|info)"
)


@asynccontextmanager
async def served(
    folder: Path, pages: tuple[BaseRoute, ...] = (), validators: int = 1
) -> AsyncIterator[tuple[httpx2.AsyncClient, NodeClient]]:
    genesis = solitary_genesis("alice", validators=validators)
    with open_pages(f"127.0.0.1:{free_port()}") as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with (
            running_node(folder, genesis) as (node, client),
            serving(node, listening, pages),
            httpx2.AsyncClient(base_url=url, timeout=60) as http,
        ):
            yield http, client


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def metrics_of(http: httpx2.AsyncClient) -> dict[str, float]:
    answer = await http.get("/metrics")
    assert answer.status_code == 200
    return {
        sample.name + "".join(f"|{value}" for _, value in sorted(sample.labels.items())): (
            sample.value
        )
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def until_executed(client: NodeClient, height: int) -> None:
    async with asyncio.timeout(120):
        while (await client.status()).height < height:
            await asyncio.sleep(0.05)


async def pay(client: NodeClient, amount: int = 5) -> None:
    transfer = transactions_pb2.Transfer(to=key("bob").public_key, amount=amount)
    signed = await client.sign(key("alice"), [transactions_pb2.Op(transfer=transfer)])
    await client.wait(await client.submit(signed), 120.0)


@pytest.mark.timeout(300)
async def test_metrics_follow_what_the_node_does(tmp_path: Path) -> None:
    async with served(tmp_path) as (http, client):
        await pay(client)
        with pytest.raises(Rejection):
            await pay(client, amount=0)
        metrics = await metrics_of(http)
        height = (await client.status()).height
    assert metrics["assay_ingress_admitted_transactions_total"] == 1
    assert metrics["assay_ingress_refusals_total|AMOUNT_ZERO"] == 1
    assert metrics["assay_ledger_executed_transactions_total"] == 1
    assert 1 <= metrics["assay_ledger_height_blocks"] <= height
    assert metrics["assay_ledger_execution_seconds_count"] >= 1
    assert metrics["assay_node_voting_state"] == 1
    assert metrics["assay_consensus_missed_votes_total|0"] == 0
    assert metrics["assay_store_size_bytes"] > 0
    assert metrics["assay_disk_free_bytes"] > 0
    assert metrics["assay_process_resident_memory_bytes"] > 0


@pytest.mark.timeout(300)
async def test_every_metric_has_a_part_and_a_unit_in_its_name(tmp_path: Path) -> None:
    async with served(tmp_path) as (http, _):
        answer = await http.get("/metrics")
    names = re.findall(r"^# TYPE (\S+) ", answer.text, re.MULTILINE)
    assert len(names) > 30
    assert [name for name in names if not NAME.fullmatch(name)] == []


@pytest.mark.timeout(300)
async def test_a_lone_validator_is_ready_and_says_so(tmp_path: Path) -> None:
    async with served(tmp_path) as (http, client):
        await until_executed(client, 0)
        live, ready = await http.get("/livez"), await http.get("/readyz")
    assert (live.status_code, live.json()["alive"]) == (200, True)
    assert (ready.status_code, ready.json()["ready"]) == (200, True)


@pytest.mark.timeout(300)
async def test_a_validator_without_its_peers_lives_but_is_not_ready(tmp_path: Path) -> None:
    async with served(tmp_path, validators=4) as (http, _):
        live, ready = await http.get("/livez"), await http.get("/readyz")
        metrics = await metrics_of(http)
    assert live.status_code == 200
    assert ready.status_code == 503
    reasons: list[dict[str, Any]] = ready.json()["reasons"]
    assert "NO_QUORUM" in [item["reason"] for item in reasons]
    assert metrics["assay_peers_connected_state|1"] == 0
    assert metrics["assay_node_ready_state"] == 0


@pytest.mark.timeout(300)
async def test_pages_are_served_beside_what_is_built_in(tmp_path: Path) -> None:
    async def page(_: Request) -> PlainTextResponse:
        return PlainTextResponse("a page")

    async with served(tmp_path, (Route("/", page),)) as (http, _):
        assert (await http.get("/")).text == "a page"
        assert (await http.get("/metrics")).status_code == 200
        assert (await http.get("/nothing")).status_code == 404
