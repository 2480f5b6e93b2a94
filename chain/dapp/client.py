"""A client for applications: from nodes, a key and a question to tokens and a checked receipt.

    with Client.open(["127.0.0.1:7000"], Path("key.json"), Path("passphrase")) as client:
        for event in client.infer("What is gold?", max_tokens=64):
            ...

Everything raises Rejection when the chain refuses, and NodeUnavailableError when no node answers.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from assay.v1 import inference_pb2, node_pb2, transactions_pb2
from chain import genesis as genesis_file
from chain.asking import pick_model, price_ceiling
from chain.client import NodeClient
from chain.dapp.events import Event
from chain.dapp.following import Following
from chain.dapp.nodes import Nodes
from chain.genesis import Genesis
from chain.keys import KeyPair, Role
from chain.keystore import load_key, read_passphrase
from chain.receipt_files import from_protobuf
from chain.receipts import Receipt
from ext.hashing import tagged_hash

T = TypeVar("T")

DEADLINE_S: Final = 600.0
SCALE: Final = 1000
"""Temperature and top_p travel as thousandths."""


async def complete_request(
    nodes: Nodes,
    draft: transactions_pb2.RequestInference,
    model: str,
    max_price: int | None = None,
) -> transactions_pb2.RequestInference:
    """The request with its model (by name or id) and a price that covers the dearest offer."""
    request = transactions_pb2.RequestInference()
    request.CopyFrom(draft)
    found = await nodes.ask(lambda client: pick_model(client, model))
    request.model = found.model
    parameters = await nodes.parameters()

    async def ceiling(client: NodeClient) -> int:
        return await price_ceiling(client, parameters, found, request)

    request.max_price = await nodes.ask(ceiling) if max_price is None else max_price
    return request


def draft_request(
    prompt: str,
    system: str = "",
    max_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    stop: Sequence[str] = (),
    seed: int | None = None,
) -> transactions_pb2.RequestInference:
    """A question to a chat model; without a seed the chain's beacon gives one."""
    chat = inference_pb2.Chat()
    if system:
        chat.messages.add(role=inference_pb2.ROLE_SYSTEM, content=system)
    chat.messages.add(role=inference_pb2.ROLE_USER, content=prompt)
    return transactions_pb2.RequestInference(
        input=inference_pb2.InferenceInput(chat=chat),
        sampling=inference_pb2.Sampling(
            temperature_milli=round(temperature * SCALE),
            top_p_milli=round(top_p * SCALE),
            max_output_tokens=max_tokens,
            stop=stop,
        ),
        seed=b"" if seed is None else user_seed(seed),
    )


def user_seed(seed: int) -> bytes:
    """The 32 bytes that a number stands for, as `assay infer --seed` has it."""
    return tagged_hash(b"user-seed", str(seed).encode())


def _from_files(
    key_file: Path, passphrase_file: Path, genesis: Path | None
) -> tuple[KeyPair, Genesis | None]:
    key = load_key(key_file, read_passphrase(passphrase_file), Role.ACCOUNT)
    return key, None if genesis is None else genesis_file.load(genesis)


