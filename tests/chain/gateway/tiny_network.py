"""Two real validators and a runtime with the tiny engine in one thread, and gateways to them.

One provides and the other verifies. Their public ports can be made to fail, as networks do; the
validators behind them go on.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import grpc
import uvicorn

from assay.v1 import node_pb2, transactions_pb2
from chain.client import NodeClient
from chain.dapp.nodes import Nodes
from chain.devnet import free_ports
from chain.gateway.access import Access, AccessFile
from chain.gateway.book import Book
from chain.gateway.purchases import PurchaseLimits, Purchases
from chain.gateway.server import GatewayPlan, listen, serve
from chain.genesis import Genesis, make_genesis
from chain.keys import KeyPair
from chain.node.config import NodeConfig
from chain.node.errors import status_of
from chain.node.node import Node
from chain.node.services import add_services
from chain.node.signer import NodeKeys
from chain.node.unreadable import RefuseUnreadable
from chain.parameters import GRAIN_PER_ASY, Parameters
from chain.rejections import Rejection
from tests.builders import genesis_validator, key, tls_identity
from tests.chain.node.agents import PROFILE
from tests.runtime.serving import limits, serving
from tests.runtime.tiny_engine import TinyEngine

T = TypeVar("T")

BOUND_S = 120.0
"""Nothing here takes nearly as long, however busy the machine; a test that waits longer failed."""
LONG_MS = 600_000
VALIDATORS = 2
MODEL = "tiny"
FUNDS = 100_000 * GRAIN_PER_ASY


def tiny_genesis(*accounts: str) -> Genesis:
    """Two validators, of which one audits the other; nothing runs out of time."""
    ports = free_ports(VALIDATORS)
    return make_genesis(
        name="tiny",
        genesis_time_ms=1_750_000_000_000,
        parameters=Parameters(
            committee_size=1,
            escalated_committee_size=1,
            reveal_quorum=1,
            assign_within_ms=LONG_MS,
            answer_within_ms_default=LONG_MS,
            audit_within_ms=LONG_MS,
            commit_within_ms=LONG_MS,
            reveal_within_ms=LONG_MS,
        ),
        validators=tuple(
            replace(genesis_validator(index), address=f"127.0.0.1:{port}")
            for index, port in enumerate(ports)
        ),
        balances={
            key(name).public_key: FUNDS
            for name in (*accounts, *(f"account-{index}" for index in range(VALIDATORS)))
        },
        treasury=key("treasury").public_key,
    )


class Faults(grpc.aio.ServerInterceptor):
    """What goes wrong between a caller of Infer and this node."""

    def __init__(self) -> None:
        self.refusal: Rejection | None = None
        """What Infer says instead of listening."""
        self.cut_after: int | None = None
        """So many events of Infer, and the connection breaks."""
        self.alter: Callable[[node_pb2.InferEvent], node_pb2.InferEvent] = lambda event: event
        self.asked = 0
        """Calls of Infer."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(details)
        if not details.method.endswith("/Infer"):
            return handler
        infer = handler.unary_stream

        async def faulty(request: Any, context: Any) -> AsyncIterator[node_pb2.InferEvent]:
            self.asked += 1
            if self.refusal is not None:
                status = status_of(self.refusal)
                context.set_trailing_metadata(status.trailing_metadata)
                await context.abort(status.code, status.details)
            heard = 0
            async for event in infer(request, context):
                if heard == self.cut_after:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke")
                heard += 1
                yield self.alter(event)

        return grpc.unary_stream_rpc_method_handler(
            faulty, handler.request_deserializer, handler.response_serializer
        )

    def mend(self) -> None:
        """Nothing is wrong any more."""
        self.refusal, self.cut_after, self.alter = None, None, lambda event: event
        self.asked = 0


