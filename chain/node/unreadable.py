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

OWN_METHODS = "/assay.v1."


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Stands where the request would be."""

    method: str
    cause: str

    def rejection(self) -> Rejection:
        return Rejection(
            RejectionReason.MALFORMED,
            f"the request is not a message of {self.method}: {self.cause}; build it with the "
            "schemas of this version",
        )


class RefuseUnreadable(grpc.aio.ServerInterceptor):
    """Wraps the public methods that take a message; there is none that takes a stream of them.

    Such a method refuses by raising a Rejection.
    """

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
            try:
                return decode(data)
            except DecodeError as error:
                return _Unreadable(method.removeprefix("/"), str(error))

        async def answer(request: Any, context: CallContext) -> Any:
            try:
                if isinstance(request, _Unreadable):
                    raise request.rejection()
                return await handler.unary_unary(request, context)
            except Rejection as rejection:
                await refuse(context, rejection)

        async def stream(request: Any, context: CallContext) -> AsyncIterator[Any]:
            try:
                if isinstance(request, _Unreadable):
                    raise request.rejection()
                async with aclosing(handler.unary_stream(request, context)) as replies:
                    async for reply in replies:
                        yield reply
            except Rejection as rejection:
                await refuse(context, rejection)

        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, read, handler.response_serializer)
        return grpc.unary_unary_rpc_method_handler(answer, read, handler.response_serializer)
