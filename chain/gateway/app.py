"""The HTTP side: routes, bounds, and how a purchase's events become a response."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from assay.v1 import node_pb2
from chain import readable, receipt_files
from chain.addresses import parse_id
from chain.asking import pick_model
from chain.client import NodeUnavailableError
from chain.dapp.events import Answered, Event, Progress, Restarted, Settled, Tokens
from chain.dapp.nodes import Nodes
from chain.gateway import replies
from chain.gateway.access import Access, ApiKey
from chain.gateway.errors import GatewayError, GatewayReason, bad_request, error_of
from chain.gateway.purchases import FAILURES, Purchase, Purchases
from chain.gateway.questions import Parser, Question, parse_chat, parse_completion
from chain.gateway.replies import Heading
from chain.readable import ReadableError
from chain.records import JobStatus
from chain.rejections import Rejection, RejectionReason

BODY_BYTES_MAX: Final = 1 << 20
BODY_WITHIN_S: Final = 30.0
IDEMPOTENCY_CHARACTERS_MAX: Final = 255
QUIET_S: Final = 10.0
"""After so long without a token a stream says that it lives."""
HEALTH_WITHIN_S: Final = 2.0
HEALTH_KEPT_S: Final = 1.0
RETRY_COUNT_HEADER: Final = "x-stainless-retry-count"
"""OpenAI's clients count their own retries in it."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """How the gateway answers."""

    default_max_tokens: int = 256
    """For a question that does not say."""


class Gateway:
    """The handlers, over purchases and nodes that live on the same event loop."""

    def __init__(
        self,
        nodes: Nodes,
        purchases: Purchases,
        access: Access,
        settings: GatewaySettings,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._nodes = nodes
        self._purchases = purchases
        self._access = access
        self._settings = settings
        self._now_s = now_s
        self._health: tuple[float, int, dict[str, Any]] | None = None
        self._probing = asyncio.Lock()

    def app(self) -> Starlette:
        """The ASGI application. Its lifespan minds open purchases."""
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/completions", self._completion, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/v1/models/{model:path}", self._model),
                Route("/v1/receipts/{job}", self._receipt),
                Route("/healthz", self._healthz),
            ],
            exception_handlers={
                GatewayError: _told,
                Rejection: _told,
                NodeUnavailableError: _told,
                HTTPException: _told_of_routing,
                Exception: _told,
            },
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        minding = asyncio.create_task(self._purchases.run())
        try:
            yield
        finally:
            minding.cancel()
            with suppress(asyncio.CancelledError):
                await minding
            await self._purchases.stop()

    def _caller(self, request: Request) -> ApiKey:
        headers = request.headers
        return self._access.caller(
            headers.get("authorization"), self._now_s(), headers.get("origin")
        )

    async def _chat(self, request: Request) -> Response:
        return await self._answer(request, parse_chat)

    async def _completion(self, request: Request) -> Response:
        return await self._answer(request, parse_completion)

    async def _answer(self, request: Request, parse: Parser) -> Response:
        caller = self._caller(request)
        body = await _read_body(request)
        question = parse(_json_object(body), self._settings.default_max_tokens)
        digest = hashlib.sha256(request.url.path.encode() + b"\0" + body).digest()
        purchase = await self._purchases.buy(
            caller,
            question,
            digest,
            _idempotency_key(request),
            request.headers.get(RETRY_COUNT_HEADER, "0") != "0",
        )
        heading = _heading(purchase, question)
        try:
            if question.stream:
                await purchase.begun()
                return StreamingResponse(
                    _stream(purchase, heading),
                    media_type="text/event-stream",
                    headers={**heading.headers(), "cache-control": "no-store"},
                )
            return await _whole(request, purchase, heading)
        except FAILURES as error:
            raise error_of(error, purchase.following.sent, heading.headers()) from error

    async def _models(self, request: Request) -> Response:
        self._caller(request)
        models = await self._nodes.ask(lambda client: client.models())
        names = [model.name for model in models]
        data = [_model_value(model, names.count(model.name) == 1) for model in models]
        return JSONResponse({"object": "list", "data": data})

    async def _model(self, request: Request) -> Response:
        self._caller(request)
        wanted = request.path_params["model"]
        model = await self._nodes.ask(lambda client: pick_model(client, wanted))
        return JSONResponse(_model_value(model, named=True))

    async def _receipt(self, request: Request) -> Response:
        self._caller(request)
        job = _job(request.path_params["job"])
        form = request.query_params.get("format", "json")
        if form not in ("json", "protobuf"):
            raise bad_request(
                RejectionReason.MALFORMED, f"format: {form!r:.80}: give json or protobuf", "format"
            )
        receipt = receipt_files.from_protobuf(
            await self._nodes.ask(lambda client: client.receipt(job))
        )
        as_json = form == "json"
        data = receipt_files.dump_json(receipt) if as_json else receipt_files.dump_protobuf(receipt)
        name = f"{job.hex()[:16]}.{'json' if as_json else 'pb'}"
        return Response(
            data,
            media_type="application/json" if as_json else "application/x-protobuf",
            headers={
                "content-disposition": f'attachment; filename="{name}"',
                "x-assay-status": receipt.job_receipt.status.name,
            },
        )

    async def _healthz(self, _: Request) -> Response:
        async with self._probing:  # however many ask, the nodes are asked once a while
            if self._health is None or time.monotonic() - self._health[0] > HEALTH_KEPT_S:
                self._health = (time.monotonic(), *await self._probe())
        return JSONResponse(self._health[2], self._health[1])

    async def _probe(self) -> tuple[int, dict[str, Any]]:
        replies_of = await asyncio.gather(
            *(client.status(HEALTH_WITHIN_S) for client in self._nodes.clients),
            return_exceptions=True,
        )
        answering = [item for item in replies_of if isinstance(item, node_pb2.StatusReply)]
        value = {
            "status": "ok" if answering else "no node answers",
            "nodes": len(self._nodes.clients),
            "answering": len(answering),
            "height": max((item.height for item in answering), default=0),
        }
        return (200 if answering else 503), value


