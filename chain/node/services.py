"""The public gRPC services: thin translations between messages and the node.

Each method checks the shape of its request and asks the node. Whatever raises a Rejection ends the
call with a rich status: `unreadable` sees to that, for all but the two that take their requests as
bytes.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, aclosing
from dataclasses import fields

import grpc

from assay.v1 import node_pb2, node_pb2_grpc, receipts_pb2
from chain.light import boundary_page
from chain.node.errors import CallContext, refuse
from chain.node.inference import InferenceFlow
from chain.node.node import Node
from chain.node.rate_limit import RateLimit, host_of
from chain.node.views import (
    account_view,
    appeal_view,
    block_view,
    explanation,
    job_view,
    model_view,
    offer_view,
    ruled_appeal_view,
    session_view,
    settled_job_view,
    standings_view,
    validator_view,
)
from chain.records import TransactionReceipt
from chain.rejections import Busy, Rejection, RejectionReason
from chain.standings import standings
from chain.state import ACCOUNT_BYTES
from chain.track_records import find_ruling, open_appeals, records
from chain.transactions import WINDOW_BLOCKS

TRANSACTIONS = node_pb2.DESCRIPTOR.services_by_name["Transactions"].full_name
JOBS_LIMIT_MAX = 1000
JOBS_LIMIT_DEFAULT = 50
"""How many jobs a listing shows unless told."""


VALIDATORS_LISTED_MAX = 512
"""In one reply."""


class _Base:
    def __init__(self, node: Node) -> None:
        self._node = node

    def _open_call(self, context: CallContext) -> AbstractContextManager[None]:
        """Round what waits for something. Raises Busy."""
        return self._node.open_calls.open(host_of(context.peer()))


class TransactionsService(_Base, node_pb2_grpc.TransactionsServicer):
    """Submit and follow transactions."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self._limit = RateLimit(node.config.submit.per_second, node.config.submit.burst)

    async def Submit(  # noqa: N802 (gRPC names its methods so)
        self, request: node_pb2.SubmitRequest, context: CallContext
    ) -> node_pb2.SubmitReply:
        """Admit one transaction."""
        delay_ms = self._limit.take(context.peer())
        if delay_ms:
            raise Busy(
                "this connection calls Submit too often; use SubmitMany or SubmitStream, or wait "
                "as RetryInfo says",
                delay_ms,
            )
        transaction = await self._node.ingress.submit(request.transaction)
        return node_pb2.SubmitReply(id=transaction.id)

    async def SubmitMany(  # type: ignore[override]  # noqa: N802 (takes and gives bytes)
        self, request: bytes, context: CallContext
    ) -> bytes:
        """Admit many, each for itself."""
        try:
            return await self._node.ingress.submit_many(request)
        except Rejection as rejection:
            self._node.meter.refusal(rejection.reason)
            await refuse(context, rejection)

    async def SubmitStream(  # type: ignore[override]  # noqa: N802 (takes and gives bytes)
        self, requests: AsyncIterator[bytes], context: CallContext
    ) -> AsyncIterator[bytes]:
        """The same for each request of a stream, as fast as there is room."""
        try:
            async with aclosing(self._node.ingress.stream(requests)) as replies:
                async for reply in replies:
                    yield reply
        except Rejection as rejection:
            self._node.meter.refusal(rejection.reason)
            await refuse(context, rejection)

    async def Get(  # noqa: N802
        self, request: node_pb2.TransactionRequest, context: CallContext
    ) -> node_pb2.TransactionStatus:
        """The outcome of an executed transaction."""
        found = await self._node.transaction(request.id)
        if found is None:
            detail = f"no executed transaction {request.id.hex()}; it may be under way: use Wait"
            detail += self._node.store.kept_note()
            raise Rejection(RejectionReason.NOT_FOUND, detail)
        return _transaction_status(request.id, *found)

    async def Wait(  # noqa: N802
        self, request: node_pb2.TransactionRequest, context: CallContext
    ) -> node_pb2.TransactionStatus:
        """The outcome, as soon as there is one; the caller's deadline bounds the wait."""
        last_height = self._node.height + WINDOW_BLOCKS
        with self._open_call(context):
            found = await self._node.wait_transaction(request.id, last_height)
        if found is None:
            detail = (
                f"no block up to {last_height} has transaction {request.id.hex()}: whatever was "
                "valid when the wait began has expired; sign it anew"
            )
            raise Rejection(RejectionReason.NOT_FOUND, detail)
        return _transaction_status(request.id, *found)


def _transaction_status(
    identity: bytes, height: int, receipt: TransactionReceipt
) -> node_pb2.TransactionStatus:
    return node_pb2.TransactionStatus(
        id=identity,
        height=height,
        accepted=receipt.accepted,
        reason=receipt.reason,
        fee=receipt.fee,
    )


