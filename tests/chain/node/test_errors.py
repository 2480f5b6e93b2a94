"""A rejection arrives at the client as it left the server: reason, detail, what to do."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from chain.node.errors import ERROR_DOMAIN, rejection_of, status_of
from chain.rejections import Busy, Rejection, RejectionReason


def failed_call(
    trailing: tuple[tuple[str, bytes], ...], code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details="told"
    )


def details_of(info: error_details_pb2.ErrorInfo) -> tuple[tuple[str, bytes], ...]:
    status = status_pb2.Status(code=3, message="told")
    status.details.add().Pack(info)
    return (("grpc-status-details-bin", status.SerializeToString()),)


@pytest.mark.parametrize("reason", list(RejectionReason))
def test_every_reason_survives_the_way(reason: RejectionReason) -> None:
    sent = status_of(Rejection(reason, "seen, allowed, what to do"))
    received = rejection_of(failed_call(tuple(sent.trailing_metadata), sent.code))
    assert received is not None
    assert (received.reason, received.detail) == (reason, "seen, allowed, what to do")
    assert sent.code is not grpc.StatusCode.OK
    assert sent.code is not grpc.StatusCode.UNKNOWN


def test_a_busy_node_says_when_to_come_again() -> None:
    sent = status_of(Rejection(RejectionReason.BUSY, "full"))
    status = status_pb2.Status.FromString(dict(sent.trailing_metadata)["grpc-status-details-bin"])
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToMilliseconds() > 0
    assert sent.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_delay_of_a_busy_node_arrives() -> None:
    sent = status_of(Busy("full", 1_234))
    received = rejection_of(failed_call(tuple(sent.trailing_metadata), sent.code))
    assert isinstance(received, Busy)
    assert (received.detail, received.retry_delay_ms) == ("full", 1_234)


@pytest.mark.parametrize(
    "trailing",
    [
        (),
        (("other-bin", b"x"),),
        details_of(error_details_pb2.ErrorInfo(reason="BUSY", domain="elsewhere")),
        details_of(error_details_pb2.ErrorInfo(reason="NEW_REASON", domain=ERROR_DOMAIN)),
        (("grpc-status-details-bin", b"\xff\xff\xff"),),
    ],
)
def test_a_failure_of_another_kind_is_no_rejection(
    trailing: tuple[tuple[str, bytes], ...],
) -> None:
    assert rejection_of(failed_call(trailing)) is None