async def _whole(request: Request, purchase: Purchase, heading: Heading) -> Response:
    """The answer when the chain has ruled that it is right. Raises what kept it from that."""
    pieces: list[Tokens] = []
    settled: Settled | None = None
    async for event in purchase.events():
        match event:
            case Tokens():
                pieces.append(event)
            case Restarted():
                pieces.clear()
            case Settled():
                settled = event
    if settled is None or settled.result is None or settled.status is not JobStatus.VERIFIED:
        raise _not_verified(settled, heading)
    body = replies.whole(heading, pieces, settled.result, settled)
    purchase.delivered = purchase.delivered or not await request.is_disconnected()
    return JSONResponse(body, headers={**heading.headers(), "x-assay-status": settled.status.name})


async def _stream(purchase: Purchase, heading: Heading) -> AsyncGenerator[bytes, None]:
    """Server-sent events. What goes wrong now is told as an event, and ends the stream."""
    try:
        async with aclosing(_stream_events(purchase, heading)) as events:
            async for data in events:
                yield data
        purchase.delivered = True
    except GatewayError as error:
        yield replies.event(error.body())
    except FAILURES as error:
        yield replies.event(error_of(error, purchase.following.sent).body())


async def _stream_events(purchase: Purchase, heading: Heading) -> AsyncGenerator[bytes, None]:
    yield replies.opening(heading)
    offset = 0
    async for event in _with_pauses(purchase):
        match event:
            case None:
                yield replies.comment("waiting")
            case Progress():
                yield replies.comment(event.view.status)
            case Tokens():
                yield replies.piece(heading, event, offset)
                offset += len(event.text)
            case Restarted():
                if offset:
                    raise _changed(heading)
            case Settled():
                if event.result is None or event.status is not JobStatus.VERIFIED:
                    raise _not_verified(event, heading)
                yield replies.closing(heading, event.result, event)
            case Answered():
                pass  # its tokens came before


async def _with_pauses(purchase: Purchase) -> AsyncGenerator[Event | None, None]:
    """A purchase's events, and None whenever nothing has come for a while."""
    async with aclosing(purchase.events()) as events:
        coming: asyncio.Task[Event] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(events))
                done, _ = await asyncio.wait((coming,), timeout=QUIET_S)
                if not done:
                    yield None
                    continue
                finished, coming = coming, None
                try:
                    event = finished.result()
                except StopAsyncIteration:
                    return
                yield event
        finally:
            if coming is not None:
                coming.cancel()
                with suppress(asyncio.CancelledError, StopAsyncIteration, *FAILURES):
                    await coming


