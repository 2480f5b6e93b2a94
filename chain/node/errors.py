"""Rejections as gRPC statuses with rich details, and back."""

from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from chain.rejections import Busy, Rejection, RejectionReason

CallContext: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
"""What a handler is given, whatever its messages."""
ERROR_DOMAIN = "assay.node"
_RETRY_DELAY_MS = 250
"""For whoever is refused as BUSY without being told when to come again."""

_CODES = {
    RejectionReason.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RejectionReason.STATE_FULL: grpc.StatusCode.FAILED_PRECONDITION,
    RejectionReason.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    RejectionReason.UNKNOWN_JOB: grpc.StatusCode.NOT_FOUND,
    RejectionReason.PRUNED: grpc.StatusCode.NOT_FOUND,
    RejectionReason.NOT_READY: grpc.StatusCode.FAILED_PRECONDITION,
    RejectionReason.REPLAYED: grpc.StatusCode.ALREADY_EXISTS,
    RejectionReason.INSUFFICIENT_BALANCE: grpc.StatusCode.FAILED_PRECONDITION,
    RejectionReason.INSUFFICIENT_STAKE: grpc.StatusCode.FAILED_PRECONDITION,
    RejectionReason.NO_OFFER: grpc.StatusCode.FAILED_PRECONDITION,
    RejectionReason.NO_CALIBRATED_PAIR: grpc.StatusCode.FAILED_PRECONDITION,
    RejectionReason.JOB_NOT_OPEN: grpc.StatusCode.FAILED_PRECONDITION,
    RejectionReason.SESSION_OPERATION_CAP: grpc.StatusCode.FAILED_PRECONDITION,
    RejectionReason.SESSION_TOTAL_CAP: grpc.StatusCode.FAILED_PRECONDITION,
    RejectionReason.SESSION_FORBIDS: grpc.StatusCode.PERMISSION_DENIED,
    RejectionReason.UNKNOWN_SESSION: grpc.StatusCode.PERMISSION_DENIED,
}


def status_of(rejection: Rejection) -> Any:
    """The rich status a server sends for a rejection."""
    code = _CODES.get(rejection.reason, grpc.StatusCode.INVALID_ARGUMENT)
    info = error_details_pb2.ErrorInfo(reason=rejection.reason.value, domain=ERROR_DOMAIN)
    details = [_pack(info)]
    if rejection.reason is RejectionReason.BUSY:
        delay = duration_pb2.Duration()
        told_ms = rejection.retry_delay_ms if isinstance(rejection, Busy) else _RETRY_DELAY_MS
        delay.FromMilliseconds(told_ms)
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    status = status_pb2.Status(code=code.value[0], message=rejection.detail, details=details)
    return rpc_status.to_status(status)


def _pack(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


async def refuse(context: CallContext, rejection: Rejection) -> NoReturn:
    """End a call with the rejection's rich status."""
    status = status_of(rejection)
    context.set_trailing_metadata(status.trailing_metadata)
    await context.abort(status.code, status.details)
    raise rejection  # abort never returns; this tells the type checker


def rejection_of(error: grpc.aio.AioRpcError) -> Rejection | None:
    """The rejection a server sent, or None if the failure was of another kind (no connection,
    …)."""
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        try:
            status = status_pb2.Status.FromString(value)
        except DecodeError:
            return None
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        told = False
        for detail in status.details:
            told = (detail.Unpack(info) and info.domain == ERROR_DOMAIN) or told
            detail.Unpack(retry)
        if not told:
            return None
        try:
            reason = RejectionReason(info.reason)
        except ValueError:
            return None
        if reason is RejectionReason.BUSY:
            return Busy(status.message, retry.retry_delay.ToMilliseconds())
        rejection = Rejection(reason, status.message)
        rejection.add_note(rejection.remedy)
        return rejection
    return None
