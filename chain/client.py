"""A client of one node: typed calls, rejections as exceptions, an inference as a stream of
events."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

import grpc

from assay.v1 import node_pb2, node_pb2_grpc, receipts_pb2, transactions_pb2
from chain.fees import fee_ceiling
from chain.keys import KeyPair
from chain.node.errors import rejection_of
from chain.parameters import Parameters
from chain.rejections import Busy, RejectionReason
from chain.transactions import SUBMIT_BYTES_MAX, SUBMIT_MANY_MAX, sign_transaction

Request = TypeVar("Request")
Reply = TypeVar("Reply")

VALIDITY_BLOCKS = 200
"""Of the at most 256 blocks a transaction may be valid for; the rest allows for a node that
lags."""
MESSAGE_BYTES_MAX = 8 * 1024 * 1024
DEADLINE_S = 10.0
"""What a call is given that names no deadline."""
_ENVELOPE_BYTES = 8
"""A transaction's tag and length in a request, at most."""


class NodeUnavailableError(Exception):
    """The node does not answer. The message names the address and the cause."""


class NodeClient:
    """One node, seen from the event loop it was made on. Use `async with`.

    Every call raises Rejection if the node refuses, NodeUnavailableError if it can't be reached or
    does not answer within the call's deadline, which is `deadline_s` unless the call names one.
    """

    def __init__(self, address: str, deadline_s: float = DEADLINE_S) -> None:
        self.address = address
        self._deadline_s = deadline_s
        self._channel = grpc.aio.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
                ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ],
        )
        self._transactions = node_pb2_grpc.TransactionsStub(self._channel)
        self._inference = node_pb2_grpc.InferenceStub(self._channel)
        self._chain = node_pb2_grpc.ChainStub(self._channel)
        self._state = node_pb2_grpc.StateStub(self._channel)
        self._proofs = node_pb2_grpc.ProofsStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._channel.close()

    def _failure(self, error: grpc.aio.AioRpcError) -> Exception:
        rejection = rejection_of(error)
        if rejection is not None:
            return rejection
        return NodeUnavailableError(f"node {self.address}: {error.code().name}: {error.details()}")

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Reply],
        request: Request,
        deadline_s: float | None = None,
    ) -> Reply:
        if deadline_s is None:
            deadline_s = self._deadline_s
        try:
            return await method(request, timeout=deadline_s)
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from error

    async def status(self, deadline_s: float | None = None) -> node_pb2.StatusReply:
        """Where the node stands."""
        return await self._call(self._chain.Status, node_pb2.StatusRequest(), deadline_s)

    async def block(self, height: int = 0) -> node_pb2.BlockView:
        """An executed block; 0 is the newest."""
        return await self._call(self._chain.GetBlock, node_pb2.BlockRequest(height=height))

    async def account(self, account: bytes) -> node_pb2.AccountView:
        """Balance and stake."""
        return await self._call(self._state.GetAccount, node_pb2.AccountRequest(account=account))

    async def sessions(self, account: bytes) -> Sequence[node_pb2.SessionView]:
        """The account's session keys."""
        request = node_pb2.AccountRequest(account=account)
        return list((await self._call(self._state.ListSessions, request)).sessions)

    async def models(self) -> Sequence[node_pb2.ModelView]:
        """Registered models."""
        reply = await self._call(self._state.ListModels, node_pb2.ModelsRequest())
        return list(reply.models)

    async def offers(self, model: bytes) -> Sequence[node_pb2.OfferView]:
        """Standing offers for a model."""
        reply = await self._call(self._state.ListOffers, node_pb2.OffersRequest(model=model))
        return list(reply.offers)

    async def validators(self) -> Sequence[node_pb2.ValidatorView]:
        """Everybody registered as a validator: the set, and those without a seat."""
        return list((await self.validator_page()).validators)

    async def validator_page(self, from_index: int = 0) -> node_pb2.ValidatorsReply:
        """The epoch under way, and the validators from this id on, as many as one reply has."""
        request = node_pb2.ValidatorsRequest(from_index=from_index)
        return await self._call(self._state.ListValidators, request)

    async def standings(self, model: bytes = b"", provider: bytes = b"") -> node_pb2.StandingsReply:
        """What the state holds for and against providers (of these; empty: all) and validators."""
        request = node_pb2.StandingsRequest(model=model, provider=provider)
        return await self._call(self._state.ListStandings, request)

    async def appeals(self) -> node_pb2.AppealsReply:
        """Open appeals."""
        return await self._call(self._state.ListAppeals, node_pb2.AppealsRequest())

    async def appeal(self, job: bytes) -> node_pb2.AppealView:
        """The appeal of a job, open or ruled."""
        return await self._call(self._inference.GetAppeal, node_pb2.JobRequest(job=job))

    async def parameters(self) -> Parameters:
        """The chain's governed numbers."""
        reply = await self._call(self._state.GetParameters, node_pb2.ParametersRequest())
        return Parameters(**dict(reply.values))

    async def job(self, job: bytes) -> node_pb2.JobView:
        """A job as the ledger has it now."""
        return await self._call(self._inference.Get, node_pb2.JobRequest(job=job))

    async def explain(self, job: bytes) -> node_pb2.Explanation:
        """Why each attempt of a job went to its provider."""
        return await self._call(self._inference.Explain, node_pb2.JobRequest(job=job))

    async def jobs(self, limit: int = 0) -> Sequence[node_pb2.JobView]:
        """The newest jobs."""
        reply = await self._call(self._inference.List, node_pb2.JobsRequest(limit=limit))
        return list(reply.jobs)

    async def receipt(self, job: bytes) -> receipts_pb2.Receipt:
        """The receipt of a settled job."""
        return await self._call(self._proofs.GetReceipt, node_pb2.JobRequest(job=job))

    async def boundaries(self, from_epoch: int) -> Sequence[bytes]:
        """Ends of epochs from one on, as many as one reply has."""
        request = node_pb2.BoundariesRequest(from_epoch=from_epoch)
        return list((await self._call(self._proofs.ListBoundaries, request)).boundaries)

    async def submit(self, signed: transactions_pb2.SignedTx) -> bytes:
        """Submit a transaction; returns its id."""
        reply = await self._call(
            self._transactions.Submit, node_pb2.SubmitRequest(transaction=signed)
        )
        return bytes(reply.id)

    async def submit_many(
        self,
        signed: Sequence[transactions_pb2.SignedTx],
        deadline_s: float = DEADLINE_S * 3,
    ) -> Sequence[node_pb2.SubmitManyReply.Outcome]:
        """Submit any number of transactions, in as many calls as it takes; an outcome for each.

        What is refused as BUSY is sent again after the node's delay, until the deadline; then that
        is its outcome. A call under way is not cut short by it: who stops waiting for an answer
        does not know what was admitted. After NodeUnavailableError some may have been: sending them
        again is safe, and says REPLAYED of those.
        """
        ends_s = asyncio.get_running_loop().time() + deadline_s
        outcomes: list[node_pb2.SubmitManyReply.Outcome] = []
        for part in _parts(signed):
            outcomes += await self._submit_part(part, ends_s)
        return outcomes

    async def _submit_part(
        self, part: Sequence[transactions_pb2.SignedTx], ends_s: float
    ) -> list[node_pb2.SubmitManyReply.Outcome]:
        loop = asyncio.get_running_loop()
        outcomes: dict[int, node_pb2.SubmitManyReply.Outcome] = {}
        missing = list(range(len(part)))
        while True:
            try:
                reply = await self._call(
                    self._transactions.SubmitMany,
                    node_pb2.SubmitManyRequest(transactions=[part[place] for place in missing]),
                    max(ends_s - loop.time(), self._deadline_s),
                )
                outcomes.update(zip(missing, reply.outcomes, strict=True))
                delay_s = reply.retry_delay_ms / 1000
            except Busy as busy:
                refusal = node_pb2.SubmitManyReply.Outcome(reason=busy.reason, detail=busy.detail)
                outcomes.update((place, refusal) for place in missing)
                delay_s = busy.retry_delay_ms / 1000
            missing = [place for place in missing if outcomes[place].reason == RejectionReason.BUSY]
            if not missing or loop.time() + delay_s > ends_s:
                return [outcomes[place] for place in range(len(part))]
            await asyncio.sleep(delay_s * random.uniform(1, 1.5))

    async def submit_stream(
        self, frames: AsyncIterator[Sequence[transactions_pb2.SignedTx]], deadline_s: float
    ) -> AsyncIterator[Sequence[node_pb2.SubmitManyReply.Outcome]]:
        """Submit frames of up to SUBMIT_MANY_MAX transactions as fast as the node takes them.

        Yields each frame's outcomes, in order. Replies that are not taken hold the stream up.
        """

        async def requests() -> AsyncIterator[node_pb2.SubmitManyRequest]:
            async for frame in frames:
                yield node_pb2.SubmitManyRequest(transactions=frame)

        call = self._transactions.SubmitStream(requests(), timeout=deadline_s)
        try:
            async for reply in call:
                yield list(reply.outcomes)
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from error
        finally:
            call.cancel()

    async def transaction(self, transaction: bytes) -> node_pb2.TransactionStatus:
        """The outcome of an executed transaction. Raises Rejection, NOT_FOUND among others."""
        return await self._call(self._transactions.Get, node_pb2.TransactionRequest(id=transaction))

    async def wait(self, transaction: bytes, deadline_s: float) -> node_pb2.TransactionStatus:
        """The outcome of a transaction, once its block is final and executed."""
        return await self._call(
            self._transactions.Wait, node_pb2.TransactionRequest(id=transaction), deadline_s
        )

    async def infer(
        self, signed: transactions_pb2.SignedTx, deadline_s: float
    ) -> AsyncIterator[node_pb2.InferEvent]:
        """Submit a request and stream what becomes of it; the last event is the receipt."""
        call = self._inference.Infer(node_pb2.InferRequest(transaction=signed), timeout=deadline_s)
        try:
            async for event in call:
                yield event
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from error
        finally:
            call.cancel()

    async def sign(
        self,
        key: KeyPair,
        operations: Sequence[transactions_pb2.Op],
        max_fee: int | None = None,
        account: bytes = b"",
    ) -> transactions_pb2.SignedTx:
        """Sign operations for this node's chain, valid from now on. With an `account`, the key is
        a session key of it."""
        status = await self.status()
        if max_fee is None:
            max_fee = fee_ceiling(await self.parameters(), operations)
        return sign_transaction(
            key.signing_key,
            status.chain_id,
            operations,
            valid_until_height=status.height + VALIDITY_BLOCKS,
            max_fee=max_fee,
            salt=secrets.randbits(64),
            account=account,
        )


def _parts(
    signed: Sequence[transactions_pb2.SignedTx],
) -> Iterator[Sequence[transactions_pb2.SignedTx]]:
    """Cut into what one call may hold. One that is too large for any is left to the node."""
    start, size = 0, 0
    for place, transaction in enumerate(signed):
        size_of_one = transaction.ByteSize() + _ENVELOPE_BYTES
        if place > start and (
            place - start == SUBMIT_MANY_MAX or size + size_of_one > SUBMIT_BYTES_MAX
        ):
            yield signed[start:place]
            start, size = place, 0
        size += size_of_one
    if start < len(signed):
        yield signed[start:]