def _heading(purchase: Purchase, question: Question) -> Heading:
    return Heading(
        is_chat=question.is_chat,
        job=purchase.following.job,
        transaction=purchase.following.transaction,
        created_s=purchase.entry.created_s,
        model=question.model,
        logprobs=question.logprobs,
        include_usage=question.include_usage,
    )


def _not_verified(settled: Settled | None, heading: Heading) -> GatewayError:
    rejected = settled is not None and settled.status is JobStatus.REJECTED
    code = GatewayReason.REJECTED if rejected else GatewayReason.REFUNDED
    why = (
        "the committee found the answer wrong"
        if rejected
        else "no provider answered in time, or too few verifiers could judge"
    )
    return GatewayError(
        502,
        code,
        f"{why}; nothing but the fee was paid, {heading.receipt} proves it: ask again",
        headers=heading.headers(),
    )


def _changed(heading: Heading) -> GatewayError:
    return GatewayError(
        502,
        GatewayReason.ANSWER_CHANGED,
        "another provider's answer took the place of the one streamed so far; ask again with the "
        f"same Idempotency-Key to read it, or see {heading.receipt}: it is not bought twice",
    )


def _model_value(model: node_pb2.ModelView, named: bool) -> dict[str, Any]:
    return {
        "id": model.name if named else model.model.hex(),
        "object": "model",
        "created": 0,
        "owned_by": model.owner.hex(),
        "assay": {
            "model": model.model.hex(),
            "name": model.name,
            "context_tokens": model.context_tokens,
            "royalty_bps": model.royalty_bps,
            "verifiers": len(model.verifiers),
        },
    }


def _job(text: str) -> bytes:
    try:
        return parse_id(text)
    except Rejection as rejection:
        detail = f"{rejection.detail}, as in x-assay-job"
        raise bad_request(rejection.reason, detail, "job") from rejection


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= IDEMPOTENCY_CHARACTERS_MAX:
        raise bad_request(
            RejectionReason.MALFORMED,
            f"Idempotency-Key has {len(key)} characters, allowed are 1 to "
            f"{IDEMPOTENCY_CHARACTERS_MAX}",
            "Idempotency-Key",
        )
    return key


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    # h11 lets digits only pass, at most twenty.
    if int(request.headers.get("content-length", "0")) > BODY_BYTES_MAX:
        raise _too_large()
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for part in request.stream():
                body += part
                if len(body) > BODY_BYTES_MAX:
                    raise _too_large()
    except TimeoutError as error:
        raise bad_request(
            GatewayReason.SLOW_REQUEST,
            f"the body did not come within {BODY_WITHIN_S:g} s; send it again",
            status=408,
        ) from error
    except ClientDisconnect as error:
        raise bad_request(RejectionReason.MALFORMED, "the body broke off") from error
    return bytes(body)


def _too_large() -> GatewayError:
    detail = f"the body has more than {BODY_BYTES_MAX} bytes; send less"
    return bad_request(RejectionReason.TOO_LARGE, detail, status=413)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        return readable.parse_object(body.decode())
    except (ReadableError, UnicodeDecodeError) as error:
        raise bad_request(
            RejectionReason.MALFORMED, f"the body is no JSON object: {error}"
        ) from error


async def _told(_: Request, error: Exception) -> Response:
    told = error_of(error)
    return JSONResponse(told.body(), told.status, told.headers())


async def _told_of_routing(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = GatewayReason.METHOD_NOT_ALLOWED if status == 405 else GatewayReason.NOT_FOUND
    headers = getattr(error, "headers", None)
    message = (
        f"{request.method} {request.url.path!r:.80} is not served here; there are POST "
        "/v1/chat/completions, POST /v1/completions, GET /v1/models, GET /v1/receipts/JOB and GET "
        "/healthz"
    )
    return await _told(request, GatewayError(status, code, message, headers=headers))