class InferenceService(_Base, node_pb2_grpc.InferenceServicer):
    """Jobs: ask, follow, look up."""

    async def Infer(  # noqa: N802
        self, request: node_pb2.InferRequest, context: CallContext
    ) -> AsyncIterator[node_pb2.InferEvent]:
        """Submit and stream until the receipt."""
        with self._open_call(context):
            async with aclosing(InferenceFlow(self._node).run(request.transaction)) as events:
                async for event in events:
                    yield event

    async def Get(  # noqa: N802
        self, request: node_pb2.JobRequest, context: CallContext
    ) -> node_pb2.JobView:
        """One job as the ledger has it now."""
        job = await self._node.worker.read(lambda ledger: ledger.job(request.job))
        view = await self._node.look_up(
            lambda: (
                settled_job_view(request.job, self._node.store)
                if job is None
                else job_view(request.job, job, self._node.store)
            )
        )
        if view is None:
            detail = f"no job {request.job.hex()} on this chain; check the id, or wait until its "
            detail += "request is final"
            raise Rejection(RejectionReason.UNKNOWN_JOB, detail)
        return view

    async def Explain(  # noqa: N802
        self, request: node_pb2.JobRequest, context: CallContext
    ) -> node_pb2.Explanation:
        """Why each attempt's provider was drawn."""
        now = await self._node.worker.read(lambda ledger: ledger.explain(request.job))
        attempts_max = self._node.genesis.parameters.attempts_max
        view = await self._node.look_up(
            explanation, request.job, now, attempts_max, self._node.store
        )
        if now is None and not view.choices:
            detail = f"nothing is kept here of how job {request.job.hex()} was assigned: it is not "
            detail += "drawn yet, its block is pruned, this node joined later, or more jobs were "
            detail += "drawn in its block than are written down; ask a node that was there"
            raise Rejection(RejectionReason.UNKNOWN_JOB, detail)
        return view

    async def GetAppeal(  # noqa: N802
        self, request: node_pb2.JobRequest, context: CallContext
    ) -> node_pb2.AppealView:
        """A job's appeal, open or ruled."""
        return await appeal_of(self._node, request.job)

    async def List(  # noqa: N802
        self, request: node_pb2.JobsRequest, context: CallContext
    ) -> node_pb2.JobsReply:
        """The newest jobs."""
        limit = request.limit or JOBS_LIMIT_DEFAULT
        if limit > JOBS_LIMIT_MAX:
            detail = f"limit {limit}, allowed are 1 to {JOBS_LIMIT_MAX}"
            raise Rejection(RejectionReason.TOO_LARGE, detail)
        jobs = await self._node.worker.read(lambda ledger: ledger.newest_jobs(limit))
        views = await self._node.look_up(
            lambda: [job_view(identity, job, self._node.store) for identity, job in jobs]
        )
        return node_pb2.JobsReply(jobs=views)


class ChainService(_Base, node_pb2_grpc.ChainServicer):
    """Blocks and the node's own standing."""

    async def Status(  # noqa: N802
        self, request: node_pb2.StatusRequest, context: CallContext
    ) -> node_pb2.StatusReply:
        """Where this node stands."""
        return await self._node.status()

    async def GetBlock(  # noqa: N802
        self, request: node_pb2.BlockRequest, context: CallContext
    ) -> node_pb2.BlockView:
        """One executed block."""
        height = request.height or self._node.height
        view = await self._node.look_up(block_view, self._node.store, height)
        if view is None:
            detail = f"no executed block {height}; the newest here is {self._node.height}"
            raise Rejection(RejectionReason.NOT_FOUND, detail)
        return view

    async def Subscribe(  # noqa: N802
        self, request: node_pb2.SubscribeRequest, context: CallContext
    ) -> AsyncIterator[node_pb2.BlockView]:
        """Each block once it is executed; PRUNED for a reader so slow that one is forgotten."""
        height = self._node.height
        with self._open_call(context):
            while True:
                while height < self._node.height:
                    height += 1
                    view = await self._node.look_up(block_view, self._node.store, height)
                    if view is None:
                        raise RuntimeError(f"executed block {height} is not stored")
                    yield view
                await self._node.next_block()