class TinyNetwork:
    """A running network. Its event loop has a thread of its own."""

    def __init__(self, genesis: Genesis) -> None:
        self.genesis = genesis
        self.engine = TinyEngine()
        self.faults = tuple(Faults() for _ in range(VALIDATORS))
        self.nodes: list[str] = []
        """Public addresses."""
        self.runtime = ""
        """Address of the runtime that serves them all."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something on the network's loop, from another thread."""
        return self.begin(coroutine).result(BOUND_S)

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def ask(self, question: Callable[[NodeClient], Awaitable[T]], node: int = 0) -> T:
        """What a node says."""

        async def run() -> T:
            async with NodeClient(self.nodes[node]) as client:
                return await question(client)

        return self.call(run())

    def balance(self, account: KeyPair) -> int:
        return self.ask(lambda client: client.account(account.public_key)).balance

    def jobs_of(self, account: KeyPair) -> list[node_pb2.JobView]:
        """What an account has asked the chain, newest first."""
        jobs = self.ask(lambda client: client.jobs(1000))
        return [job for job in jobs if job.requester == account.public_key]

    @contextmanager
    def running(self, folder: Path) -> Iterator["TinyNetwork"]:
        self._thread.start()
        stack = AsyncExitStack()
        try:
            self.call(self._start(stack, folder))
            yield self
        finally:
            self.engine.release()
            self.call(stack.aclose())
            self.call(_end_tasks())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(BOUND_S)
            self._loop.close()

    async def _start(self, stack: AsyncExitStack, folder: Path) -> None:
        self.runtime = await stack.enter_async_context(
            serving(self.engine, service_limits=limits(queue_limit=64, running_limit=8))
        )
        for index in range(VALIDATORS):
            config = NodeConfig.model_validate(
                {"validator": index, "data": folder / f"node-{index}", "runtimes": (self.runtime,)}
            )
            config.data.mkdir(parents=True)
            self.nodes.append(await stack.enter_async_context(self._node(config)))
        async with asyncio.timeout(BOUND_S), NodeClient(self.nodes[0]) as client:
            await self._open_market(client)

    @asynccontextmanager
    async def _node(self, config: NodeConfig) -> AsyncGenerator[str, None]:
        index = config.validator
        signing, vrf, account = (key(f"{role}-{index}") for role in ("signing", "vrf", "account"))
        keys = NodeKeys(signing, vrf, account, tls_identity(index))
        node = Node(config, self.genesis, keys)
        server = grpc.aio.server(interceptors=(self.faults[index], RefuseUnreadable()))
        add_services(server, node)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        running = asyncio.create_task(node.run())
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(None)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _open_market(self, client: NodeClient) -> None:
        thresholds = transactions_pb2.Thresholds(fingerprint_tolerance=1)
        pair = transactions_pb2.CalibratedPair(
            provider_profile=PROFILE, verifier_profile=PROFILE, thresholds=thresholds
        )
        model = transactions_pb2.RegisterModel(
            model=self.engine.package.model_id,
            name=MODEL,
            context_tokens=self.engine.context_tokens,
            pairs=[pair],
            parameters=self.engine.package.manifest.parameters,
        )
        signed = await client.sign(key("account-0"), [transactions_pb2.Op(register_model=model)])
        status = await client.wait(await client.submit(signed), BOUND_S)
        assert status.accepted, status.reason
        while len(await client.offers(model.model)) < VALIDATORS:
            await asyncio.sleep(0.1)

    def reconcile(self, book: Path, until_settled: bool = False) -> None:
        """What a gateway does once in a while, beginning with its start."""

        async def run() -> None:
            with Book(book) as opened:
                async with Nodes(self.nodes) as nodes:
                    purchases = Purchases(nodes, opened, PurchaseLimits())
                    await purchases.reconcile()
                    while until_settled and opened.open_entries(1):
                        await asyncio.sleep(0.1)
                        await purchases.reconcile()

        self.call(run())

    @contextmanager
    def gateway(self, access: Access | AccessFile, **plan: Any) -> Iterator[str]:
        """A gateway to all nodes, unless told otherwise: its URL."""
        listening = listen("127.0.0.1", 0)
        servers: list[uvicorn.Server] = []
        described = {"nodes": tuple(self.nodes), "genesis": self.genesis, **plan}
        running = self.begin(
            serve(GatewayPlan(access=access, **described), listening, servers.append)
        )
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            for server in servers:
                server.should_exit = True
            running.result(BOUND_S)
            listening.close()


async def _end_tasks() -> None:
    """Cancel what the gRPC library leaves behind."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
