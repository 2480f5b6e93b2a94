"""What a browser may ask of a node: the page, JSON under `/api`, server-sent events; all read-only.

Every caller has a bucket of requests and a few open streams, by address. Ids and numbers are
checked before anything is read. The page's policy forbids it every host but its own.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from chain.addresses import parse_account, parse_id
from chain.explorer.feed import Feed, event
from chain.explorer.readings import LIST_MAX, Readings
from chain.explorer.values import message_value
from chain.node.node import Node, steady_clock_ms
from chain.node.rate_limit import OpenCalls, RateLimit
from chain.records import JobStatus
from chain.rejections import Busy, Rejection, RejectionReason

PAGE_FOLDER: Final = Path(__file__).parent / "page"
PER_SECOND: Final = 20
BURST: Final = 200
"""Requests one address may make at once after a pause: a page with its lists takes a dozen."""
STREAMS_MAX: Final = 64
"""Half of the connections that `chain.node.http` allows: metrics are still served."""
STREAMS_MAX_BY_CLIENT: Final = 16
TOKENS_WITHIN_S: Final = 660.0
"""A stream of tokens ends by then: no attempt may take longer."""
LIMIT_DEFAULT: Final = 25
HEIGHT_DIGITS_MAX: Final = 18
KINDS: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
NOT_BUILT: Final = (
    "The explorer page of this node was not built: its build needs npm (Node.js 20 or newer).\n"
    "In the source tree run `make web`, then start the node again. The API under /api works "
    "without it.\n"
)
STATUSES: Final = {
    RejectionReason.BUSY: 429,
    RejectionReason.NOT_FOUND: 404,
    RejectionReason.UNKNOWN_JOB: 404,
    RejectionReason.NOT_READY: 409,
    RejectionReason.PRUNED: 410,
}

logger = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]


class Explorer:
    """The handlers over one node. `run` must be running while they serve."""

    def __init__(
        self,
        node: Node,
        clock_ms: Callable[[], int],
        page: Path = PAGE_FOLDER,
        rates: RateLimit | None = None,
    ) -> None:
        self._node = node
        self._readings = Readings(node)
        self._feed = Feed(node, clock_ms)
        self._files = load_page(page)
        self._rates = rates or RateLimit(PER_SECOND, BURST)
        self._streams = OpenCalls(STREAMS_MAX, STREAMS_MAX_BY_CLIENT)

    async def run(self) -> None:
        """Follow the node, for those who listen, until cancelled."""
        await self._feed.run()

    def routes(self) -> list[BaseRoute]:
        """Everything from `/` on; to be put behind whatever else the node answers."""
        readings = self._readings
        lists: Mapping[str, Callable[[], Awaitable[Any]]] = {
            "status": readings.status,
            "jobs": readings.jobs,
            "models": readings.models,
            "providers": readings.providers,
            "validators": readings.validators,
            "standings": readings.standings,
        }
        found = [self._route(f"/api/{name}", _unasked(read)) for name, read in lists.items()]
        found += [
            self._route("/api/blocks", lambda request: readings.blocks(*_page_of(request))),
            self._route("/api/blocks/{height}", lambda request: readings.block(_height(request))),
            self._route(
                "/api/transactions", lambda request: readings.transactions(*_page_of(request))
            ),
            self._route(
                "/api/transactions/{id}", lambda request: readings.transaction(_id(request))
            ),
            self._route("/api/jobs/{id}", lambda request: readings.job(_id(request))),
            self._route("/api/accounts/{account}", lambda request: readings.account(_key(request))),
            self._route("/api/chart", self._chart),
            self._route("/api/genesis", _unasked(readings.genesis)),
            self._route("/api/jobs/{id}/receipt", lambda request: readings.receipt(_id(request))),
            Route("/api/jobs/{id}/tokens", self._guarded(self._tokens)),
            Route("/api/events", self._guarded(self._events)),
            Route("/", self._guarded(self._file)),
            Route("/{name}", self._guarded(self._file)),
        ]
        return found

    def _route(self, path: str, read: Callable[[Request], Awaitable[Any]]) -> BaseRoute:
        async def answer(request: Request) -> Response:
            return _json(await read(request))

        return Route(path, self._guarded(answer))

    def _guarded(self, handler: Handler) -> Handler:
        """A handler for those who do not ask too often; whose refusals are JSON."""

        async def guarded(request: Request) -> Response:
            try:
                delay_ms = self._rates.take(_client(request))
                if delay_ms:
                    raise Busy("this address asks too often; wait as Retry-After says", delay_ms)
                return await handler(request)
            except Rejection as rejection:
                return _refusal(rejection)

        return guarded

    async def _chart(self, request: Request) -> Any:
        return self._feed.points()

    async def _events(self, request: Request) -> Response:
        async def stream() -> AsyncIterator[str]:
            with self._streams.open(_client(request)):
                async with aclosing(self._feed.listen()) as news:
                    async for item in news:
                        yield item

        return self._stream(request, stream())

    async def _tokens(self, request: Request) -> Response:
        """What a provider streams for a job that is assigned now."""
        identity = _id(request)
        job = await self._node.worker.read(lambda ledger: ledger.job(identity))
        if job is None:
            raise Rejection(RejectionReason.UNKNOWN_JOB, f"no open job {identity.hex()}")
        if job.status is not JobStatus.ASSIGNED:
            detail = f"the job is {job.status.name}: tokens stream while it is ASSIGNED"
            raise Rejection(RejectionReason.NOT_READY, detail)

        async def stream() -> AsyncIterator[str]:
            with self._streams.open(_client(request)), suppress(TimeoutError):
                async with asyncio.timeout(TOKENS_WITHIN_S):
                    async for chunk in self._node.tokens(identity, job.attempts, job.operator):
                        yield event("tokens", message_value(chunk))
            yield event("end", {})

        return self._stream(request, stream())

    def _stream(self, request: Request, source: AsyncIterator[str]) -> Response:
        with self._streams.open(_client(request)):  # raises Busy while there can be a status
            headers = {**HEADERS, "cache-control": "no-store"}
            return StreamingResponse(source, media_type="text/event-stream", headers=headers)

    async def _file(self, request: Request) -> Response:
        if not self._files:
            return Response(NOT_BUILT, 503, HEADERS, "text/plain; charset=utf-8")
        name = request.path_params.get("name", "index.html")
        found = self._files.get(name)
        if found is None:
            raise Rejection(RejectionReason.NOT_FOUND, f"no file {name!r:.80} belongs to the page")
        # Every name but this one carries a digest of what it names.
        kept = "no-cache" if name == "index.html" else "max-age=31536000, immutable"
        return Response(found, 200, {**HEADERS, "cache-control": kept}, KINDS[Path(name).suffix])


def _unasked(read: Callable[[], Awaitable[Any]]) -> Callable[[Request], Awaitable[Any]]:
    """A reading that nothing is asked of."""

    async def answer(request: Request) -> Any:
        return await read()

    return answer


@asynccontextmanager
async def explored(node: Node) -> AsyncIterator[list[BaseRoute]]:
    """The explorer's routes, while the context lasts."""
    explorer = Explorer(node, steady_clock_ms())
    following = asyncio.create_task(explorer.run())
    following.add_done_callback(_tell_why)
    try:
        yield explorer.routes()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def _tell_why(following: "asyncio.Task[None]") -> None:
    """A feed that failed costs the page its news, and not the validator its votes."""
    if not following.cancelled() and following.exception() is not None:
        logger.error("the explorer no longer follows the chain", exc_info=following.exception())