class StateService(_Base, node_pb2_grpc.StateServicer):
    """The ledger's tables."""

    async def GetAccount(  # noqa: N802
        self, request: node_pb2.AccountRequest, context: CallContext
    ) -> node_pb2.AccountView:
        """Balance and stake; an unknown account has none."""
        _check_account(request.account)
        account = await self._node.worker.read(lambda ledger: ledger.account(request.account))
        return account_view(request.account, account)

    async def ListSessions(  # noqa: N802
        self, request: node_pb2.AccountRequest, context: CallContext
    ) -> node_pb2.SessionsReply:
        """The account's session keys; an unknown account has none."""
        _check_account(request.account)
        found = await self._node.worker.read(lambda ledger: list(ledger.sessions(request.account)))
        return node_pb2.SessionsReply(sessions=[session_view(*item) for item in found])

    async def ListModels(  # noqa: N802
        self, request: node_pb2.ModelsRequest, context: CallContext
    ) -> node_pb2.ModelsReply:
        """Registered models."""
        models = await self._node.worker.read(
            lambda ledger: [
                model_view(identity, model, ledger.verifiers(identity))
                for identity, model in ledger.models()
            ]
        )
        return node_pb2.ModelsReply(models=models)

    async def ListOffers(  # noqa: N802
        self, request: node_pb2.OffersRequest, context: CallContext
    ) -> node_pb2.OffersReply:
        """Standing offers."""
        offers = await self._node.worker.read(
            lambda ledger: list(ledger.offers(request.model or None))
        )
        return node_pb2.OffersReply(offers=[offer_view(*item) for item in offers])

    async def ListValidators(  # noqa: N802
        self, request: node_pb2.ValidatorsRequest, context: CallContext
    ) -> node_pb2.ValidatorsReply:
        """Everybody registered, and where each stands."""
        limit = min(request.limit or VALIDATORS_LISTED_MAX, VALIDATORS_LISTED_MAX)
        epoch, found = await self._node.worker.read(
            lambda ledger: (ledger.epoch, standings(ledger, request.from_index, limit))
        )
        return node_pb2.ValidatorsReply(
            validators=[validator_view(entry) for entry in found],
            epoch=epoch,
            epoch_blocks=self._node.genesis.parameters.epoch_blocks,
        )

    async def GetParameters(  # noqa: N802
        self, request: node_pb2.ParametersRequest, context: CallContext
    ) -> node_pb2.ParametersReply:
        """The governed numbers."""
        parameters = self._node.genesis.parameters
        values = {item.name: getattr(parameters, item.name) for item in fields(parameters)}
        return node_pb2.ParametersReply(values=values)

    async def ListStandings(  # noqa: N802
        self, request: node_pb2.StandingsRequest, context: CallContext
    ) -> node_pb2.StandingsReply:
        """What the state holds for and against providers and validators."""
        if request.provider:
            _check_account(request.provider)
        found = await self._node.worker.read(
            lambda ledger: records(ledger, request.model, request.provider)
        )
        return standings_view(found)

    async def ListAppeals(  # noqa: N802
        self, request: node_pb2.AppealsRequest, context: CallContext
    ) -> node_pb2.AppealsReply:
        """Open appeals."""
        found, complete = await self._node.worker.read(open_appeals)
        views = [appeal_view(*item) for item in found]
        return node_pb2.AppealsReply(appeals=views, complete=complete)


class ProofsService(_Base, node_pb2_grpc.ProofsServicer):
    """What can be checked offline."""

    async def GetReceipt(  # noqa: N802
        self, request: node_pb2.JobRequest, context: CallContext
    ) -> receipts_pb2.Receipt:
        """The receipt of a settled job."""
        return await self._node.look_up(self._node.receipt, request.job)

    async def ListBoundaries(  # noqa: N802
        self, request: node_pb2.BoundariesRequest, context: CallContext
    ) -> node_pb2.BoundariesReply:
        """A page of ends of epochs."""
        found = await self._node.look_up(boundary_page, self._node.store, request.from_epoch)
        return node_pb2.BoundariesReply(boundaries=found)


async def appeal_of(node: Node, identity: bytes) -> node_pb2.AppealView:
    """A job's appeal, open or ruled. Raises Rejection."""
    opened, job = await node.worker.read(
        lambda ledger: (ledger.appeal(identity), ledger.job(identity))
    )
    if opened is not None:
        return appeal_view(identity, opened)
    ruled = None
    if job is not None and job.appealed:
        ruled = await node.look_up(find_ruling, node.store, identity, job, node.height)
    if job is None or ruled is None:
        detail = f"no appeal of job {identity.hex()} is known here: there was none, its row has "
        detail += "left the state, or the block that ruled it is not kept"
        raise Rejection(RejectionReason.UNKNOWN_JOB, detail)
    return ruled_appeal_view(identity, job, ruled)


def _check_account(account: bytes) -> None:
    if len(account) != ACCOUNT_BYTES:
        detail = f"an account is {ACCOUNT_BYTES} bytes, got {len(account)}"
        raise Rejection(RejectionReason.BAD_ADDRESS, detail)


def add_services(server: grpc.aio.Server, node: Node) -> tuple[str, ...]:
    """Register every public service; returns their full names for health and reflection."""
    transactions = TransactionsService(node)
    node_pb2_grpc.add_TransactionsServicer_to_server(transactions, server)
    # These two take their requests as the bytes they are; what is registered last is called.
    server.add_registered_method_handlers(
        TRANSACTIONS,
        {
            "SubmitMany": grpc.unary_unary_rpc_method_handler(transactions.SubmitMany),
            "SubmitStream": grpc.stream_stream_rpc_method_handler(transactions.SubmitStream),
        },
    )
    node_pb2_grpc.add_InferenceServicer_to_server(InferenceService(node), server)
    node_pb2_grpc.add_ChainServicer_to_server(ChainService(node), server)
    node_pb2_grpc.add_StateServicer_to_server(StateService(node), server)
    node_pb2_grpc.add_ProofsServicer_to_server(ProofsService(node), server)
    return tuple(service.full_name for service in node_pb2.DESCRIPTOR.services_by_name.values())