class AsyncClient:
    """One account's view of a chain, by way of any of several nodes. Use `async with`."""

    def __init__(
        self,
        nodes: Sequence[str],
        key: KeyPair,
        genesis: Genesis | None = None,
        account: bytes | None = None,
    ) -> None:
        """With a genesis every receipt is checked, and nodes of other chains are not asked. With
        an account, the key is a session key of it, and it pays."""
        self.key = key
        self.account = key.public_key if account is None else account
        self._genesis = genesis
        self._nodes = Nodes(nodes, b"" if genesis is None else genesis.digest())

    @classmethod
    def open(
        cls,
        nodes: Sequence[str],
        key_file: Path,
        passphrase_file: Path,
        genesis: Path | None = None,
        account: bytes | None = None,
    ) -> Self:
        """From files. Raises KeystoreError, GenesisError."""
        return cls(nodes, *_from_files(key_file, passphrase_file, genesis), account)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._nodes.__aexit__(kind, error, trace)

    async def infer(
        self,
        question: str | transactions_pb2.RequestInference,
        model: str = "",
        max_price: int | None = None,
        deadline_s: float = DEADLINE_S,
        **draft: Any,
    ) -> AsyncGenerator[Event, None]:
        """Ask, and hear what becomes of it; the last event is Settled.

        A text is asked with the options of `draft_request`. Raises also NotSettledInTime and
        ReceiptInvalid. Who stops listening has bought the answer all the same.
        """
        if isinstance(question, str):
            question = draft_request(question, **draft)
        request = await complete_request(self._nodes, question, model, max_price)
        operation = transactions_pb2.Op(request_inference=request)
        signed, body = await self.sign(operation)
        following = Following(self._nodes, signed, body.chain_id, self._genesis)
        async with aclosing(following.run(deadline_s)) as events:
            async for event in events:
                yield event

    async def sign(
        self, operation: transactions_pb2.Op
    ) -> tuple[transactions_pb2.SignedTx, transactions_pb2.TxBody]:
        """A signed operation of the account, valid from now on, and what was signed."""
        in_session = self.account != self.key.public_key
        return await self._nodes.sign(self.key, operation, self.account if in_session else b"")

    async def submit_many(
        self, signed: Sequence[transactions_pb2.SignedTx]
    ) -> Sequence[node_pb2.SubmitManyReply.Outcome]:
        """Submit transactions; an outcome for each. What another node got before it failed is
        told as REPLAYED."""
        return await self._nodes.ask(lambda client: client.submit_many(signed))

    async def balance(self) -> int:
        """Grain that the account may spend."""
        view = await self._nodes.ask(lambda client: client.account(self.account))
        return view.balance

    async def models(self) -> Sequence[node_pb2.ModelView]:
        """Registered models."""
        return await self._nodes.ask(NodeClient.models)

    async def session(self) -> node_pb2.SessionView | None:
        """What the key may still do for the account; None if it is no session key of it."""
        views = await self._nodes.ask(lambda client: client.sessions(self.account))
        return next((view for view in views if view.key == self.key.public_key), None)

    async def job(self, job: bytes) -> node_pb2.JobView:
        """A job as the ledger has it now."""
        return await self._nodes.ask(lambda client: client.job(job))

    async def receipt(self, job: bytes) -> Receipt:
        """The receipt of a settled job, not checked."""
        return from_protobuf(await self._nodes.ask(lambda client: client.receipt(job)))


class Client:
    """The same for code without an event loop; one runs in a thread of its own. Use `with`."""

    def __init__(
        self,
        nodes: Sequence[str],
        key: KeyPair,
        genesis: Genesis | None = None,
        account: bytes | None = None,
    ) -> None:
        """As AsyncClient."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="assay-client", daemon=True
        )
        self._thread.start()

        async def make() -> AsyncClient:  # its channels belong to the loop they are made on
            return AsyncClient(nodes, key, genesis, account)

        try:
            self._client = self._run(make())
        except BaseException:
            self._end_thread()
            raise

    @classmethod
    def open(
        cls,
        nodes: Sequence[str],
        key_file: Path,
        passphrase_file: Path,
        genesis: Path | None = None,
        account: bytes | None = None,
    ) -> Self:
        """From files. Raises KeystoreError, GenesisError."""
        return cls(nodes, *_from_files(key_file, passphrase_file, genesis), account)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C ends the wait: end the call, too
            future.cancel()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections and the thread."""
        try:
            self._run(self._client.__aexit__(None, None, None))
        finally:
            self._end_thread()

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def infer(
        self,
        question: str | transactions_pb2.RequestInference,
        model: str = "",
        max_price: int | None = None,
        deadline_s: float = DEADLINE_S,
        **draft: Any,
    ) -> Iterator[Event]:
        """As AsyncClient.infer."""
        events = self._client.infer(question, model, max_price, deadline_s, **draft)

        step: asyncio.Task[Any] | None = None

        async def following() -> Event | None:
            nonlocal step
            step = asyncio.current_task()
            return await anext(events, None)

        async def ending() -> None:  # Ctrl-C may have left a step under way, anywhere in _run
            if step is not None and not step.done():
                if not step.cancelling():  # once: its own tidying up must not be cut short
                    step.cancel()
                await asyncio.wait([step])
            await events.aclose()

        try:
            while (event := self._run(following())) is not None:
                yield event
        finally:
            self._run(ending())

    def submit_many(
        self, signed: Sequence[transactions_pb2.SignedTx]
    ) -> Sequence[node_pb2.SubmitManyReply.Outcome]:
        """As AsyncClient.submit_many."""
        return self._run(self._client.submit_many(signed))

    def balance(self) -> int:
        """As AsyncClient.balance."""
        return self._run(self._client.balance())

    def models(self) -> Sequence[node_pb2.ModelView]:
        """As AsyncClient.models."""
        return self._run(self._client.models())