def load_page(folder: Path) -> dict[str, bytes]:
    """The built page's files by name; none if it was not built."""
    if not (folder / "index.html").is_file():
        return {}
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in KINDS}


def _client(request: Request) -> str:
    return request.client.host if request.client is not None else ""


def _json(value: Any) -> Response:
    data = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
    return Response(data, 200, {**HEADERS, "cache-control": "no-store"}, "application/json")


def _refusal(rejection: Rejection) -> Response:
    headers = dict(HEADERS)
    if isinstance(rejection, Busy):
        headers["retry-after"] = str(-(-rejection.retry_delay_ms // 1000))
    value = {"reason": rejection.reason.value, "detail": rejection.detail}
    status = STATUSES.get(rejection.reason, 400)
    return Response(json.dumps(value), status, headers, "application/json")


def _id(request: Request) -> bytes:
    return parse_id(request.path_params["id"], "id")


def _key(request: Request) -> bytes:
    return parse_account(request.path_params["account"])


def _height(request: Request) -> int:
    return _number(request.path_params["height"], "height")


def _page_of(request: Request) -> tuple[int, int]:
    """`before` and `limit` of a list."""
    before = _number(request.query_params.get("before", "0"), "before")
    limit = _number(request.query_params.get("limit", str(LIMIT_DEFAULT)), "limit")
    if not 1 <= limit <= LIST_MAX:
        detail = f"limit {limit}, allowed are 1 to {LIST_MAX}"
        raise Rejection(RejectionReason.TOO_LARGE, detail)
    return before, limit


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= HEIGHT_DIGITS_MAX):
        raise Rejection(RejectionReason.MALFORMED, f"{name} is {text!r:.80}: give a whole number")
    return int(text)
