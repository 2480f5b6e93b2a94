"""Requests that are no message of their method: refused like everything else, with a reason.

Left to itself the gRPC library answers UNKNOWN with the name of a Python exception, and logs it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
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
    """Wraps the public methods that take a message; there is none that takes a stream of them."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The method's handler, which is never given a request that could not be read."""
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
            if isinstance(request, _Unreadable):
                await refuse(context, request.rejection())
            return await handler.unary_unary(request, context)

        async def stream(request: Any, context: CallContext) -> AsyncIterator[Any]:
            if isinstance(request, _Unreadable):
                await refuse(context, request.rejection())
            async for reply in handler.unary_stream(request, context):
                yield reply

        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, read, handler.response_serializer)
        return grpc.unary_unary_rpc_method_handler(answer, read, handler.response_serializer)
