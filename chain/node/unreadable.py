"""Requests that are refused, for a method's reasons or because they are no message of the method:
all with a rich status.

Left to itself the gRPC library answers UNKNOWN with the name of a Python exception, and logs it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from chain.node.errors import CallContext, refuse
from chain.rejections import Rejection, RejectionReason
from ext.transactions import BODY_BYTES_MAX

OWN_METHODS = "/assay.v1."
REQUEST_BYTES_MAX = BODY_BYTES_MAX + 64 * 1024
"""Such a method takes one transaction at most; a call that stays open keeps its request."""


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Stands where the request would be."""

    rejection: Rejection


class RefuseUnreadable(grpc.aio.ServerInterceptor):
    """Wraps the public methods that take a message; there is none that takes a stream of them.

    Such a method refuses by raising a Rejection. `count` is told the reason of each.
    """

    def __init__(self, count: Callable[[RejectionReason], None] = lambda reason: None) -> None:
        self._count = count

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The method's handler, never given a request that could not be read, with a status for
        each Rejection."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(OWN_METHODS):
            return handler
        if handler.request_deserializer is None:  # reads its requests itself
            return handler
        decode = handler.request_deserializer

        def read(data: bytes) -> Any:
            name = method.removeprefix("/")
            if len(data) > REQUEST_BYTES_MAX:
                detail = f"{name} takes at most {REQUEST_BYTES_MAX} bytes, this has {len(data)}"
                return _Unreadable(Rejection(RejectionReason.TOO_LARGE, detail))
            try:
                return decode(data)
            except DecodeError as error:
                detail = (
                    f"the request is not a message of {name}: {error}; build it with the schemas "
                    "of this version"
                )
                return _Unreadable(Rejection(RejectionReason.MALFORMED, detail))

        async def answer(request: Any, context: CallContext) -> Any:
            try:
                if isinstance(request, _Unreadable):
                    raise request.rejection
                return await handler.unary_unary(request, context)
            except Rejection as rejection:
                self._count(rejection.reason)
                await refuse(context, rejection)

        async def stream(request: Any, context: CallContext) -> AsyncIterator[Any]:
            try:
                if isinstance(request, _Unreadable):
                    raise request.rejection
                async with aclosing(handler.unary_stream(request, context)) as replies:
                    async for reply in replies:
                        yield reply
            except Rejection as rejection:
                self._count(rejection.reason)
                await refuse(context, rejection)

        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, read, handler.response_serializer)
        return grpc.unary_unary_rpc_method_handler(answer, read, handler.response_serializer)
